"""The arrays of one model are found in what a training program has saved."""

import re
from pathlib import Path

import numpy as np
import pytest

from keras_residual._errors import CheckpointError
from keras_residual.weights.state_dict import find_state_dict

pytestmark = pytest.mark.any_backend

PATH = Path("run") / "last.pth"
WEIGHTS = {"conv.weight": np.ones(2), "fc.bias": np.zeros(3)}


def shapes(content, **arguments):
    return {name: array.shape for name, array in find_state_dict(content, PATH, **arguments).items()}


def refused(content, message, **arguments):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'Checkpoint {str(PATH)!r}: {message}')}$"):
        find_state_dict(content, PATH, **arguments)


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model_state", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_it_is_found_and_loses_its_prefix(key, prefix):
    weights = {prefix + name: value for name, value in WEIGHTS.items()} | {
        f"{prefix}bn.num_batches_tracked": np.ones(1)
    }
    others = {"epoch": 3, "lr": np.ones(()), "optimizer": {"state": {0: np.ones(5)}}}
    content = weights if key is None else {**others, key: weights}
    assert shapes(content) == {"conv.weight": (2,), "fc.bias": (3,)}


def test_one_wrapper_in_another():
    assert list(shapes({"model": {"state_dict": WEIGHTS, "step": 1}})) == [*WEIGHTS]


def test_a_prefix_that_some_lack_stays():
    assert list(shapes({"module.conv": np.ones(1), "fc": np.ones(1)})) == ["module.conv", "fc"]


def test_a_layer_called_model_is_no_wrapper():
    assert list(shapes({"model": np.ones(1), "fc": np.ones(1)})) == ["model", "fc"]


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_averaged_weights_are_taken_when_asked_for(key):
    averaged = {"n_averaged": np.ones(()), "module.conv.weight": np.ones((2, 2))}
    content = {"model": WEIGHTS, key: averaged}
    assert shapes(content) == {"conv.weight": (2,), "fc.bias": (3,)}
    assert shapes(content, ema=True) == {"conv.weight": (2, 2)}


def test_averaged_weights_are_not_taken_unasked():
    refused(
        {"state_dict_ema": WEIGHTS, "epoch": 1},
        "it holds no tensor but the averaged weights. Its keys: state_dict_ema, epoch. Pass `ema=True`.",
    )


@pytest.mark.parametrize("content", [{"model": WEIGHTS}, {"model": WEIGHTS, "model_ema": {"decay": 0.9}}])
def test_no_averaged_weights(content):
    refused(content, f"it has no averaged weights. Its keys: {', '.join(content)}. Read it without `ema`.", ema=True)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({}, "It is empty or no dictionary"),
        (3, "It is empty or no dictionary"),
        ({"epoch": 3, "model": {"a": 1}, 0: np.ones(1)}, "Its keys: epoch, model, 0"),
        ({f"key{n}": n for n in range(9)}, f"Its keys: {', '.join(f'key{n}' for n in range(8))} and 1 more"),
        ({"bn.num_batches_tracked": np.ones(1)}, "Its keys: bn.num_batches_tracked"),
    ],
)
def test_no_tensor(content, keys):
    refused(
        content,
        f"it holds no tensor. {keys}. Save the state dict of the model: torch.save(model.state_dict(), path).",
    )
