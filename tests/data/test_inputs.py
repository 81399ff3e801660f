import re

import numpy as np
import pytest

from keras_residual.data import load_dataset, load_inputs

pytestmark = pytest.mark.any_backend


def refused(message, paths, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_inputs([str(path) for path in paths], **arguments)


def test_files_and_folders_of_pictures_in_natural_order(tmp_path, write_picture):
    for number in (10, 9, 1):
        write_picture(tmp_path / "new" / f"p{number}.png", number)
    single = write_picture(tmp_path / "single.png", 77, size=(20, 20))
    folder = tmp_path / "new"
    x, names = load_inputs([str(single), str(folder)], kind="pictures", image_shape=(8, 8, 3))
    assert (x.shape, x.dtype) == ((4, 8, 8, 3), np.uint8)
    assert x[:, 0, 0, 2].tolist() == [77, 1, 9, 10]
    assert names == (str(single), *(str(folder / f"p{number}.png") for number in (1, 9, 10)))


def test_a_picture_is_read_as_it_was_for_training(two_classes):
    data = load_dataset(str(two_classes), image_size=5)
    x, _ = load_inputs([str(two_classes)], kind="pictures", image_shape=(5, 5, 1))
    both = np.concatenate([data.x_train, data.x_test])
    assert sorted(p.tobytes() for p in x) == sorted(p.tobytes() for p in both)


def test_rows_of_a_table_take_the_columns_of_the_model(write_csv):
    first = write_csv("b,note,a\n1,x,2\n3,y,4\n", "one.csv")
    second = write_csv("a,b\n6,5\n", "two.csv")
    x, names = load_inputs([first, second], kind="table", features=("a", "b"))
    assert (x.tolist(), x.dtype) == ([[2, 1], [4, 3], [6, 5]], np.float64)
    assert names == (f"{first}:1", f"{first}:2", f"{second}:1")


def test_arrays_of_a_npz(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.full((2, 4, 4), 9, np.uint8))
    np.savez(tmp_path / "t.npz", x=np.array([[1, 2, 3]]))
    pictures, names = load_inputs([str(tmp_path / "p.npz")], kind="pictures", image_shape=(4, 4, 3))
    assert (pictures.shape, names) == ((2, 4, 4, 3), (f"{tmp_path}/p.npz:1", f"{tmp_path}/p.npz:2"))
    table, _ = load_inputs([str(tmp_path / "t.npz")], kind="table", features=("x2", "x0"))
    assert table.tolist() == [[3, 1]]


def test_real_pictures_of_a_parquet_file(cifar):
    path = str(cifar / "test.parquet")
    x, names = load_inputs([path], kind="pictures", image_shape=(32, 32, 3))
    assert (x.shape, names[-1]) == ((10_000, 32, 32, 3), f"{path}:10000")


def test_what_is_not_there_or_no_picture_is_named(tmp_path):
    missing, empty, text = tmp_path / "no.png", tmp_path / "empty", tmp_path / "a.txt"
    empty.mkdir()
    text.write_text("x")
    shape = {"kind": "pictures", "image_shape": (8, 8, 1)}
    refused(f"Inputs {str(missing)!r}: there is no such file or folder.", [missing], **shape)
    refused(f"Inputs {str(empty)!r}: the folder holds no pictures.", [empty], **shape)
    refused(
        f"Inputs {str(text)!r}: 1 file is not a picture that can be read: {text} (not a picture in JPEG, PNG, "
        "WebP, BMP, GIF or TIFF). Remove or replace it.",
        [text],
        **shape,
    )


def test_a_table_without_a_column_or_with_a_gap_is_refused(write_csv):
    path = write_csv("width,b\n1,2\n,3\n")
    refused(
        f"Inputs {path!r}: the model needs the column 'widht'. Did you mean 'width'? Known: width, b.",
        [path],
        kind="table",
        features=("widht",),
    )
    refused(
        f"Inputs {path!r}: column 'width' has no value in row 2. Fill the gap or remove the row.",
        [path],
        kind="table",
        features=("width",),
    )


def test_the_other_kind_is_refused(tmp_path, write_csv, write_picture):
    picture = write_picture(tmp_path / "p.png")
    refused(
        f"Inputs {str(picture)!r}: the model needs a table, which is a .csv, .parquet or .npz file.",
        [picture],
        kind="table",
        features=("a",),
    )
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), z=np.zeros(1))
    path = str(tmp_path / "t.npz")
    refused(
        f"Inputs {path!r}: the model needs pictures: numbers of rank 3 or 4 called `x`. "
        "The file holds x float64 (3, 2).",
        [path],
        kind="pictures",
        image_shape=(4, 4, 1),
    )


@pytest.mark.parametrize(
    ("paths", "arguments", "message"),
    [
        ([], {"kind": "table", "features": ("a",)}, "`paths` must be one path at least, but received [] (list)."),
        (["x"], {"kind": "pictures"}, "`image_shape` must be given for pictures, but received None (NoneType)."),
        (["x"], {"kind": "table"}, "`features` must be given for tables, but received () (tuple)."),
    ],
)
def test_what_the_model_needs_must_be_said(paths, arguments, message):
    refused(f"Inputs: {message}", paths, **arguments)
