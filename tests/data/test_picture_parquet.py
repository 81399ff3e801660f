import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from keras_residual.data import load_dataset, picture_parquet

pytestmark = pytest.mark.any_backend


def encoded(value):
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


def write(path, labels, names=None, pictures=None, **columns):
    """Writes one picture a label, whose pixels are the row number."""
    pictures = pictures or [{"bytes": encoded(row), "path": f"{row}.png"} for row in range(len(labels))]
    table = pa.table(
        {
            "img": pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": labels,
            **columns,
        }
    )
    if names is not None:
        features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=7)
    return path


def refused(message, source, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(f'Data {str(source)!r}: {message}')}$"):
        load_dataset(str(source), **arguments)


def test_class_names_come_from_the_schema_and_keep_their_index(tmp_path):
    path = write(tmp_path / "p.parquet", [2, 0] * 10, names=["z", "unused", "a"])
    data = load_dataset(str(path))
    assert (data.name, data.kind, data.classes) == ("p", "pictures", ("z", "unused", "a"))
    assert data.x_train.shape == (16, 8, 8, 1)
    np.testing.assert_array_equal(data.y_train, np.where(data.x_train[:, 0, 0, 0] % 2 == 0, 2, 0))


def test_without_names_the_labels_name_the_classes(tmp_path):
    assert load_dataset(str(write(tmp_path / "p.parquet", [9, 10] * 5))).classes == ("9", "10")
    assert load_dataset(str(write(tmp_path / "q.parquet", ["dog", "cat"] * 5))).classes == ("cat", "dog")


def test_the_target_names_the_label_column(tmp_path):
    path = write(tmp_path / "p.parquet", [0, 1] * 5, coarse=["x", "x", "y", "y", "y"] * 2)
    assert load_dataset(str(path), target="coarse").classes == ("x", "y")
    refused("there is no target column 'corse'. Did you mean 'coarse'? Known: label, coarse.", path, target="corse")


def test_no_label_column_is_refused(tmp_path):
    path = write(tmp_path / "p.parquet", [0, 1], other=[0, 1])
    pq.write_table(pq.read_table(path).rename_columns(["img", "one", "two"]), path)
    refused(
        "which column holds the label of a picture? Give it with --target. The columns are: one, two.",
        path,
    )


def test_a_label_without_a_class_is_refused(tmp_path):
    refused(
        "column 'label': label -1 in row 2 has no class: the file names 2, so labels run from 0 to 1. "
        "Correct the label or remove the row.",
        write(tmp_path / "p.parquet", [0, -1, 1], names=["a", "b"]),
    )


@pytest.mark.parametrize("small", [2**26, 0])
def test_pictures_that_are_missing_or_damaged_are_named_by_row_and_path(tmp_path, monkeypatch, small):
    monkeypatch.setattr(picture_parquet, "_SMALL_FILE", small)
    pictures = [{"bytes": encoded(row), "path": f"{row}.png"} for row in range(20)]
    pictures[3]["bytes"], pictures[8]["bytes"] = b"no picture", None
    data = load_dataset(str(write(tmp_path / "p.parquet", [0, 1] * 10, pictures=pictures)))
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    assert sorted(x[:, 0, 0, 0].tolist()) == [*range(3), *range(4, 8), *range(9, 20)]
    np.testing.assert_array_equal(y, x[:, 0, 0, 0] % 2)
    lines = []
    data.skipped.tell(lines.append)
    reason = "not a picture in JPEG, PNG, WebP, BMP, GIF or TIFF"
    assert lines == [f"Skipped: row 4: 3.png ({reason})", f"Skipped: row 9: 8.png ({reason})"]


def test_the_rows_of_a_damaged_row_group_are_broken_and_the_others_are_read(tmp_path):
    path = write(tmp_path / "p.parquet", [0, 1] * 14)
    group = pq.ParquetFile(path).metadata.row_group(1)
    column = next(group.column(place) for place in range(3) if group.column(place).path_in_schema == "img.bytes")
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(content))
    data = load_dataset(str(path))
    x = np.concatenate([data.x_train, data.x_test])
    assert sorted(x[:, 0, 0, 0].tolist()) == [*range(7), *range(14, 28)]
    lines = []
    data.skipped.tell(lines.append)
    assert len(lines) == 7
    assert lines[0].startswith("Skipped: row 8 of p.parquet (row group 2 is damaged: ")


def test_pictures_are_not_regressed_and_have_no_columns(tmp_path):
    path = write(tmp_path / "p.parquet", [0, 1] * 5)
    refused("pictures have classes here, so the task is classification.", path, task="regression")
    refused("`drop` must be left out, but received ('a',) (tuple). The data is pictures.", path, drop=("a",))


def test_real_pictures_of_a_folder_with_train_and_test(cifar):
    data = load_dataset(str(cifar))
    assert data.name == "cifar10-jpeg"
    assert (data.x_train.shape, data.x_test.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert data.classes[:2] == ("airplane", "automobile")
    np.testing.assert_array_equal(np.bincount(data.y_train), [5_000] * 10)
    rows = pq.ParquetFile(cifar / "test.parquet").read().slice(0, 20).to_pylist()
    for row, x, y in zip(rows, data.x_test, data.y_test, strict=False):
        np.testing.assert_array_equal(x, np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))))
        assert y == row["label"]
