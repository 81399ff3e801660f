"""Examples that are read when they are asked for: as arrays are, for any number of threads, whatever goes meanwhile."""

import re
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.data import Augmentation, Batches, PaddedBatches, lazy, load_dataset
from keras_residual.data.lazy import LazyExamples, Skipped, ahead, in_threads, parts, set_workers, subset
from keras_residual.data.scratch import OpenFile, rows_of_file, scratch_file

pytestmark = pytest.mark.any_backend


@pytest.fixture(autouse=True)
def workers_as_they_were():
    yield
    set_workers(None)


def in_a_file(array):
    with scratch_file("T") as file:
        file.write(b"before" + array.tobytes())
    return rows_of_file(file, len(b"before"), array.shape, array.dtype)


@given(st.integers(0, 2**32), st.integers(1, 30), st.data())
def test_rows_of_a_file_are_those_of_the_array(seed, count, data):
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(count, *rng.integers(1, 4, rng.integers(0, 3)).tolist()))
    x = in_a_file(array)
    assert (x.shape, x.dtype, x.ndim, len(x)) == (array.shape, array.dtype, array.ndim, count)
    rows = data.draw(st.lists(st.integers(0, count - 1), max_size=40).map(np.array)).astype(int)
    for some in (rows, slice(None), slice(2, 9), rng.random(count) < 0.5):
        np.testing.assert_array_equal(x[some], array[some])
        np.testing.assert_array_equal(subset(x, some)[:], array[some])
    np.testing.assert_array_equal(x[count - 1], array[count - 1])
    np.testing.assert_array_equal(x.map(np.square, float).subset(rows)[:], np.square(array[rows]))
    np.testing.assert_array_equal(np.concatenate(list(parts(x))), array)


def test_a_file_that_has_become_shorter_is_no_row_of_zeros(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(np.arange(8.0).tobytes())
    x = rows_of_file(OpenFile(path.open("rb")), 0, (8,), np.float64)
    path.write_bytes(b"")
    with pytest.raises(OSError, match="has become shorter"):
        x[:]


def test_a_scratch_file_on_a_full_disk_names_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def write():
        with scratch_file("Data 'x'"):
            raise OSError(28, "No space left on device")

    message = (
        f"Data 'x': no scratch file can be written in {tmp_path} (No space left on device), and the data have to be "
        "unpacked there once, since they do not fit into data.memory. Set TMPDIR to a folder on a disk with room, or "
        "raise data.memory."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write()


def pictures(folder, write_picture, count=30):
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
        write_picture(folder / "ab"[number % 2] / f"{number}.png", pixels=noise)
    return folder


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batches_are_those_of_arrays_for_any_number_of_workers(tmp_path, write_picture, workers):
    folder = str(pictures(tmp_path, write_picture))
    held = load_dataset(folder)
    set_workers(workers)
    streamed = load_dataset(folder, memory=0)
    augment = Augmentation(shift=2, flip=True, crop=0.5)
    one, other = (Batches(data.x_train, data.y_train, 5, seed=3, augment=augment) for data in (held, streamed))
    for step, batch in zip(range(4, 14), other.since(4), strict=False):
        for part, expected in zip(batch, one.batch(step), strict=True):
            np.testing.assert_array_equal(part, expected)
    one, other = (PaddedBatches(data.x_test, data.y_test, 4) for data in (held, streamed))
    for index in range(len(one)):
        for part, expected in zip(other[index], one[index], strict=True):
            np.testing.assert_array_equal(part, expected)


def test_what_is_gone_is_named_and_the_next_one_takes_its_place(tmp_path, write_picture):
    data = load_dataset(str(pictures(tmp_path, write_picture)), memory=0, most_broken=2)
    x, y, lines = data.x_train, data.y_train, []
    data.skipped.tell(lines.append)
    before = x[:]
    row = 5
    path = next(path for path in tmp_path.rglob("*.png") if np.array_equal(pixels(path), before[row]))
    path.unlink()
    after, found = x.served(np.arange(len(x)))
    expected = np.arange(len(x))
    expected[row] = (row + 1) % len(x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(after, before[expected])
    assert lines == [f"Skipped: {path} (No such file or directory)"]
    batches = PaddedBatches(x, y, len(x) + 3)
    _, labels, weight = batches[0]
    assert weight.sum() == len(x) - 1
    assert weight[row] == 0
    np.testing.assert_array_equal(labels[: len(x)], y[expected])
    assert lines == [f"Skipped: {path} (No such file or directory)"]
    assert (~x.there).nonzero()[0].tolist() == [row]


def pixels(path):
    from PIL import Image

    return np.asarray(Image.open(path))


def test_more_that_are_gone_than_may_be_stop_the_reading(tmp_path, write_picture):
    data = load_dataset(str(pictures(tmp_path, write_picture)), memory=0, most_broken=2)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"files are not pictures that can be read, and 2 are passed over: "):
        data.x_train[:]


def test_no_more_is_made_ahead_than_a_few_and_errors_come_where_they_belong():
    begun, ended = [], threading.Event()

    def make(item):
        begun.append(item)
        if item == 5:
            raise ValueError("five")
        return item

    made = ahead(make, iter(range(100)))
    assert next(made) == 0
    time.sleep(0.05)
    assert len(begun) <= 1 + lazy._AHEAD
    assert [next(made) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(made)
    made.close()
    ended.set()
    assert len(begun) < 10


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_keep_the_order(workers):
    set_workers(workers)
    assert in_threads(lambda item: item * 2, range(50)) == list(range(0, 100, 2))


def test_each_is_skipped_once():
    skipped, lines = Skipped(1, "T"), []
    skipped.add("a", "no picture")
    skipped.tell(lines.append)
    skipped.add("a", "no picture")
    skipped.check()
    skipped.add("b", "gone")
    assert lines == ["Skipped: a (no picture)", "Skipped: b (gone)"]
    message = (
        "T: 2 files are not pictures that can be read, and 1 are passed over: a (no picture), b (gone). Remove or "
        "replace them, or raise the limit with --set data.most_broken=2."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        skipped.check()


def test_nothing_left_to_take_is_an_error():
    x = LazyExamples(
        lambda places: (np.zeros((len(places), 2)), np.zeros(len(places), bool)), (2,), float, np.arange(3)
    )
    with pytest.raises(ValueError, match="none of the examples can be read any more"):
        x[:]
