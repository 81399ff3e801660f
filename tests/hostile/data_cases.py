"""Hostile data by code and seeds: tables, pictures of each format, folders, arrays and labels."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

from hostile.data_readers import labelled
from hostile.harness import Case, Expected, mutations

PICTURES, LABELLED, ROWS = (f"hostile.data_readers:{name}" for name in ("picture", "labelled", "rows"))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n16 16 scale\n(/tmp/owned) (w) file closefile\nshowpage\n"


def all_cases() -> dict[str, list[Case]]:
    """Returns the cases for each reader."""
    found: dict[str, list[Case]] = {PICTURES: [], LABELLED: [], ROWS: []}
    for reader, case in itertools.chain(_pictures(), _tables(), _parquet(), _npz(), _folders()):
        found[reader].append(case)
    return found


def _read(content: bytes, file: str) -> Any:
    """Returns what the reader makes of an intact file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(content)
        return json.loads(json.dumps(labelled(str(path))))


# Pictures ------------------------------------------------------------------------------------------------------------


def encoded(kind: str, size: tuple[int, int] = (24, 20), mode: str = "RGB", **options: Any) -> bytes:
    """Returns a picture of noise, or of one colour where it is large."""
    image = Image.new(mode, size, 0)
    if size[0] < 1000:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _pictures() -> Iterator[tuple[str, Case]]:
    valid = {
        "p.jpg": encoded("JPEG"),
        "progressive.jpg": encoded("JPEG", progressive=True),
        "p.png": encoded("PNG"),
        "palette.png": encoded("PNG", mode="P"),
        "p.webp": encoded("WEBP"),
        "p.bmp": encoded("BMP"),
        "p.gif": encoded("GIF", mode="P"),
        "p.tiff": encoded("TIFF", compression="tiff_deflate"),
        "plain.tiff": encoded("TIFF"),
    }
    for seed, (file, content) in enumerate(valid.items()):
        for what, damaged in mutations(content, seed=seed, number=14):
            yield PICTURES, Case(what, damaged, "any", file)
        yield PICTURES, Case("nothing", b"", "refused", file)
        for share in (0.3, 0.7):
            # The end of a picture may be missing where the rest says all, so that nobody can see it.
            yield PICTURES, Case("cut off", content[: int(share * len(content))], "refused", file)
    # What another program would be started for, or hardly anybody tests.
    others = {"EPS": EPS, "PDF": b"%PDF-1.4\n" + EPS, "SVG": b"<svg/>", "text": b"cat", "zip": b"PK\x03\x04"}
    for kind, options in (
        ("ICO", {}),
        ("TGA", {}),
        ("PPM", {}),
        ("PCX", {}),
        ("JPEG2000", {}),
        ("DDS", {}),
        ("SGI", {}),
    ):
        others[kind] = encoded(kind, **options)
    for (kind, content), suffix in itertools.product(others.items(), ("png", "jpg")):
        yield PICTURES, Case(f"{kind} called {suffix}", content, "refused", f"0.{suffix}")
    # Few bytes, many pixels.
    yield PICTURES, Case("13,300² pixels", _png(13_300, 13_300), "refused", "p.png")
    yield PICTURES, Case("2**31 pixels wide", _png(2**31 - 1, 1), "refused", "p.png")
    yield PICTURES, Case("no pixel", _png(0, 5), "refused", "p.png")
    yield PICTURES, Case("GIF of 65535²", b"GIF89a\xff\xff\xff\xff\x00\x00\x00", "refused", "p.gif")
    yield PICTURES, Case("BMP of 2**31", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1,
                                                          1, 24, 0, 0, 0, 0, 0, 0), "refused", "p.bmp")  # fmt: skip
    for kind, mode in (("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("TIFF", "CMYK"), ("GIF", "P")):
        options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
        content = _one_colour(kind, 7000, mode, **options)
        yield PICTURES, Case(f"{mode} of 7000²", content, "any", f"p.{kind.lower()}")
        yield (
            PICTURES,
            Case(f"eight {mode} of 3600²", _several(_one_colour(kind, 3600, mode, **options), 8), "any", "f"),
        )
    for progressive in (False, True):
        content = _one_colour("JPEG", 9000, "RGB", progressive=progressive)
        yield PICTURES, Case(f"JPEG of 9000², progressive {progressive}", content, "any", "p.jpg")
    yield PICTURES, Case("WebP of 5000²", _one_colour("WEBP", 5000, "RGBA"), "any", "p.webp")
    yield PICTURES, Case("WebP of 8000²", _one_colour("WEBP", 8000, "RGB"), "refused", "p.webp")
    yield PICTURES, Case("six PNG of 13,300²", _several(_png(13_300, 13_300), 6), "refused", "f")
    # What stands beside the pixels.
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 60_000_000, zip=True)
    yield PICTURES, Case("60 MB of text", encoded("PNG", pnginfo=text), "any", "p.png")
    for number in range(6):
        noise = random.Random(number).randbytes(60)
        yield PICTURES, Case("noise for EXIF", encoded("JPEG", exif=b"Exif\0\0" + noise), "any", "p.jpg")
        yield (
            PICTURES,
            Case("damaged EXIF", encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + noise), "any", "p.jpg"),
        )
        tags = struct.pack("<HHII", 0x0112, 3, 2**30 * (number % 4), 8) * number
        exif = b"Exif\0\0II*\0\x08\0\0\0" + bytes([number, 0]) + tags
        yield PICTURES, Case("EXIF of many values", encoded("JPEG", exif=exif), "any", "p.jpg")
    pages = [Image.new("L", (16, 16), page) for page in range(300)]
    for kind in ("TIFF", "GIF", "WEBP", "PNG"):
        file = io.BytesIO()
        pages[0].save(file, kind, save_all=True, append_images=pages[1:])
        yield PICTURES, Case("300 pages", file.getvalue(), "any", f"p.{kind.lower()}")


def _png(width: int, height: int) -> bytes:
    """Returns a PNG of grey pixels that says what size it has, and has next to nothing."""
    parts = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(1000)))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return (
        b"\x89PNG\r\n\x1a\n"
        + b"".join(chunks)
        + struct.pack(">I", 0)
        + b"IEND"
        + struct.pack(">I", zlib.crc32(b"IEND"))
    )


_LARGE: dict[tuple[Any, ...], bytes] = {}


def _one_colour(kind: str, side: int, mode: str, **options: Any) -> Callable[[Path], Any]:
    """Returns a function that writes a large picture, which is made when it is asked for."""

    def write(path: Path) -> None:
        key = (kind, side, mode, *options.items())
        if key not in _LARGE:
            _LARGE[key] = encoded(kind, (side, side), mode, **options)
        path.write_bytes(_LARGE[key])

    return write


def _several(content: bytes | Callable[[Path], Any], count: int) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        path.mkdir()
        for number in range(count):
            file = path / f"{number}.png"
            content(file) if callable(content) else file.write_bytes(content)

    return write


# Tables --------------------------------------------------------------------------------------------------------------

_RNG = random.Random(0)
_LINES = [f"{_RNG.random():.4f},{_RNG.random():.3f},{'uv'[row % 2]}" for row in range(60)]
GOOD_CSV = ("a,b,y\n" + "\n".join(_LINES) + "\n").encode()


def _tables() -> Iterator[tuple[str, Case]]:
    for reader in (LABELLED, ROWS):
        for what, damaged in mutations(GOOD_CSV, seed=20, number=18):
            yield reader, Case(what, damaged, "any", "t.csv")
    intact = _read(GOOD_CSV, "t.csv")
    same: list[tuple[str, bytes]] = [
        ("mark of byte order", b"\xef\xbb\xbf" + GOOD_CSV),
        ("line ends of Windows", GOOD_CSV.replace(b"\n", b"\r\n")),
        ("all quoted", b"\n".join(b",".join(b'"%s"' % cell for cell in line.split(b",")) for line in GOOD_CSV.split())),
        ("semicolons", GOOD_CSV.replace(b",", b";")),
        ("tabs", GOOD_CSV.replace(b",", b"\t")),
        ("no line end at the end", GOOD_CSV.rstrip()),
    ]
    for what, content in same:
        yield LABELLED, Case(what, content, "same", "t.csv", intact)
    head, body = GOOD_CSV.split(b"\n", 1)
    refused: list[tuple[str, bytes]] = [
        ("nothing", b""),
        ("a header alone", head + b"\n"),
        ("UTF-16", GOOD_CSV.decode().encode("utf-16")),
        ("Latin-1", GOOD_CSV.replace(b"u\n", b"\xfc\n")),
        ("zeros", bytes(5000)),
        ("noise", random.Random(1).randbytes(5000)),
        ("a quote that does not end", GOOD_CSV.replace(b"u\n", b'"u\n', 1)),
        ("a row of other length", GOOD_CSV + b"1,2,3,u\n"),
        ("two columns of one name", GOOD_CSV.replace(b"a,b", b"a,a", 1)),
        ("no names", body),
        ("escape codes as a class", GOOD_CSV.replace(b"u\n", b'"\x1b[31mred"\n')),
        ("a line end in a class", GOOD_CSV.replace(b"u\n", b'"u\nu"\n')),
        ("writing direction in a class", GOOD_CSV.replace(b"u\n", "\u202eu\n".encode())),
        ("a class once", GOOD_CSV + b"1,2,w\n"),
        ("one class", GOOD_CSV.replace(b"v\n", b"u\n")),
        ("no class", GOOD_CSV.replace(b"u\n", b"\n")),
        ("infinity", GOOD_CSV.replace(b"0.8444", b"inf")),
        ("beyond 32-bit floats", GOOD_CSV.replace(b"0.8444", b"1e300")),
        ("beyond 64-bit floats", GOOD_CSV.replace(b"0.8444", b"1e999")),
        ("a decimal comma", GOOD_CSV.replace(b",", b";").replace(b".", b",")),
        ("a word", GOOD_CSV.replace(b"0.8444", b"tall")),
        ("a formula", GOOD_CSV.replace(b"0.8444", b"=1+1")),
        ("a gap", GOOD_CSV.replace(b"0.8444", b"")),
        ("2,000,000 columns", b"a," * 2_000_000 + b"y\n" + b"1," * 2_000_000 + b"u\n"),
        ("9,000,000 commas", b"," * 9_000_000),
        ("9 MB without a line end", b"a" * 9_000_000),
        ("9 MB in one cell", head + b'\n1,2,"' + b"u" * 9_000_000 + b'"\n'),
        ("numbers that 64-bit floats do not tell apart", b"a,b,y\n" + b"".join(
            b"%d,1,%s\n" % (9007199254740992 + row, b"uv"[row % 2 : row % 2 + 1]) for row in range(20))),
        ("row numbers of pandas", b"," + b"\n1,".join(GOOD_CSV.split())),
    ]  # fmt: skip
    for what, content in refused:
        yield LABELLED, Case(what, content, "refused", "t.csv")
    notes = b"".join(b"1,2,%s,%s\n" % (b"uv"[row % 2 : row % 2 + 1], b"short") for row in range(60_000))
    any_: list[tuple[str, bytes]] = [
        ("one long note", b"a,b,y,note\n" + notes + b"1,2,u," + b"x" * 10_000 + b"\n"),
        ("long classes", b"a,y\n" + b"".join(b"1,%s\n" % (b"u" * 10_000 + b"%d" % (row % 2)) for row in range(400))),
        ("one long class", b"a,y\n" + b"1,u\n2,v\n" * 100_000 + (b"1," + b"w" * 10_000 + b"\n") * 2),
        ("classes of 5,000 digits", b"a,y\n" + (b"1,x" + b"7" * 5000 + b"1\n1,x" + b"7" * 5000 + b"2\n") * 20),
        ("100,000 classes", b"a,y\n" + b"".join(b"1,c%d\n" % (row % 100_000) for row in range(300_000))),
        ("300,000 numbers", b"a,y\n" + b"".join(b"1,%d\n" % row for row in range(300_000))),
        ("2,400,000 rows", b"a,y\n" + b"1,u\n" * 1_200_000 + b"1,v\n" * 1_200_000),
        ("50,000 columns", b",".join(b"a%d" % n for n in range(50_000)) + b",y\n" + (b"1," * 50_000 + b"u\n"
                           + b"2," * 50_000 + b"v\n") * 4),
    ]  # fmt: skip
    for what, content in any_:
        yield LABELLED, Case(what, content, "any", "t.csv")


# Parquet -------------------------------------------------------------------------------------------------------------


def parquet(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    """Returns a table as the content of a file."""
    file = io.BytesIO()
    pq.write_table(pa.table(table) if isinstance(table, dict) else table, file, **options)
    return file.getvalue()


_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _picture_table(pictures: list[Any], labels: Any, metadata: bytes | None = None) -> pa.Table:
    table = pa.table({"img": pa.array(pictures, _PICTURE), "label": labels})
    return table if metadata is None else table.replace_schema_metadata({b"huggingface": metadata})


def _parquet() -> Iterator[tuple[str, Case]]:
    numbers = {"a": np.arange(40.0), "b": np.arange(40) % 7, "y": ["u", "v"] * 20}
    small = [{"bytes": encoded("PNG", (6, 6)), "path": f"{row}.png"} for row in range(12)]
    names = json.dumps({"info": {"features": {"label": {"names": ["u", "v"]}}}}).encode()
    good = {"t.parquet": parquet(numbers), "picture.parquet": parquet(_picture_table(small, [0, 1] * 6, names))}
    for seed, (file, content) in enumerate(good.items()):
        for what, damaged in mutations(content, seed=40 + seed, number=27):
            yield LABELLED, Case(what, damaged, "any", file)
    for what, damaged in mutations(good["t.parquet"], seed=45, number=9):
        yield ROWS, Case(what, damaged, "any", "t.parquet")
    labels = ["u", "v"] * 20

    def column(values: Any) -> dict[str, Any]:
        return {"a": values, "y": labels}

    refused: list[tuple[str, Any]] = [
        ("lists", column([[1, 2]] * 40)),
        ("structs", column([{"deep": 1}] * 40)),
        ("maps", column(pa.array([[("k", 1)]] * 40, pa.map_(pa.string(), pa.int64())))),
        ("bytes", column([b"\xff"] * 40)),
        ("nothing but gaps", column(pa.nulls(40))),
        ("dates", column(pa.array([0] * 40, pa.date32()))),
        ("dates that Python does not have", column(pa.array([10**8] * 40, pa.date32()))),
        ("times that Python does not have", column(pa.array([2**62] * 40, pa.timestamp("ms", "Mars/Olympus")))),
        ("durations", column(pa.array([1] * 40, pa.duration("ns")))),
        ("no number", column([float("nan")] * 40)),
        ("a gap", column([None, *range(39)])),
        ("a gap in a dictionary", {"a": range(40), "y": pa.array(["u", None] * 20).dictionary_encode()}),
        ("a gap in the target", {"a": range(40), "y": [None, *labels[1:]]}),
        ("64-bit numbers not told apart", column(pa.array([2**63 + row for row in range(40)], pa.uint64()))),
        ("two columns of one name", pa.table([range(40), range(40), labels], ["a", "a", "y"])),
        ("no rows", pa.table({"a": pa.array([], pa.int64()), "y": pa.array([], pa.string())})),
        ("escape codes as a class", {"a": range(40), "y": ["\x1b[31m", "v"] * 20}),
    ]  # fmt: skip
    for what, table in refused:
        yield LABELLED, Case(what, parquet(table), "refused", "t.parquet")
    intact = _read(parquet(column(np.arange(40.0))), "t.parquet")
    same: list[tuple[str, Any]] = [
        ("whole numbers", column(pa.array(range(40), pa.int8()))),
        ("16-bit floats", column(np.arange(40, dtype=np.float16))),
        ("decimals", column(pa.array(range(40), pa.decimal128(30, 4)))),
        ("a dictionary of numbers", column(pa.array(range(40)).dictionary_encode())),
        ("large text", {"a": range(40), "y": pa.array(labels, pa.large_string())}),
        ("text in a dictionary", {"a": range(40), "y": pa.array(labels).dictionary_encode()}),
        ("text seen from elsewhere", {"a": range(40), "y": pa.array(labels, pa.string_view())}),
    ]
    for what, table in same:
        yield LABELLED, Case(what, parquet(table), "same", "t.parquet", intact)

    def of_classes(names: Any) -> bytes:
        return json.dumps({"info": {"features": {"label": {"names": names}}}}).encode()

    metadata: list[tuple[str, bytes, Expected]] = [
        ("nested JSON", b"[" * 100_000, "refused"),
        ("no JSON", b"{", "refused"),
        ("no UTF-8", b'"\xff"', "refused"),
        ("names that are a text", of_classes("uv"), "refused"),
        ("names that are numbers", of_classes([1, 2]), "refused"),
        ("one name twice", of_classes(["u", "u"]), "refused"),
        ("one name for two", of_classes(["u"]), "refused"),
        ("a name of escape codes", of_classes(["\x1b[2J", "v"]), "refused"),
        ("1,000,000 names", of_classes([str(number) for number in range(10**6)]), "any"),
        ("a list", b"[]", "any"),
        ("another object", b"{}", "any"),
    ]
    for what, text, expected in metadata:
        yield LABELLED, Case(what, parquet(_picture_table(small, [0, 1] * 6, text)), expected, "picture.parquet")
    for what, pictures, numbers_ in (
        ("no bytes", [*small[1:], {"bytes": None, "path": "x"}], [0, 1] * 6),
        ("no picture", [*small[1:], None], [0, 1] * 6),
        ("bytes of a text", [*small[1:], {"bytes": EPS, "path": "\x1b[31m"}], [0, 1] * 6),
        ("a label below 0", small, [-1, 1] * 6),
    ):
        content = parquet(_picture_table(pictures, numbers_, names))
        yield LABELLED, Case(what, content, "refused", "picture.parquet")
    # What is stored once, and said often.
    long = "x" * 1_000_000
    small_picture, many = encoded("PNG", (96, 96), "1"), 200_000
    often: list[tuple[str, Callable[[], bytes], Expected]] = [
        (
            "50,000,000 rows of one number",
            lambda: parquet({"a": np.zeros(50_000_000, np.int64), "y": np.zeros(50_000_000, np.int8)}),
            "refused",
        ),
        ("one long text often", lambda: parquet({"a": range(1000), "y": [long, long + "v"] * 500}), "refused"),
        (
            "texts that differ at their end",
            lambda: parquet(
                {"a": range(400), "y": [long + str(row % 2) for row in range(400)]},
                use_dictionary=False,
                column_encoding={"y": "DELTA_BYTE_ARRAY"},
            ),
            "refused",
        ),
        (
            "a long note beside",
            lambda: parquet({"a": range(1000), "y": ["u", "v"] * 500, "note": [long] * 1000}),
            "refused",
        ),
        (
            "one picture 1,000 times",
            lambda: parquet(
                _picture_table([{"bytes": encoded("PNG") + bytes(10**6), "path": "p"}] * 1000, [0, 1] * 500)
            ),
            "refused",
        ),
        (
            "one picture 200,000 times",
            lambda: parquet(_picture_table([{"bytes": small_picture, "path": "p"}] * many, [0, 1] * (many // 2))),
            "refused",
        ),
        (
            "20,000 columns",
            lambda: parquet({f"c{n}": [1.0, 2.0] * 2 for n in range(20_000)} | {"y": ["u", "v"] * 2}),
            "any",
        ),
        ("2,000 row groups", lambda: parquet({"a": range(2000), "y": ["u", "v"] * 1000}, row_group_size=1), "any"),
    ]
    for what, make, expected in often:
        name = "picture.parquet" if "picture" in what else "t.parquet"
        yield LABELLED, Case(what, lambda path, make=make: path.write_bytes(make()), expected, name)


# Arrays --------------------------------------------------------------------------------------------------------------


def npz(**arrays: Any) -> bytes:
    """Returns arrays as the content of a file."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _header(description: str, version: tuple[int, int] = (1, 0)) -> bytes:
    text = description.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text


def _archive(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _npz() -> Iterator[tuple[str, Case]]:
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2
    grey = np.random.default_rng(0).integers(0, 256, (30, 5, 5), np.uint8)
    for seed, content in enumerate((npz(x=x, y=y), npz(x=grey, y=y))):
        intact = _read(content, "d.npz")
        for what, damaged in mutations(content, seed=60 + seed, number=27):
            yield LABELLED, Case(what, damaged, "same or refused", "d.npz", intact)
    for what, damaged in mutations(npz(x=x), seed=63, number=9):
        yield ROWS, Case(what, damaged, "any", "d.npz")
    labels = _npy(y)
    for description in (
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10**13, 1)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000, 1)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000000000, 1)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-30, 2)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (30, 2, 0)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True, True)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (30, 2)}",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (30, 2)}",
        "{'descr': '|V8', 'fortran_order': False, 'shape': (30, 2)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (30, 2)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (30, 2)}",
        "{'descr': 'what', 'fortran_order': False, 'shape': (30, 2)}",
        "{'descr': '<f8'}",
        "(" * 3000,
        "[" * 90_000,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 100 + ")}",
        "9" * 9000,
    ):
        for version in ((1, 0), (2, 0)):
            if len(description) < 60_000 or version != (1, 0):
                member = _header(description, version) + bytes(30 * 2 * 8)
                yield LABELLED, Case(description[:70], _archive(x=member, y=labels), "refused", "d.npz")
    encrypted = bytearray(npz(x=x, y=y))
    for start in (encrypted.index(b"PK\x03\x04") + 6, encrypted.index(b"PK\x01\x02") + 8):
        encrypted[start] |= 1
    pickled = _npy(np.array([{"a": 1}] * 30, object))
    refused: list[tuple[str, bytes]] = [
        ("encrypted", bytes(encrypted)),
        ("LZMA", _archive(zipfile.ZIP_LZMA, x=_npy(x), y=labels)),
        ("bzip2", _archive(zipfile.ZIP_BZIP2, x=_npy(x), y=labels)),
        ("no array", _archive(x=b"text", y=labels)),
        ("nothing", _archive()),
        ("Python objects", _archive(x=pickled, y=labels)),
        ("Python objects for labels", _archive(x=_npy(x), y=pickled)),
        ("one bare array", _npy(x)),
        ("two of one name", _archive(x=_npy(x), y=labels) and _twice(_npy(x), labels)),
        ("complex numbers", npz(x=x + 1j, y=y)),
        ("no number", npz(x=x * np.nan, y=y)),
        ("fewer labels", npz(x=x, y=y[:5])),
        ("a number", npz(x=np.float64(1), y=y)),
        ("3,000,000 columns", npz(x=np.zeros((2, 3_000_000)), y=[0, 1])),
        ("escape codes as a class", npz(x=x, y=np.array(["\x1b[31m", "v"])[y])),
    ]
    for what, content in refused:
        yield LABELLED, Case(what, content, "refused", "d.npz")
    for what, make in (
        ("3.5 GB of zeros", lambda: npz(x=np.zeros((3_500_000, 1000), np.uint8), y=np.zeros(3_500_000, np.uint8))),
        ("200 MB of zeros", lambda: npz(x=np.zeros((2_000, 100_000), np.uint8), y=np.arange(2_000) % 2)),
        ("pictures of zeros", lambda: npz(x=np.zeros((2_000, 300, 300), np.uint8), y=np.arange(2_000) % 2)),
        ("small pictures", lambda: npz(x=np.zeros((2_000_000, 8, 8), bool), y=np.arange(2_000_000) % 2)),
        ("wide labels", lambda: npz(x=np.zeros((2_000, 1)), y=np.array(["u" * 9000, "v"])[np.arange(2_000) % 2])),
    ):
        expected: Expected = "refused" if what == "3.5 GB of zeros" else "any"
        yield LABELLED, Case(what, lambda path, make=make: path.write_bytes(make()), expected, "d.npz")


def _twice(x: bytes, y: bytes) -> bytes:
    content = _archive(x=x, z=x, y=y)
    return content.replace(b"z.npy", b"x.npy")


# Folders -------------------------------------------------------------------------------------------------------------


def _folders() -> Iterator[tuple[str, Case]]:
    def folder(change: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def write(path: Path) -> None:
            for label, number in itertools.product(("cat", "dog"), range(4)):
                file = path / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encoded("PNG", (6 + number, 6), "L"))
            change(path)

        return write

    def rename(path: Path, name: bytes) -> None:
        path.rename(path.parent / os.fsdecode(name))

    changes: list[tuple[str, Callable[[Path], Any], Expected]] = [
        ("a class that is not UTF-8", lambda path: rename(path / "dog", b"d\xf6g"), "refused"),
        ("escape codes as a class", lambda path: rename(path / "dog", b"\x1b[31mdog"), "refused"),
        ("a line end in a class", lambda path: rename(path / "dog", b"dog\ncat"), "refused"),
        ("a class of formulas", lambda path: rename(path / "dog", b"=1+1"), "any"),
        ("a picture that is not UTF-8", lambda path: rename(path / "dog" / "0.png", b"\xff.png"), "any"),
        ("a pipe", lambda path: os.mkfifo(path / "dog" / "9.png"), "any"),
        ("a link to a pipe", lambda path: (os.mkfifo(path / "p"), (path / "dog" / "9.png").symlink_to("../p")), "any"),
        ("a device", lambda path: (path / "dog" / "9.png").symlink_to("/dev/zero"), "any"),
        ("a link to itself", lambda path: (path / "dog" / "9.png").symlink_to(path / "dog" / "9.png"), "any"),
        ("a folder in a loop", lambda path: (path / "dog" / "again").symlink_to(path / "dog"), "any"),
        ("a class in a loop", lambda path: (path / "cow").symlink_to(path), "any"),
        ("a key of the user", lambda path: (path / "dog" / "9.png").symlink_to("/etc/passwd"), "refused"),
        ("a folder called a picture", lambda path: (path / "dog" / "9.png").mkdir(), "any"),
        ("200 folders deep", lambda path: (path / "dog" / "/".join("d" * 200)).mkdir(parents=True), "any"),
        ("PostScript", lambda path: (path / "dog" / "0.png").write_bytes(EPS), "refused"),
        ("an empty picture", lambda path: (path / "dog" / "0.png").write_bytes(b""), "refused"),
        ("a name of escape codes", lambda path: (path / "dog" / "\x1b[31m.png").write_bytes(b"x"), "refused"),
        ("2,000 bad pictures", lambda path: [
            (path / "dog" / f"{'x' * 200}{n}.png").write_bytes(b"x") for n in range(2000)], "refused"),
    ]  # fmt: skip
    for what, change, expected in changes:
        yield LABELLED, Case(what, folder(change), expected, "pets")
        if expected == "any":
            yield PICTURES, Case(what, folder(change), "any", "pets")
    for suffix in ("png", "csv", "parquet", "npz"):
        reader = PICTURES if suffix == "png" else LABELLED
        yield reader, Case("a pipe", os.mkfifo, "refused", f"p.{suffix}")
        yield reader, Case("a device", lambda path: path.symlink_to("/dev/zero"), "refused", f"p.{suffix}")
        yield reader, Case("a link to nothing", lambda path: path.symlink_to("nowhere"), "refused", f"p.{suffix}")
        yield reader, Case("a folder", lambda path: path.mkdir(), "refused", f"p.{suffix}")
