"""The arrays of one model are found in what a training program has saved."""

import re
from pathlib import Path

import numpy as np
import pytest

from keras_residual._errors import CheckpointError
from keras_residual.weights.formats.state_dict import find_state_dict

pytestmark = pytest.mark.any_backend

PATH = Path("run") / "last.pth"
WEIGHTS = {"conv.weight": np.ones(2), "fc.bias": np.zeros(3)}


def shapes(content, **arguments):
    return {name: array.shape for name, array in find_state_dict(content, PATH, **arguments).items()}


def refused(content, message, **arguments):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'Checkpoint {str(PATH)!r}: {message}')}$"):
        find_state_dict(content, PATH, **arguments)


KEYS = ["state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params", "weights"]


@pytest.mark.parametrize("key", [None, *KEYS])
@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "ema_model.", "_orig_mod.module.model."],
)
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


def test_weights_of_the_loss_are_no_names_of_the_model():
    weights = {f"model.{name}": value for name, value in WEIGHTS.items()}
    assert list(shapes({**weights, "criterion.weight": np.ones(3), "loss_fn.pos_weight": np.ones(1)})) == [*WEIGHTS]
    assert list(shapes({**WEIGHTS, "criterion.weight": np.ones(3)})) == [*WEIGHTS, "criterion.weight"]
    assert list(shapes({"criterion.weight": np.ones(3)})) == ["criterion.weight"]


def test_prefixes_without_end_are_dropped_up_to_a_point():
    name = "module." * 100_000 + "weight"
    (found,) = shapes({name: np.ones(1)})
    assert name.endswith(found)


def test_wrappers_without_end_are_looked_through_up_to_a_point():
    content = {}
    for _ in range(10_000):
        content = {"model": content}
    refused(
        content, "it holds no tensor. Its keys: model. Save the state dict of the model: "
        "torch.save(model.state_dict(), path)."
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, 2, 30])
def test_wrappers_that_hold_each_other_end(number):
    content = [{} for _ in range(number)]
    for wrapper in content:
        wrapper |= {key: content[n % number] for n, key in enumerate([*KEYS, "ema", "model_ema"])}
    with pytest.raises(CheckpointError, match=r"it holds no tensor\. Its keys: state_dict, "):
        find_state_dict(content[0], PATH)
    content[min(number, len(KEYS)) - 1]["w"] = np.ones(1)
    assert list(shapes(content[0])) == ["w"]


def test_a_layer_called_model_is_no_wrapper():
    assert list(shapes({"model": np.ones(1), "fc": np.ones(1)})) == ["model", "fc"]


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema", "ema"])
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
