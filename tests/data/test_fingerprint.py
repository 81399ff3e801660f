import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.data.fingerprint import Fingerprint

pytestmark = pytest.mark.any_backend


def slow(trained, other):
    """The slow twin: example by example, with lists."""
    here, there = ([row.tobytes() for row in x] for x, _ in (trained, other))
    these = np.zeros(len(there), bool)
    for content in {*here} & {*there}:
        if there.count(content) < here.count(content):
            continue
        answers = [y for x, y in zip(here, trained[1], strict=True) if x == content]
        rows = [row for row, x in enumerate(there) if x == content]
        unlike = []
        for row in rows:
            if other[1][row] in answers:
                answers.remove(other[1][row])
                these[row] = True
            else:
                unlike.append(row)
        these[unlike[: len(answers)]] = True
    return these, np.array([x in here for x in there], bool) & ~these


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 30), st.integers(1, 30))
def test_examples_are_found_as_counting_finds_them(seed, values, trained, others):
    rng = np.random.default_rng(seed)

    def some(count):
        return rng.integers(0, values, (count, 2)).astype(np.float64), rng.integers(0, 2, count)

    one, two = some(trained), some(others)
    here, there = Fingerprint.of(*one), Fingerprint.of(*two)
    for found, expected in zip(here.find(there), slow(one, two), strict=True):
        np.testing.assert_array_equal(found, expected)
    # From the other side: as many of these are found as others are taken for them, each with what it holds.
    np.testing.assert_array_equal(
        np.sort(here.digests[here.found_in(there)]), np.sort(there.digests[here.find(there)[0]])
    )


@given(st.integers(0, 2**32), st.booleans())
def test_those_that_were_trained_on_are_found_in_any_order(seed, pictures):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (40, 3, 3, 1)).astype(np.uint8) if pictures else rng.normal(size=(40, 2))
    y, order = rng.normal(size=40), rng.permutation(40)
    these, equal = Fingerprint.of(x[:25], y[:25]).find(Fingerprint.of(x[order], y[order]))
    np.testing.assert_array_equal(these, order < 25)
    assert not equal.any()


def test_zero_has_no_sign():
    these, _ = Fingerprint.of(np.array([[0.0]]), np.array([0.0])).find(
        Fingerprint.of(np.array([[-0.0]]), np.array([-0.0]))
    )
    assert these.all()


def test_nothing_was_trained_on():
    nothing = Fingerprint.of(np.zeros((0, 2)), np.zeros(0))
    these, equal = nothing.find(Fingerprint.of(np.zeros((3, 2)), np.zeros(3)))
    assert not these.any()
    assert not equal.any()


@pytest.mark.parametrize("chose", [None, [2, 5]])
def test_the_file_reloads_to_the_same(tmp_path, chose):
    trained = Fingerprint.of(np.random.default_rng(0).normal(size=(9, 2)), np.arange(9), chose)
    (tmp_path / "t.npz").write_bytes(trained.to_bytes())
    again = Fingerprint.read(tmp_path / "t.npz")
    np.testing.assert_array_equal(again.digests, trained.digests)
    np.testing.assert_array_equal(again.answers, trained.answers)
    assert (None if again.chose is None else np.flatnonzero(again.chose).tolist()) == chose


@pytest.mark.parametrize(
    "arrays",
    [{}, {"digests": np.zeros(3, np.uint64)}, {"digests": np.zeros(3), "answers": np.zeros(3)},
     {"digests": np.zeros(3, np.uint64), "answers": np.zeros(4)},
     {"digests": np.zeros(3, np.uint64), "answers": np.zeros(3), "chose": np.zeros(4, bool)},
     {"digests": np.zeros(3, np.uint64), "answers": np.zeros(3), "chose": np.zeros(3)}],
)  # fmt: skip
def test_another_file_is_refused(arrays, tmp_path):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(ValueError, match=r"^Fingerprint .*t\.npz: the file does not hold what a run writes into it\."):
        Fingerprint.read(tmp_path / "t.npz")
