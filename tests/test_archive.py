"""Zip files of others: the bound holds before anything is read, and damage is one line."""

import io
import re
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_residual._archive import Archive, ArchiveError

pytestmark = pytest.mark.any_backend


def archive_of(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(array, *, version=None, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, **options)
    return file.getvalue()


def npy_of(header, body=b"", version=1):
    text = (header if isinstance(header, bytes) else repr(header).encode()) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + body


def refused(path, what, name=None, read="read"):
    with pytest.raises(ArchiveError, match=f"^{re.escape(what)}$"), Archive(path) as archive:
        getattr(archive, read)(name or archive.names[0])


def array_in(path):
    with Archive(path) as archive:
        return archive.array("a.npy")


NUMBERS = st.sampled_from(["?", "<i1", ">i4", "<u8", "<f2", ">f4", "<f8", "<c8"])


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5),
        NUMBERS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))),
        max_size=4,
    ),
    st.booleans(),
    st.booleans(),
)
def test_it_reads_what_numpy_writes(tmp_path_factory, content, compressed, transposed):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    content = {name: np.asfortranarray(array) if transposed else array for name, array in content.items()}
    (np.savez_compressed if compressed else np.savez)(path, **content)
    with Archive(path) as archive:
        assert set(archive.names) == {f"{name}.npy" for name in content}
        for name, array in content.items():
            found = archive.array(f"{name}.npy")
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)
            assert archive.read(f"{name}.npy") == npy(array)
            assert archive.size(f"{name}.npy") == len(npy(array))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_each_version_of_numpys_format_is_read(tmp_path, version):
    path = archive_of(tmp_path / "x.npz", {"a.npy": npy(np.arange(5), version=version)})
    with Archive(path) as archive:
        np.testing.assert_array_equal(archive.array("a.npy"), np.arange(5))


def test_a_file_that_is_not_there_is_just_that(tmp_path):
    with pytest.raises(FileNotFoundError):
        Archive(tmp_path / "no.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_compression_are_refused(tmp_path, method):
    path = archive_of(tmp_path / "x", {"a": b"content"}, method)
    name = {zipfile.ZIP_BZIP2: "the bzip2", zipfile.ZIP_LZMA: "the lzma"}[method]
    refused(path, f"'a' is compressed by {name} method, and only deflate is read")


def test_an_encrypted_file_is_refused(tmp_path):
    path = archive_of(tmp_path / "x", {"a": b"content"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "'a' is encrypted")


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = archive_of(tmp_path / "x", {"a": b"1", "b": b"2"})
    path.write_bytes(path.read_bytes().replace(b"b", b"a"))
    refused(path, "it has 'a' twice")


@pytest.mark.parametrize("place", [0, 500, 999])
def test_a_flipped_bit_is_seen(tmp_path, place):
    path = archive_of(tmp_path / "x", {"a.npy": npy(np.zeros(1000, np.uint8))})
    content = bytearray(path.read_bytes())
    content[content.index(bytes(1000)) + place] ^= 16
    path.write_bytes(content)
    for read in ("read", "array"):
        refused(path, "the file is damaged (Bad CRC-32 for file 'a.npy')", read=read)


def test_a_file_that_was_written_without_checksums_is_read(tmp_path):
    path = archive_of(tmp_path / "x", {"a": b"one", "b": b"two"})
    content = path.read_bytes()
    for text in (b"one", b"two"):
        content = content.replace(struct.pack("<I", zipfile.crc32(text)), bytes(4))
    path.write_bytes(content)
    with Archive(path) as archive:
        assert [archive.read(name) for name in archive.names] == [b"one", b"two"]


@pytest.mark.parametrize("members", [{"a.npy": 600_000_000}, {f"{n}.npy": 30_000_000 for n in range(20)}])
def test_what_would_fill_the_memory_is_refused(tmp_path, members):
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, size in members.items():
            with archive.open(name, "w") as file:
                for _ in range(size // 1_000_000):
                    file.write(bytes(1_000_000))
    size = (tmp_path / "x").stat().st_size
    bound = "more than 128000000 and 10 times its size"
    what = f"its {size} bytes would become 600000000, {bound}; without compression it is read"
    refused(tmp_path / "x", what)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = archive_of(tmp_path / "x", {f"{n}": b"x" * 1000 for n in range(4)})
    content = path.read_bytes()
    start = entry = content.index(b"PK\x01\x02")
    # Every entry of the directory leads to the first member, of which the file has only that.
    for _ in range(4):
        entry = content.index(b"PK\x01\x02", entry) + 1
        content = content[: entry + 41] + bytes(4) + content[entry + 45 :]
    end = content.index(b"PK\x05\x06")
    kept = content[: 31 + 1000]
    moved = content[start:end] + content[end : end + 16] + struct.pack("<I", len(kept)) + content[end + 20 :]
    path.write_bytes(kept + moved)
    refused(path, f"its members claim 4000 bytes, but the file has {path.stat().st_size}")


@pytest.mark.parametrize("shape", [(10**13,), (10**21,), (3, 2, 10**9), (4,), (2**63, 2), (True, 5)])
def test_a_shape_that_the_bytes_do_not_have_is_refused(tmp_path, shape):
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    path = archive_of(tmp_path / "x", {"a.npy": npy_of(header, bytes(20))})
    with pytest.raises(ArchiveError, match=r"'a.npy' is damaged: the shape|an array cannot have the shape"):
        array_in(path)


@pytest.mark.parametrize("shape", [(0, 10**21), (10**30, 0), (0,) * 70, (-1, 0), (1.5,)])
def test_an_impossible_shape_without_values_is_refused(tmp_path, shape):
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    path = archive_of(tmp_path / "x", {"a.npy": npy_of(header)})
    with pytest.raises(ArchiveError, match=r"cannot have the shape|the file is damaged") as caught:
        array_in(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (npy(np.array([{}], object), allow_pickle=True), "'a.npy' holds Python objects, which are not read"),
        (npy(np.array(["a"])), "'a.npy' is of the type <U1, not of numbers"),
        (npy(np.array(["2020-01-01"], "M8[D]")), "'a.npy' is of the type datetime64[D], not of numbers"),
        (npy(np.zeros(2, "f4,i2")), "'a.npy' is of the type [('f0', '<f4'), ('f1', '<i2')], not of numbers"),
    ],
)
def test_other_types_are_refused(tmp_path, content, what):
    refused(archive_of(tmp_path / "x", {"a.npy": content}), what, read="array")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00\x10\x00",
        npy_of(b"(" * 9000),
        npy_of(b"-" * 9000 + b"1"),
        npy_of(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }" + b" " * 20_000),
        npy_of(b"\xff" * 100),
        npy_of([1, 2]),
        npy_of({"descr": "O" * 5000, "fortran_order": False, "shape": ()}),
        npy_of(b"{}", version=2)[:9] + b"\xff\xff\xff\x7f",
    ],
)
def test_what_is_no_array_is_refused(tmp_path, content):
    path = archive_of(tmp_path / "x", {"a.npy": content})
    with pytest.raises(ArchiveError, match=r"^the file is damaged \(.+\)$") as caught:
        array_in(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_member_that_is_not_there_is_named(tmp_path):
    refused(archive_of(tmp_path / "x", {"a": b""}), r"it has no 'b\x1b'", name="b\x1b")
