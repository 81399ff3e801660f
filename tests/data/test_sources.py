import re
import shutil

import numpy as np
import pytest

from keras_residual.data import load_dataset

pytestmark = pytest.mark.any_backend


def refused(message, source, error=ValueError, **arguments):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        load_dataset(str(source), **arguments)


def test_unknown_name_says_that_there_is_no_such_file_and_suggests():
    refused(
        "Data 'dgits': there is no such file or folder, and no set has this name. Did you mean 'digits'? "
        "Known: digits, breast_cancer, wine, diabetes, mnist, fashion_mnist, cifar10, cifar100, california_housing.",
        "dgits",
    )


def test_another_suffix_is_refused(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(b"x")
    refused(
        f"Data {str(path)!r}: a data file ends in .csv, .parquet, .npz or .tar. "
        "Pictures come as a folder with one sub-folder a class.",
        path,
    )


def test_a_folder_called_like_a_set_is_reached_by_its_path(two_classes, monkeypatch):
    shutil.copytree(two_classes, two_classes.parent / "digits")
    monkeypatch.chdir(two_classes.parent)
    assert load_dataset("./digits").classes == ("cat", "dog")
    assert len(load_dataset("digits").classes) == 10


@pytest.mark.parametrize(
    ("arguments", "message", "error"),
    [
        (
            {"test_fraction": 1.1},
            "`test_fraction` must be above 0, and 1 at most, but received 1.1 (float).",
            ValueError,
        ),
        ({"seed": -1}, "`seed` must be a whole number in [0, 4294967295], but received -1 (int).", ValueError),
        (
            {"image_size": 0},
            "`image_size` must be a whole number of pixels, 1 or more, but received 0 (int).",
            ValueError,
        ),
        (
            {"task": "guess"},
            "`task` must be 'auto', 'classification' or 'regression', but received 'guess' (str).",
            ValueError,
        ),
        (
            {"image_shape": (8, 8, 2)},
            "`image_shape` must be (height, width, 1 or 3), but received (8, 8, 2) (tuple).",
            ValueError,
        ),
        ({"drop": "age"}, "`drop` must be a tuple of names, but received 'age' (str).", TypeError),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message, error):
    refused(f"Data 'digits': {message}", "digits", error, **arguments)


def test_digits_are_pictures_over_the_whole_range():
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert (data.name, data.kind, data.task, data.features) == ("digits", "pictures", "classification", ())
    assert data.x_train.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert data.x_train.dtype == np.uint8
    assert data.classes == tuple("0123456789")
    everything = np.sort(np.concatenate([data.x_train, data.x_test]).reshape(1797, -1), axis=0)
    np.testing.assert_array_equal(everything, np.sort(np.rint(load_digits().data * 15.9375).astype(np.uint8), axis=0))
    assert everything.max() == 255


@pytest.mark.parametrize("seed", range(4))
def test_the_split_keeps_the_share_of_each_class(seed):
    data = load_dataset("breast_cancer", test_fraction=0.3, seed=seed)
    np.testing.assert_allclose(np.bincount(data.y_test), [0.3 * 212, 0.3 * 357], atol=1)


def test_the_seed_decides_the_split():
    first, same, other = (load_dataset("wine", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.x_test, same.x_test)
    assert not np.array_equal(first.x_test, other.x_test)


def test_training_and_test_share_no_row():
    data = load_dataset("diabetes")
    rows = {row.tobytes() for row in data.x_train}
    assert len(rows) == 353
    assert not rows & {row.tobytes() for row in data.x_test}


@pytest.mark.parametrize(
    ("name", "task", "shape", "classes"),
    [
        ("breast_cancer", "classification", (455, 30), ("malignant", "benign")),
        ("wine", "classification", (142, 13), ("class_0", "class_1", "class_2")),
        ("diabetes", "regression", (353, 10), ()),
    ],
)
def test_tables_of_scikit_learn(name, task, shape, classes):
    data = load_dataset(name)
    assert (data.kind, data.task, data.x_train.shape, data.classes) == ("table", task, shape, classes)
    assert len(data.features) == shape[1]


def test_fixed_classes_and_features_decide_order_and_columns():
    free = load_dataset("wine")
    fixed = load_dataset("wine", classes=("class_2", "class_0", "class_1"), features=("hue", "alcohol"))
    np.testing.assert_array_equal(fixed.y_test, np.array([1, 2, 0])[free.y_test])
    columns = [free.features.index("hue"), free.features.index("alcohol")]
    np.testing.assert_array_equal(fixed.x_test, free.x_test[:, columns])
    assert fixed.features == ("hue", "alcohol")


def test_dropped_columns_are_left_out():
    assert load_dataset("diabetes", drop=("sex", "bp")).features == ("age", "bmi", "s1", "s2", "s3", "s4", "s5", "s6")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "digits",
            {"classes": ("0", "1")},
            "Data 'digits': class '2' (177 examples) is not one of the classes. Known: 0, 1.",
        ),
        (
            "diabetes",
            {"features": ("agee",)},
            "Data 'diabetes': the model needs the column 'agee'. Did you mean 'age'? "
            "Known: age, sex, bmi, bp, s1, s2, s3, s4, s5, s6.",
        ),
        (
            "wine",
            {"target": "hue"},
            "Data 'wine': `target` must be left out, but received 'hue' (str). This set has a target of its own.",
        ),
        (
            "wine",
            {"image_size": 8},
            "Data 'wine': `image_size` must be left out, but received 8 (int). The data is a table.",
        ),
        (
            "digits",
            {"task": "regression"},
            "Data 'digits': the set has classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), so its task is classification.",
        ),
        (
            "diabetes",
            {"task": "classification"},
            "Data 'diabetes': the target of this set is a number, so its task is regression.",
        ),
        (
            "wine",
            {"test_fraction": 0.01},
            "Data 'wine': 178 examples and a test fraction of 0.01 make 176 for training and 2 for testing, "
            "and each side needs 3 at least, one a class. Add examples or change the test fraction.",
        ),
    ],
)
def test_what_a_set_cannot_give_is_refused(name, arguments, message):
    refused(message, name, **arguments)


def test_pictures_of_a_set_take_the_asked_shape():
    assert load_dataset("digits", image_size=16).input_shape == (16, 16, 1)
    coloured = load_dataset("digits", image_shape=(8, 8, 3)).x_test
    np.testing.assert_array_equal(coloured, np.repeat(load_dataset("digits").x_test, 3, axis=-1))


def test_a_name_longer_than_the_system_takes_is_one_line():
    with pytest.raises(ValueError, match=r"^Data 'xxx.* cannot be read \(File name too long\)\. Correct the path, or"):
        load_dataset("x" * 5000)


# --- Names that look the same ----------------------------------------------------------------------------------------

ONE_SIGN, TWO_SIGNS = "Käse", "Ka\u0308se"  # as most programs write it, and as macOS does in names of files


@pytest.mark.parametrize("within", [False, True])
def test_folders_in_two_forms_of_a_name_are_one_class(tmp_path, write_picture, within):
    first, second = (tmp_path / "pets" / part for part in ("train", "test"))
    for number in range(4):
        write_picture(first / ONE_SIGN / f"{number}.png", number)
        write_picture((first if within else second) / TWO_SIGNS / f"b{number}.png", 50 + number)
        write_picture(first / "cat" / f"{number}.png", 100 + number)
        write_picture(second / "cat" / f"{number}.png", 150 + number)
    dataset = load_dataset(str(tmp_path / "pets"))
    assert dataset.classes == ("cat", ONE_SIGN)
    assert np.bincount(dataset.y_train).tolist() == [4, 8 if within else 4]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_and_labels_in_two_forms_of_a_name_are_the_same(tmp_path, suffix):
    from pyarrow import csv, parquet, table

    x = np.arange(8.0)
    columns = {TWO_SIGNS: x, "b": x**2, "kind" + TWO_SIGNS: [ONE_SIGN, TWO_SIGNS, "x", "x"] * 2}
    path = tmp_path / f"table{suffix}"
    (csv.write_csv if suffix == ".csv" else parquet.write_table)(table(columns), path)
    for spelled in (ONE_SIGN, TWO_SIGNS):
        dataset = load_dataset(str(path), target="kind" + spelled, features=(spelled, "b"), classes=(spelled, "x"))
        assert (dataset.features, dataset.classes) == ((ONE_SIGN, "b"), (ONE_SIGN, "x"))
        assert np.bincount(np.concatenate([dataset.y_train, dataset.y_test])).tolist() == [4, 4]
    assert load_dataset(str(path), target="kind" + ONE_SIGN, drop=(ONE_SIGN,)).features == ("b",)


def test_two_columns_of_one_name_in_two_forms_are_refused(write_csv):
    path = write_csv(f"{ONE_SIGN},{TWO_SIGNS},y\n1,2,a\n3,4,b\n")
    refused(
        f"Data {path!r}: the column name {ONE_SIGN!r} stands more than once in {path}. Rename one.", path, target="y"
    )
