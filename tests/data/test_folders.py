import re
import shutil

import numpy as np
import pytest

from keras_residual.data import Fingerprint, load_dataset
from keras_residual.data.lazy import LazyExamples

pytestmark = pytest.mark.any_backend

NO_PICTURE = "not a picture in JPEG, PNG, WebP, BMP, GIF or TIFF"


def refused(message, source, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_dataset(str(source), **arguments)


def values(x):
    return sorted(x[:, 0, 0, 0].tolist())


def test_sub_folders_are_classes_and_every_picture_is_there_once(two_classes):
    data = load_dataset(str(two_classes))
    assert (data.name, data.kind, data.task, data.classes) == ("pets", "pictures", "classification", ("cat", "dog"))
    assert data.x_train.shape == (16, 8, 8, 1)
    assert data.x_test.shape == (4, 8, 8, 1)
    assert values(np.concatenate([data.x_train, data.x_test])) == [*range(10), *range(100, 110)]
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        np.testing.assert_array_equal(y, x[:, 0, 0, 0] >= 100)
    np.testing.assert_array_equal(np.bincount(data.y_test), [2, 2])


def test_two_reads_give_the_same_and_nothing_is_written(two_classes):
    before = sorted(two_classes.rglob("*"))
    first, second = load_dataset(str(two_classes)), load_dataset(str(two_classes))
    np.testing.assert_array_equal(first.x_train, second.x_train)
    assert sorted(two_classes.rglob("*")) == before


def test_names_are_in_natural_order(tmp_path, write_picture):
    for number in (1, 2, 10):
        for shade in range(2):
            write_picture(tmp_path / f"class{number}" / f"{shade}.png", number)
    assert load_dataset(str(tmp_path), test_fraction=0.5).classes == ("class1", "class2", "class10")


def write_parts(folder, write_picture, parts, *, classes_first=False):
    """Writes six grey pictures of each of two classes for each part, and returns the values of each."""
    values = {}
    for number, part in enumerate(parts):
        values[part] = []
        for label, base in (("a", 0), ("b", 100)):
            for place in range(6):
                value = base + 10 * number + place
                inside = f"{label}/{part}" if classes_first else f"{part}/{label}"
                write_picture(folder / inside / f"{place}.png", value)
                values[part].append(value)
    return {part: sorted(each) for part, each in values.items()}


@pytest.mark.parametrize("classes_first", [False, True])
@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("training_set", "valid", "test_set"),
        ("TRAIN-SET", "val_set", "testset"),
        ("train", None, "test"),
        ("train", "validation", None),
    ],
)
def test_parts_by_every_usual_name_are_what_they_are_called(
    tmp_path, write_picture, classes_first, train, validation, test
):
    names = [name for name in (train, validation, test) if name]
    values_of = write_parts(tmp_path, write_picture, names, classes_first=classes_first)
    data = load_dataset(str(tmp_path))
    assert (data.classes, data.notes) == (("a", "b"), ())
    chosen = data.x_train[data.choose] if data.choose is not None else data.x_train[:0]
    learned = np.delete(data.x_train, data.choose, 0) if data.choose is not None else data.x_train
    assert values(chosen) == values_of.get(validation, [])
    if test:
        assert (values(learned), values(data.x_test)) == (values_of[train], values_of[test])
    else:  # drawn from what is learned from, never from what is chosen by
        assert sorted(values(learned) + values(data.x_test)) == values_of[train]
        assert len(data.x_test) == 3
    assert data.own_test == bool(test)
    np.testing.assert_array_equal(data.y_train, data.x_train[:, 0, 0, 0] >= 100)
    np.testing.assert_array_equal(data.y_test, data.x_test[:, 0, 0, 0] >= 100)
    where = "drawn by seed 0, 0.2 of each class"
    inside = {name: f"CLASS/{name}/ of the data" if classes_first else f"{name}/ of the data" for name in names}
    assert data.found[1] == (
        f"Validation: {inside.get(validation, 'drawn by seed from what is learned from')}. "
        f"Test: {inside.get(test, where)}."
    )


def test_the_classes_of_an_own_split_are_those_of_train(tmp_path, write_picture):
    for label, value in (("a", 1), ("b", 2), ("c", 3)):
        write_picture(tmp_path / "train" / label / "x.png", value)
    write_picture(tmp_path / "test" / "c" / "x.png", 9)
    (tmp_path / "test" / "b").mkdir()
    data = load_dataset(str(tmp_path))
    assert (values(data.x_train), values(data.x_test), data.y_test.tolist()) == ([1, 2, 3], [9], [2])


def test_two_folders_that_are_called_as_one_part_are_refused(tmp_path, write_picture):
    write_parts(tmp_path, write_picture, ["train", "training", "test"])
    refused(
        f"Data {str(tmp_path)!r}: both 'train' and 'training' in {tmp_path} are called as the train part. "
        "Put them together or rename one.",
        tmp_path,
    )


def test_pictures_without_labels_are_no_test(tmp_path, write_picture):
    write_parts(tmp_path, write_picture, ["train", "val"])
    for number in range(3):
        write_picture(tmp_path / "test" / f"{number}.png", number)
    data = load_dataset(str(tmp_path))
    assert data.notes[0] == "test/ has no sub-folders that would tell the classes, and is not used."
    assert (len(data.choose), len(data.y_test)) == (12, 3)


def test_what_is_found_is_said(two_classes, write_picture):
    write_picture(two_classes / "cat" / "large.png", 50, size=(30, 20))
    (two_classes / "readme.txt").write_text("beside the classes")
    (two_classes / "cat" / ".DS_Store").write_bytes(b"x")
    (two_classes / "dog" / "notes.txt").write_text("x")
    (two_classes / "dog" / "broken.png").write_bytes(b"x")
    data = load_dataset(str(two_classes))
    assert data.found == (
        "Found 21 pictures of 2 classes, 8×8 to 20×30 pixels: cat 11, dog 10.",
        "Validation: drawn by seed from what is learned from. Test: drawn by seed 0, 0.2 of each class.",
        "Pictures are read at 64×64 in grey: small, so that a first run is quick; --image-size N for another.",
        "Held in memory: 84.0 KiB.",
        "Ignored, since they are hidden or lie beside the class folders: .DS_Store, readme.txt.",
        f"1 file is no picture and ignored: {str(two_classes / 'dog' / 'notes.txt')!r}.",
        f"1 file is skipped, since it cannot be read: {str(two_classes / 'dog' / 'broken.png')!r}.",
    )


def test_a_class_may_be_called_train(tmp_path, write_picture):
    for label in ("train", "test", "car"):
        for number in range(5):
            write_picture(tmp_path / label / f"{number}.png", number)
    assert load_dataset(str(tmp_path)).classes == ("car", "test", "train")


def test_a_test_class_that_train_lacks_is_refused(tmp_path, write_picture):
    for label in ("cat", "dog"):
        write_picture(tmp_path / "train" / label / "x.png")
    write_picture(tmp_path / "test" / "cats" / "x.png")
    refused(
        f"Data {str(tmp_path)!r}: sub-folder of test/ 'cats' (1 example) is not one of the classes. "
        "Did you mean 'cat'? Known: cat, dog.",
        tmp_path,
    )


def test_fixed_classes_decide_the_index_and_need_not_all_be_there(two_classes):
    data = load_dataset(str(two_classes), classes=("cow", "dog", "cat"))
    assert data.classes == ("cow", "dog", "cat")
    np.testing.assert_array_equal(data.y_test, np.where(data.x_test[:, 0, 0, 0] >= 100, 1, 2))


def test_a_folder_that_is_no_class_is_refused(two_classes):
    refused(
        f"Data {str(two_classes)!r}: sub-folder 'dog' (10 examples) is not one of the classes. Known: cat, cow.",
        two_classes,
        classes=("cat", "cow"),
    )


def test_one_class_only_is_refused(two_classes):
    shutil.rmtree(two_classes / "dog")
    refused(
        f"Data {str(two_classes)!r}: there is only the class 'cat', and telling classes apart needs two at least. "
        "Add a sub-folder of pictures for another class.",
        two_classes,
    )


def test_one_folder_around_the_classes_is_seen_through_in_the_message(two_classes):
    around = two_classes.parent
    refused(
        f"Data {str(around)!r}: there is only the class 'pets', and telling classes apart needs two at least. "
        "Add a sub-folder of pictures for another class. "
        f"Or name the folder that holds the classes: {two_classes}.",
        around,
    )


def test_one_class_only_in_a_training_part_is_refused(tmp_path, write_picture):
    for part in ("train", "test"):
        write_picture(tmp_path / part / "a" / "x.png")
    message = (
        f"Data {str(tmp_path)!r}: there is only the class 'a' in train/, and telling classes apart needs two at least. "
        "Add a sub-folder of pictures for another class."
    )
    refused(message, tmp_path)
    refused(message, tmp_path, classes=("a",))
    write_picture(tmp_path / "train" / "a" / "cat" / "x.png")
    refused(f"{message} Or name the folder that holds the classes: {tmp_path / 'train' / 'a'}.", tmp_path)


def test_an_empty_training_part_is_refused(tmp_path, write_picture):
    (tmp_path / "train").mkdir()
    for label in "ab":
        write_picture(tmp_path / "test" / label / "x.png")
    for arguments in ({}, {"classes": ("a", "b"), "test_fraction": 1.0}):
        refused(
            f"Data {str(tmp_path)!r}: the folder {tmp_path / 'train'} is empty. "
            "Put the pictures into one sub-folder a class.",
            tmp_path,
            **arguments,
        )


def test_a_class_folder_may_be_a_link(two_classes):
    (two_classes / "cat").rename(two_classes.parent / "elsewhere")
    (two_classes / "cat").symlink_to(two_classes.parent / "elsewhere")
    data = load_dataset(str(two_classes))
    assert (data.classes, len(data.y_train), data.notes) == (("cat", "dog"), 16, ())


def test_what_may_not_be_read_is_one_line(two_classes, monkeypatch):
    def refuse(path, *rest, **how):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    refused(
        f"Data {str(two_classes)!r}: {two_classes / 'cat'} cannot be read (Permission denied). "
        "Correct the path, or see that you may read it.",
        two_classes,
    )


def test_pictures_that_lie_beside_the_class_folders_are_said(two_classes, write_picture):
    write_picture(two_classes / "stray.png")
    write_picture(two_classes / ".hidden.png")
    for name in ("README.md", "labels.json", "notes.txt", "labels.csv"):
        (two_classes / name).write_text("beside the classes")
    assert load_dataset(str(two_classes)).notes == ("1 picture outside the class folders is not used: 'stray.png'.",)
    for number in range(3):
        write_picture(two_classes / f"more{number}.jpg")
    note = "4 pictures outside the class folders are not used, such as 'more0.jpg'."
    assert load_dataset(str(two_classes), test_fraction=1.0).notes == (note,)


def test_what_lies_beside_the_parts_is_said(tmp_path, write_picture):
    for number, place in enumerate(["train/a/x", "train/b/x", "test/a/x", "test/x", "val/a/x", "x"]):
        write_picture(tmp_path / f"{place}.png", number)
    (tmp_path / "more").mkdir()
    assert load_dataset(str(tmp_path)).notes == (
        "2 pictures outside the class folders are not used, such as 'test/x.png'.",
        "1 folder beside those for training and testing is not used: 'more'.",
    )


def test_links_that_are_not_followed_are_said(two_classes):
    (two_classes / "cow").symlink_to("nowhere")
    (two_classes / "cat" / "again").symlink_to(two_classes)
    assert load_dataset(str(two_classes)).notes == (
        "2 links or pipes among the pictures are not used, such as 'cat/again'.",
    )


def test_an_empty_folder_is_refused(tmp_path):
    refused(
        f"Data {str(tmp_path)!r}: the folder {tmp_path} is empty. Put the pictures into one sub-folder a class.",
        tmp_path,
    )


def test_a_folder_without_sub_folders_is_refused(two_classes):
    cats = two_classes / "cat"
    refused(
        f"Data {str(cats)!r}: the folder {cats} holds 10 files and no sub-folder. "
        "Put the pictures into one sub-folder a class.",
        cats,
    )


def test_an_empty_class_folder_is_refused(two_classes):
    (two_classes / "cow").mkdir()
    refused(
        f"Data {str(two_classes)!r}: the class folder {two_classes / 'cow'} holds no pictures. "
        "Put pictures there or remove it.",
        two_classes,
    )


def test_a_class_with_one_picture_cannot_be_split(two_classes, write_picture):
    write_picture(two_classes / "cow" / "cow.png")
    refused(
        f"Data {str(two_classes)!r}: class 'cow' has one example only, which cannot be in both training and test. "
        "Add examples or take the class out.",
        two_classes,
    )


def told(data):
    lines = []
    data.skipped.tell(lines.append)
    return lines


def test_files_that_are_no_pictures_are_named_and_more_than_a_limit_refused(two_classes, write_picture):
    notes = two_classes / "cat" / "notes.txt"
    notes.write_text("two cats")
    broken = [two_classes / "dog" / f"empty{number}.jpg" for number in range(1, 7)]
    for path in broken:
        path.touch()
    data = load_dataset(str(two_classes), most_broken=6)
    assert len(data.y_train) + len(data.y_test) == 20
    assert told(data) == [
        f"Ignored: {notes} ({NO_PICTURE})", *(f"Skipped: {path} ({NO_PICTURE})" for path in broken)
    ]  # fmt: skip
    listing = ", ".join(f"{path} ({NO_PICTURE})" for path in broken[:5])
    refused(
        f"Data {str(two_classes)!r}: 6 files are not pictures that can be read, and 5 are passed over: {listing}, …. "
        "Remove or replace them, or raise the limit with --set data.most_broken=6.",
        two_classes,
        most_broken=5,
    )


def test_a_class_without_any_picture_that_can_be_read_is_refused(two_classes):
    for path in (two_classes / "cat").iterdir():
        path.write_bytes(b"x")
    refused(
        f"Data {str(two_classes)!r}: no picture of the class 'cat' can be read, such as {two_classes / 'cat'}/cat0.png "
        f"({NO_PICTURE}). Replace them or remove the class.",
        two_classes,
    )


def damaged(path):
    """Returns a JPEG cut short and a PNG with other bytes inside, as functions that damage a file."""

    def cut():
        path.write_bytes(path.read_bytes()[:2000])

    def overwrite():
        content = bytearray(path.read_bytes())
        start = content.index(b"IDAT")
        content[start + 6 : start + 30] = bytes(24)
        path.write_bytes(bytes(content))

    return cut if path.suffix == ".jpg" else overwrite


@pytest.mark.parametrize(
    ("suffix", "reason"), [(".jpg", r"image file is truncated \(\d+ bytes not processed\)"), (".png", ".+")]
)
def test_a_damaged_picture_is_named_and_left_out(two_classes, write_picture, suffix, reason):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = write_picture(two_classes / "dog" / f"dog30{suffix}", pixels=noise)
    assert len(load_dataset(str(two_classes), test_fraction=1.0).y_test) == 21
    damaged(path)()
    data = load_dataset(str(two_classes), test_fraction=1.0)
    assert len(data.y_test) == 20
    assert re.fullmatch(rf"Skipped: {re.escape(str(path))} \({reason}\)", told(data)[0])


def test_hidden_files_and_what_systems_leave_are_passed_over(two_classes):
    for name in (".DS_Store", "._cat1.png", "Thumbs.db", "desktop.ini"):
        (two_classes / "cat" / name).write_bytes(b"x")
    (two_classes / ".ipynb_checkpoints").mkdir()
    (two_classes / "__MACOSX").mkdir()
    (two_classes / "README.txt").write_text("beside the classes")
    assert load_dataset(str(two_classes)).classes == ("cat", "dog")


def test_pictures_lie_at_any_depth_under_their_class(two_classes, write_picture):
    write_picture(two_classes / "cat" / "2024" / "may" / "x.png", 50)
    data = load_dataset(str(two_classes))
    assert 50 in values(np.concatenate([data.x_train, data.x_test]))


@pytest.mark.parametrize("own_test", [False, True])
def test_what_does_not_fit_into_memory_is_read_when_it_is_asked_for(tmp_path, write_picture, own_test):
    rng = np.random.default_rng(0)
    for part in ("train", "test") if own_test else ("",):
        for label in "ab":
            for number in range(20):
                noise = rng.integers(0, 256, (11, 9, 3)).astype(np.uint8)
                write_picture(tmp_path / part / label / f"{number}.png", pixels=noise)
    (tmp_path / ("train" if own_test else "") / "b" / "broken.png").write_bytes(b"x")
    held, lazy = (load_dataset(str(tmp_path), memory=memory) for memory in (2**29, 1000))
    for part in ("train", "test"):
        x, y = getattr(lazy, f"x_{part}"), getattr(lazy, f"y_{part}")
        expected = getattr(held, f"x_{part}")
        assert isinstance(x, LazyExamples)
        assert isinstance(expected, np.ndarray)
        assert (x.shape, x.dtype, x.ndim, len(x)) == (expected.shape, expected.dtype, expected.ndim, len(expected))
        np.testing.assert_array_equal(x[:], expected)
        np.testing.assert_array_equal(y, getattr(held, f"y_{part}"))
        one, other = (Fingerprint.of(each, y) for each in (x, expected))
        np.testing.assert_array_equal(one.digests, other.digests)
    assert lazy.found[3].startswith("Read from the disk as they are needed, since ")


def test_a_network_made_for_a_size_has_it_unless_small_pictures_share_one(two_classes, write_picture):
    usual = (20, 24, "the usual size of N")
    assert load_dataset(str(two_classes), usual_size=usual).input_shape == (8, 8, 1)
    write_picture(two_classes / "cat" / "large.png", 1, size=(200, 100))
    data = load_dataset(str(two_classes), usual_size=usual)
    assert data.input_shape == (20, 24, 1)
    assert data.found[2] == "Pictures are read at 20×24 in grey: the usual size of N; --image-size N for another."
    assert load_dataset(str(two_classes), usual_size=usual, image_size=9).found[2] == (
        "Pictures are read at 9×9 in grey: as asked."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "y"}, "`target` must be left out, but received 'y' (str). The folders are the classes."),
        ({"task": "regression"}, "a folder of pictures has classes, so its task is classification."),
    ],
)
def test_what_a_folder_cannot_give_is_refused(two_classes, arguments, message):
    refused(f"Data {str(two_classes)!r}: {message}", two_classes, **arguments)


def test_folders_that_look_alike_are_said(tmp_path, write_picture):
    for name in ("x", "x ", "dog", "Dog"):
        for number in range(4):
            write_picture(tmp_path / "pets" / name / f"{number}.png", number * 9 + len(name))
    if len(list((tmp_path / "pets").iterdir())) < 4:
        pytest.skip("the file system takes these names for the same")
    notes = load_dataset(str(tmp_path / "pets"), test_fraction=0.5).notes
    assert (
        "Classes are named as the data spells them, so these are different: 'Dog' and 'dog'; 'x' and 'x '.",
        *notes[1:],
    ) == notes
