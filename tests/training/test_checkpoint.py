"""Checkpoints: what comes back is what was written, and one that is damaged makes way for the one before it."""

import re

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_residual import _atomic
from keras_residual.training.checkpoint import KEYS, Checkpoints, pack, unpack
from keras_residual.training.run_directory import RunDirectory

pytestmark = pytest.mark.any_backend

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
numbers = arrays.arrays(st.sampled_from(["f4", "f8", "i8", "u1", "?"]), arrays.array_shapes(min_dims=0, min_side=0))
nested = st.recursive(
    plain | numbers | st.just(keras.ops.less),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
)


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    elif isinstance(one, dict):
        same(list(one.items()), list(other.items()))
    else:
        assert one == other


def state(**values):
    return dict.fromkeys(KEYS) | values


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


@given(nested)
def test_a_packed_state_comes_back_as_it_was(value):
    packed: list = []
    same(unpack(pack(value, packed), packed), value)


def test_a_state_comes_back_from_the_disk(run):
    written = state(
        step=7, seconds=0.1, ended="", variables=[np.float32([[1.5, -0.0]]), np.array(3)],
        callbacks=[("A", {"best": float("inf"), "pair": (1, None), "op": keras.ops.greater})],
    )  # fmt: skip
    Checkpoints(run).write(written, 7)
    read, said = Checkpoints(run).newest()
    same(read, written)
    assert said == []


def test_short_floats_keep_their_values(run):
    Checkpoints(run).write(state(variables=[np.array([0.1, 3], ml_dtypes.bfloat16)]), 1)
    (values,) = Checkpoints(run).newest()[0]["variables"]
    np.testing.assert_array_equal(values.astype(ml_dtypes.bfloat16), np.array([0.1, 3], ml_dtypes.bfloat16))


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(TypeError, match=r"is no plain value$"):
        pack({"model": [object()]}, [])


def test_the_last_two_are_kept_each_with_its_best_model(run):
    for step in (3, 5, 10):
        _atomic.write_text(run.model, f"best of {step}")
        Checkpoints(run).write(state(step=step), step)
    assert sorted(path.name for path in run.last.iterdir()) == [
        "step-10.keras", "step-10.npz", "step-5.keras", "step-5.npz",
    ]  # fmt: skip
    _atomic.write_text(run.model, "of a future that does not come")
    Checkpoints(run).restore_best(5)
    assert run.model.read_text() == "best of 5"
    assert (run.last / "step-10.keras").read_text() == "best of 10"


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "other"])
def test_a_damaged_one_makes_way_for_the_one_before(run, how):
    for step in (5, 10):
        Checkpoints(run).write(state(step=step, variables=[np.arange(99.0)]), step)
    last = run.last / "step-10.npz"
    content = bytearray(last.read_bytes())
    content[content.find(np.arange(99.0).tobytes()) + 100] ^= 1
    last.write_bytes({"cut": content[:-50], "flipped": content, "empty": b""}.get(how, b""))
    if how == "other":
        np.savez(last, x=np.arange(3))
    read, (said,) = Checkpoints(run).newest()
    assert read["step"] == 5
    assert said.startswith(f"Checkpoint '{last}': ")
    assert said.endswith(". The checkpoint before it is taken.")
    assert "\n" not in said
    # The run goes on from 5, and what claims to be of a later step is not taken for its newest.
    Checkpoints(run).write(state(step=7), 7)
    assert sorted(path.stem for path in run.last.glob("*.npz")) == ["step-5", "step-7"]


def test_where_none_can_be_read_it_is_said(run):
    run.last.mkdir()
    (run.last / "step-5.npz").write_bytes(b"PK")
    message = f"Run '{run.path}': none of its checkpoints can be read. Remove {run.path / 'last'} to begin it anew."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Checkpoints(run).newest()


def test_without_links_the_best_model_is_copied(run, monkeypatch):
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    run.model.write_text("best")
    Checkpoints(run).write(state(step=1), 1)
    assert (run.last / "step-1.keras").read_text() == "best"
