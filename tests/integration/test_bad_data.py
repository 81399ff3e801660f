"""Data that cannot be learned from, as the user meets it: exit status 2, one line, their files untouched, no run."""

import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.command import fingerprint
from keras_residual_cli.app import run

pytestmark = pytest.mark.any_backend


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)).save(path)


def one_class_only(home):
    for index in range(4):
        picture(home / "pets" / "cat" / f"{index}.png")
    return ["pets"], ["'cat'", "two at least"]


def empty_folder(home):
    (home / "pets").mkdir()
    return ["pets"], ["'pets'"]


def table(home, *rows):
    (home / "t.csv").write_text("\n".join(["height,kind,weight", *rows]) + "\n")


ROWS = [f"{1 + index / 10},{index % 3},{2 + index}" for index in range(30)]


def missing_value(home):
    table(home, *ROWS[:7], "1.5,1,", *ROWS[7:])
    return ["t.csv", "--target", "kind"], ["'weight'"]


def column_of_text(home):
    table(home, *ROWS, "tall,1,3")
    return ["t.csv", "--target", "kind"], ["'height'"]


def no_such_target(home):
    table(home, *ROWS)
    return ["t.csv", "--target", "knd"], ["'knd'", "Did you mean 'kind'?"]


def no_target(home):
    table(home, *ROWS)
    return ["t.csv"], ["target"]


def one_class_in_a_table(home):
    table(home, *(f"{index},a,{index}" for index in range(30)))
    return ["t.csv", "--target", "kind"], ["'a'", "two at least"]


def nothing_there(home):
    return ["digts"], ["'digts'", "Did you mean 'digits'?"]


def pets(home, name="dog"):
    for label in ("cat", name):
        for index in range(4):
            picture(home / "pets" / label / f"{index}.png")
    return home / "pets" / name / "0.png"


NONE_BROKEN = ("pets", "--set", "data.most_broken=0")


def postscript_called_a_picture(home):
    pets(home).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    return [*NONE_BROKEN], ["pets/dog/0.png", "not a picture in JPEG, PNG, WebP, BMP, GIF or TIFF"]


def more_pixels_than_memory(home):
    parts = b"IHDR" + struct.pack(">IIBBBBB", 13_300, 13_300, 8, 2, 0, 0, 0), b"IDAT"
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    pets(home).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return [*NONE_BROKEN], ["pets/dog/0.png", "more pixels than the 50 million that are allowed"]


def class_that_is_not_utf8(home):
    pets(home, os.fsdecode(b"d\xf6g"))
    return ["pets"], [r"'d\udcf6g'", "Rename"]


def class_of_escape_codes(home):
    pets(home, "\x1b[31mdog")
    return ["pets"], [r"'\x1b[31mdog'", "Rename"]


def pipe_that_never_ends(home):
    os.mkfifo(home / "t.csv")
    return ["t.csv", "--target", "kind"], ["t.csv is no file but a pipe or a device"]


def damaged_parquet(home):
    pq.write_table(pa.table({"height": [1.5, 2.5] * 20, "kind": ["a", "b"] * 20}), home / "t.parquet")
    content = bytearray((home / "t.parquet").read_bytes())
    (length,) = struct.unpack("<I", content[-8:-4])
    content[-8 - length : -8] = bytes(length)
    (home / "t.parquet").write_bytes(content)
    return ["t.parquet", "--target", "kind"], ["t.parquet cannot be read as parquet"]


def nested_metadata(home):
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    pictures = pa.array([{"bytes": file.getvalue()}] * 8, pa.struct([("bytes", pa.binary())]))
    table = pa.table({"image": pictures, "label": [0, 1] * 4})
    pq.write_table(table.replace_schema_metadata({"huggingface": b"[" * 100_000}), home / "t.parquet")
    return ["t.parquet"], ["metadata 'huggingface'", "nested too deep"]


def table_that_unpacks_to_gigabytes(home):
    kinds = np.repeat(np.array([0, 1], np.int8), 20_000_000)
    pq.write_table(pa.table({"height": np.zeros(40_000_000), "kind": kinds}), home / "t.parquet")
    return ["t.parquet", "--target", "kind"], ["MiB of memory", "are allowed for a file of"]


def npz(home, description, **options):
    header = description.encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    with zipfile.ZipFile(home / "d.npz", "w", **options) as archive:
        for name in ("x", "y"):
            archive.writestr(f"{name}.npy", content)
    return ["d.npz"], ["d.npz cannot be read as npz"]


def array_of_more_than_there_is(home):
    return npz(home, "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000000000, 1)}")


def array_in_another_compression(home):
    return npz(home, "{'descr': '<f8', 'fortran_order': False, 'shape': (8, 1)}", compression=zipfile.ZIP_LZMA)


def more_classes_than_memory(home):
    (home / "t.csv").write_text("height,kind\n" + "".join(f"1.5,c{row % 20_000}\n" for row in range(100_000)))
    return ["t.csv", "--target", "kind"], ["20000 classes", "256.0 MiB are allowed"]


CASES = [
    postscript_called_a_picture,
    more_pixels_than_memory,
    class_that_is_not_utf8,
    class_of_escape_codes,
    pipe_that_never_ends,
    damaged_parquet,
    nested_metadata,
    table_that_unpacks_to_gigabytes,
    array_of_more_than_there_is,
    array_in_another_compression,
    more_classes_than_memory,
    one_class_only,
    empty_folder,
    missing_value,
    column_of_text,
    no_such_target,
    no_target,
    one_class_in_a_table,
    nothing_there,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bad_data(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, words = case(tmp_path)
    before = fingerprint(tmp_path)
    status = run(["train", *arguments])
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert status == 2, line
    assert line.startswith("keras-residual: Data ")
    for word in words:
        assert word in line
    assert shown.out == ""
    assert fingerprint(tmp_path) == before
    assert not (tmp_path / "runs").exists()
