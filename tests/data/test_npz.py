import re

import numpy as np
import pytest

from keras_residual.data import Fingerprint, load_dataset
from keras_residual.data.lazy import LazyExamples

pytestmark = pytest.mark.any_backend

LABELS = np.arange(20) % 2
GREY = np.random.default_rng(0).integers(0, 256, (20, 5, 6)).astype(np.uint8)


@pytest.fixture
def write(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "d.npz", **arrays)
        return str(tmp_path / "d.npz")

    return save


def refused(message, source, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(f'Data {str(source)!r}: {message}')}$"):
        load_dataset(source, **arguments)


def test_rank_2_is_a_table(write):
    x = np.random.default_rng(0).normal(size=(20, 3))
    data = load_dataset(write(x=x, y=LABELS))
    assert (data.name, data.kind, data.task) == ("d", "table", "classification")
    assert (data.features, data.classes) == (("x0", "x1", "x2"), ("0", "1"))
    picked = load_dataset(write(x=x, y=LABELS), features=("x2", "x0"))
    np.testing.assert_array_equal(picked.x_test, data.x_test[:, [2, 0]])
    assert load_dataset(write(x=x, y=x[:, 0])).task == "regression"
    assert load_dataset(write(x=x, y=np.array(["u", "v"])[LABELS])).classes == ("u", "v")


def test_rank_3_and_4_are_pictures(write):
    parts = {"x_train": GREY, "y_train": LABELS[:, None], "x_test": GREY[:4] ^ 255, "y_test": LABELS[:4]}
    data = load_dataset(write(**parts))
    assert (data.kind, data.x_train.shape) == ("pictures", (20, 5, 6, 1))
    np.testing.assert_array_equal(data.x_test[..., 0], GREY[:4] ^ 255)
    np.testing.assert_array_equal(data.y_train, LABELS)
    assert load_dataset(write(x=np.stack([GREY] * 3, -1), y=LABELS)).input_shape == (5, 6, 3)
    assert load_dataset(write(x=GREY, y=LABELS), image_size=9).input_shape == (9, 9, 1)


@pytest.mark.parametrize(
    "change", [lambda x: x.astype("int64"), lambda x: x.astype("float64"), lambda x: x / np.float32(255)]
)
def test_pictures_of_other_types_become_the_same_bytes(write, change):
    changed, plain = (load_dataset(write(x=x, y=LABELS)) for x in (change(GREY), GREY))
    np.testing.assert_array_equal(changed.x_train, plain.x_train)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": GREY}, "the file must hold `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`, but holds a."),
        ({"x": GREY, "y": LABELS[:3]}, "y must have a value for each example, but has 3 for 20 examples."),
        ({"x": GREY[:0], "y": LABELS[:0]}, "y must have a value for each example, but has 0 for 0 examples."),
        (
            {"x": GREY, "y": np.eye(2)[LABELS]},
            "y must have one value an example, but has shape (20, 2). Of one-hot labels take y.argmax(axis=1).",
        ),
        (
            {"x": GREY[:, 0, 0], "y": LABELS},
            "x must hold numbers, of rank 2 for a table and 3 or 4 for pictures, but is uint8 of shape (20,).",
        ),
        (
            {"x": np.zeros((20, 3, 8, 8)), "y": LABELS},
            "pictures need 1 or 3 channels on the last axis, but x has shape (20, 3, 8, 8). "
            "The channels seem to come first: move them with numpy.moveaxis(x, 1, -1).",
        ),
        (
            {"x": GREY.astype("float32") - 128, "y": LABELS},
            "pictures must be whole numbers in 0..255 or floats in 0..1, but x is float32 from "
            f"{GREY.min() - 128.0} to {GREY.max() - 128.0}. Scale it before writing the file.",
        ),
        (
            {"x": np.array([[1.0, 2.0], [3.0, np.nan]]), "y": np.arange(2)},
            "x must hold finite numbers, but has nan in row 2, column 'x1'. Correct the value or remove the row.",
        ),
        ({"x": GREY, "y": LABELS + 0j}, "y must hold numbers, booleans or text, but is complex128."),
    ],
)
def test_arrays_that_do_not_fit_are_refused(write, arrays, message):
    arrays = dict(arrays)
    task = {"task": "regression"} if len(arrays.get("y", ())) == 2 else {}
    refused(message, write(**arrays), **task)


@pytest.mark.parametrize(
    "twins",
    [
        np.array([2**53, 2**53 + 1]),
        np.array([-(2**60), -(2**60) - 1]),
        np.array([2**63 + 1, 2**63], np.uint64),
    ],
    ids=lambda twins: f"{twins.dtype}",
)
def test_numbers_that_are_one_64_bit_float_are_refused(write, twins):
    column = np.concatenate([np.arange(25, dtype=twins.dtype), twins])
    order = [f"{value}" for value in np.sort(twins)]
    table = np.stack([column[::-1] % 7, column], axis=1)
    told = f"has numbers beyond 2**53 that 64-bit floats do not tell apart, {order[0]} and {order[1]}. "
    path = write(x=table, y=np.arange(27) % 2)
    refused(f"x, column 'x1', {told}Subtract what they have in common.", path)
    subtract = "Subtract what they have in common, or set the task to 'classification'."
    refused(f"y {told}{subtract}", write(x=table % 5, y=column), task="regression")
    arrays = {"x_train": table % 5, "y_train": column % 5, "x_test": table % 5, "y_test": column}
    refused(f"y_test {told}{subtract}", write(**arrays), task="regression")


def test_nothing_is_unpickled(write):
    path = write(x=np.array([{"a": 1}, None], dtype=object), y=np.arange(2))
    refused(
        f"the file {path} cannot be read as npz ('x.npy' holds Python objects, which are not read). "
        "Write it with numpy.savez, from arrays of numbers or text.",
        path,
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    message = re.escape(f"Data {str(path)!r}: the file {path} cannot be read as npz (")
    way_out = re.escape("). Write it with numpy.savez, from arrays of numbers or text.")
    with pytest.raises(ValueError, match=f"^{message}.+{way_out}$"):
        load_dataset(str(path))


def test_a_bare_array_is_refused(tmp_path):
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, GREY)
    path = str(tmp_path / "d.npz")
    refused(
        f"the file {path} cannot be read as npz (it holds one bare array). "
        "Write it with numpy.savez, from arrays of numbers or text.",
        path,
    )


@pytest.mark.parametrize("own_test", [False, True])
@pytest.mark.parametrize("shape", [(5, 4, 3), (6,)])
def test_arrays_that_are_not_compressed_stay_in_the_file(tmp_path, own_test, shape):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, *shape)).astype(np.uint8 if len(shape) == 3 else np.float64)
    y = np.arange(40) % 2
    arrays = (
        {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:], "y_test": y[30:]} if own_test else {"x": x, "y": y}
    )
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    held, streamed, packed = (
        load_dataset(str(tmp_path / name), memory=memory)
        for name, memory in (("a.npz", 2**29), ("a.npz", 0), ("b.npz", 0))
    )
    for part in ("x_train", "x_test"):
        assert isinstance(getattr(streamed, part), LazyExamples)
        np.testing.assert_array_equal(getattr(streamed, part)[:], getattr(held, part))
        np.testing.assert_array_equal(getattr(packed, part), getattr(held, part))
    one, other = (Fingerprint.of(data.x_train, data.y_train) for data in (held, streamed))
    np.testing.assert_array_equal(one.digests, other.digests)
