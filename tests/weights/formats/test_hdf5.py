"""HDF5 files: what Keras writes is read as h5py reads it, and nothing else is."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_residual.weights.formats.hdf5 import Array, Hdf5Error, Hdf5Group, read_hdf5

pytestmark = pytest.mark.any_backend

# What h5py writes: by default, and in each form of the format that its library has.
FORMS = [None, "earliest", "latest", ("v108", "v108"), ("v110", "v110"), ("v112", "v114")]

NAMES = st.text(st.characters(categories=["L", "N", "P"], exclude_characters="/."), min_size=1, max_size=12)
NUMBERS = st.sampled_from(["?", "<i1", ">i4", "<u8", "<f2", ">f4", "<f8"])
VALUES = NUMBERS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))
TEXTS = st.text(st.characters(categories=["L", "N", "P"]), max_size=20)
ATTRIBUTES = st.dictionaries(
    NAMES,
    TEXTS
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.lists(TEXTS, min_size=1, max_size=4)
    | st.lists(st.binary(min_size=1, max_size=9).filter(lambda text: 0 not in text), min_size=1, max_size=4).map(
        np.array
    )
    | VALUES.filter(lambda array: array.size > 0),
    max_size=3,
)
TREES = st.recursive(
    st.tuples(ATTRIBUTES, VALUES),
    lambda inside: st.tuples(ATTRIBUTES, st.dictionaries(NAMES, inside, max_size=5)),
    max_leaves=12,
)


def write(file: Any, members: Any) -> None:
    for name, (attributes, value) in members.items():
        if isinstance(value, dict):
            made = file.create_group(name)
            write(made, value)
        else:
            made = file.create_dataset(name, data=value)
        for key, attribute in attributes.items():
            made.attrs[key] = attribute


def same(value: Any, expected: Any) -> None:
    assert np.shape(value) == np.shape(expected)
    assert repr(np.asarray(value).tolist()) == repr(np.asarray(expected).tolist())  # repr: of NaN too


def compare(found: Any, file: Any) -> None:
    assert set(found.attributes) == set(file.attrs)
    for name, value in found.attributes.items():
        same(value, file.attrs[name])
    if isinstance(file, h5py.Dataset):
        assert isinstance(found, Array)
        assert found.values.dtype == file.dtype.newbyteorder("=")
        same(found.values, file[()])
        return
    assert isinstance(found, Hdf5Group)
    assert set(found.members) == set(file)
    for name, member in found.members.items():
        compare(member, file[name])


@settings(max_examples=40)
@given(st.dictionaries(NAMES, TREES, max_size=4), st.sampled_from(FORMS))
def test_it_reads_what_h5py_reads(tmp_path_factory: Any, members: Any, form: Any) -> None:
    path = tmp_path_factory.mktemp("hdf5") / "x.h5"
    with h5py.File(path, "w", libver=form) as file:
        write(file, members)
    with h5py.File(path) as file:
        compare(read_hdf5(path), file)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("number", [9, 60, 1200])
def test_groups_of_many_members(tmp_path: Path, form: Any, number: int) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver=form) as file:
        for n in range(number):
            file[f"layer_{n}"] = np.float32(n)
    found = read_hdf5(tmp_path / "x.h5").members
    assert {name: float(member.values) for name, member in found.items()} == {f"layer_{n}": n for n in range(number)}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_object_whose_description_goes_on_elsewhere(tmp_path: Path, form: Any) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver=form) as file:
        file["a"] = np.arange(3)
        file.attrs["first"] = "x" * 500
        file["b"] = np.arange(3)
        for n in range(7):
            file["a"].attrs[f"n{n}"] = np.full(100, n)
        file["c"] = np.arange(3)
    with h5py.File(tmp_path / "x.h5") as file:
        compare(read_hdf5(tmp_path / "x.h5"), file)


# What is refused ----------------------------------------------------------------------------------------------------


def in_another_file(file: Any, folder: Path) -> None:
    file.create_dataset("w", (4,), "u1", external=[(str(folder / "secret"), 0, 4)])


def behind_a_link_out(file: Any, folder: Path) -> None:
    file["w"] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def behind_a_link(file: Any, folder: Path) -> None:
    file["other"] = np.ones(4)
    file["w"] = h5py.SoftLink("/other")


def behind_many_links(file: Any, folder: Path) -> None:
    for n in range(20):
        file[f"other{n}"] = np.ones(4)
    file["w"] = h5py.SoftLink("/other3")


def made_of_another_file(file: Any, folder: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (4,))
    file.create_virtual_dataset("w", layout)


def compressed(file: Any, folder: Path) -> None:
    file.create_dataset("w", data=np.zeros(100_000), compression="gzip")


def filtered(file: Any, folder: Path) -> None:
    file.create_dataset("w", data=np.zeros(100), fletcher32=True)


def in_chunks_that_nobody_wrote(file: Any, folder: Path) -> None:
    file.create_dataset("w", (10**9,), "f4", chunks=(10**6,))


def never_written(file: Any, folder: Path) -> None:
    file.create_dataset("w", (10**9,), "f4")


def in_a_loop(file: Any, folder: Path) -> None:
    inner = file.create_group("a/b")
    inner["c"] = file["a"]


def under_two_names(file: Any, folder: Path) -> None:
    file["v"] = np.ones(3)
    file["w"] = file["v"]


def of_a_named_type(file: Any, folder: Path) -> None:
    file["kind"] = np.dtype("f4")
    file.create_dataset("w", (3,), dtype=file["kind"])


def without_values(file: Any, folder: Path) -> None:
    file["w"] = h5py.Empty("f4")


def texts(file: Any, folder: Path) -> None:
    file["w"] = ["a", "b"]


def texts_of_one_length(file: Any, folder: Path) -> None:
    file["w"] = np.array([b"a", b"b"])


def references(file: Any, folder: Path) -> None:
    file["v"] = np.ones(3)
    file.create_dataset("w", data=np.array([file["v"].ref], dtype=h5py.ref_dtype))


def lists(file: Any, folder: Path) -> None:
    file.create_dataset("w", (2,), h5py.vlen_dtype("f4"))[0] = np.ones(3)


def complex_numbers(file: Any, folder: Path) -> None:
    file["w"] = np.ones(3, "complex64")


def records(file: Any, folder: Path) -> None:
    file["w"] = np.ones(3, "f4,i4")


def many_attributes(file: Any, folder: Path) -> None:
    file["w"] = np.ones(3)
    for n in range(20):
        file["w"].attrs[f"a{n}"] = n


IN_NEW_FORM_ONLY = (many_attributes,)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (in_another_file, "'/w' has its values in other files"),
        (behind_a_link_out, "'w' in '/' is a link to another place"),
        (behind_a_link, "'w' in '/' is a link to another place"),
        (behind_many_links, "'w' in '/' is a link to another place"),
        (made_of_another_file, "'/w' has its values in other arrays or files"),
        (compressed, "'/w' is compressed or filtered"),
        (filtered, "'/w' is compressed or filtered"),
        (in_chunks_that_nobody_wrote, "'/w' has its values in chunks"),
        (never_written, "'/w' of the shape (1000000000,) claims 4000000000 bytes, and "),
        (in_a_loop, "'/a/b/c' is there under another name too"),
        (under_two_names, "'/w' is there under another name too"),
        (of_a_named_type, "'/w' shares what describes it, which Keras does not write"),
        (without_values, "the file is damaged, or has an array without values"),
        (texts, "'/w' holds texts, not numbers"),
        (texts_of_one_length, "'/w' holds texts, not numbers"),
        (references, "'/w' is of a type that is not read"),
        (lists, "'/w' is of a type that is not read"),
        (complex_numbers, "'/w' is of a type that is not read"),
        (records, "'/w' is of a type that is not read"),
        (many_attributes, "'/w' has more attributes than are read"),
    ],
)
@pytest.mark.parametrize("form", ["earliest", "latest"])
def test_what_keras_does_not_write_is_refused(tmp_path: Path, make: Any, what: str, form: str) -> None:
    if form == "earliest" and make in IN_NEW_FORM_ONLY:
        pytest.skip("the old form has them in one place")
    (tmp_path / "secret").write_bytes(b"key!")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(4)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=form) as file:
        make(file, tmp_path)
    with pytest.raises(Hdf5Error, match=f"^{re.escape(what)}") as caught:
        read_hdf5(path)
    assert str(caught.value).isprintable()


def test_a_file_whose_values_lie_in_several_files_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x%d.h5", "w", driver="family", memb_size=10_000) as file:
        file["w"] = np.ones(10)
    with pytest.raises(Hdf5Error, match="it is part of several files"):
        read_hdf5(tmp_path / "x0.h5")


def test_a_file_behind_something_else_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=512) as file:
        file["w"] = np.ones(10)
    with pytest.raises(Hdf5Error, match="the file is damaged"):
        read_hdf5(tmp_path / "x.h5")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w", libver="earliest") as file:
        file["w"] = np.arange(100.0)
        file.attrs["names"] = ["a", "b"]
    return tmp_path / "x.h5"


@pytest.mark.parametrize("keep", [0, 8, 15, 95, 200, 1000, -801, -1])
def test_a_file_that_is_cut_off_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(Hdf5Error, match=r"^the file is damaged"):
        read_hdf5(file)


@pytest.mark.parametrize("form", ["v108", "v114"])
def test_each_flipped_bit_of_a_description_is_seen(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=(form, "v114")) as file:
        for n in range(12):
            file[f"layer_{n}"] = np.float32(n)
    intact, expected = path.read_bytes(), read_hdf5(path)
    missed = []
    for place in range(0, len(intact), 7):
        content = bytearray(intact)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            found = read_hdf5(path)
        except Hdf5Error:
            continue
        if set(found.members) != set(expected.members) or any(
            float(found.members[name].values) != n for n, name in enumerate(sorted(expected.members, key=by_number))
        ):
            missed.append(place)
    # What is left are the values themselves, which have no checksum, four bytes each.
    assert len(missed) <= 12


def by_number(name: str) -> int:
    return int(name.removeprefix("layer_"))


def test_arrays_that_share_their_bytes_take_no_more_than_the_file(file: Path) -> None:
    """Twenty arrays of 800 bytes, all at the same place."""
    with h5py.File(file, "w", libver="earliest") as written:
        for n in range(20):
            written[f"w{n}"] = np.full(100, float(n))
        places = [written[f"w{n}"].id.get_offset() for n in range(20)]
    content = file.read_bytes()
    first = struct.pack("<QQ", places[0], 800)
    for place in places[1:]:
        content = content.replace(struct.pack("<QQ", place, 800), first)
    file.write_bytes(content[:-8000])
    size = len(content) - 8000
    file.write_bytes(content[:size].replace(struct.pack("<Q", len(content)), struct.pack("<Q", size)))
    with pytest.raises(Hdf5Error, match=f"the file is damaged, or cut off after {size} bytes"):
        read_hdf5(file)
