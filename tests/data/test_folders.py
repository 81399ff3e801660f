import re
import shutil

import numpy as np
import pytest

from keras_residual.data import load_dataset, pictures

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


@pytest.mark.parametrize("name", ["test", "val"])
def test_an_own_split_is_kept_and_its_classes_are_those_of_train(tmp_path, write_picture, name):
    for label, value in (("a", 1), ("b", 2), ("c", 3)):
        write_picture(tmp_path / "train" / label / "x.png", value)
    write_picture(tmp_path / name / "c" / "x.png", 9)
    (tmp_path / name / "b").mkdir()
    data = load_dataset(str(tmp_path))
    assert (values(data.x_train), values(data.x_test), data.y_test.tolist()) == ([1, 2, 3], [9], [2])


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
    assert load_dataset(str(tmp_path)).notes == (
        "2 pictures outside the class folders are not used, such as 'test/x.png'.",
        "1 folder beside those for training and testing is not used: 'val'.",
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


def test_files_that_are_no_pictures_are_named(two_classes, write_picture):
    notes = two_classes / "cat" / "notes.txt"
    notes.write_text("two cats")
    message = f"Data {str(two_classes)!r}: 1 file is not a picture that can be read: {notes} ({NO_PICTURE}). "
    refused(message + "Remove or replace it.", two_classes)
    for number in range(1, 7):
        (two_classes / "dog" / f"empty{number}.jpg").touch()
    listing = ", ".join(f"{two_classes / 'dog' / f'empty{number}.jpg'} ({NO_PICTURE})" for number in range(1, 5))
    refused(
        f"Data {str(two_classes)!r}: 7 files are not pictures that can be read: {notes} ({NO_PICTURE}), {listing}, …. "
        "Remove or replace them.",
        two_classes,
    )


def test_a_truncated_jpeg_is_named(two_classes, write_picture):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = write_picture(two_classes / "dog" / "dog3.jpg", pixels=noise)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"1 file is not a picture that can be read: ") as caught:
        load_dataset(str(two_classes))
    assert re.fullmatch(
        re.escape(f"Data {str(two_classes)!r}: 1 file is not a picture that can be read: {path} (")
        + r"image file is truncated \(\d+ bytes not processed\)\)\. Remove or replace it\.",
        str(caught.value),
    )


def test_a_corrupted_png_is_named(two_classes, write_picture):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    path = write_picture(two_classes / "cat" / "cat3.png", pixels=noise)
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT")
    content[start + 6 : start + 30] = bytes(24)
    path.write_bytes(bytes(content))
    with pytest.raises(
        ValueError,
        match=f"^{re.escape(f'Data {str(two_classes)!r}: 1 file is not a picture that can be read: {path} (')}"
        r".+\)\. Remove or replace it\.$",
    ):
        load_dataset(str(two_classes))


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


def test_more_pictures_than_memory_may_hold_are_refused_before_decoding(two_classes, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 20 * 30 * 30)
    assert load_dataset(str(two_classes), image_size=30).input_shape == (30, 30, 1)
    monkeypatch.setattr(pictures, "_each", lambda read, items, owner, names=None: [pictures.Header(8, 8, True)] * 20)
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 2**30)
    packed = sum(path.stat().st_size for path in two_classes.rglob("*.png"))
    refused(
        f"Data {str(two_classes)!r}: 20 pictures of 8000×8000×1 would take 1.2 GiB, more than the 512.0 MiB of memory "
        f"that are allowed for {packed / 1024:.1f} KiB of pictures. Take fewer of them, or lower `image_size`; 5181 is "
        "the largest that fits.",
        two_classes,
        image_size=8000,
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
