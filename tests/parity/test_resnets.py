"""Every ResNet of timm by its name: the same answers, maps and gradients, and weights that go both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import keras_residual as kr
from backend_helpers import double_precision, gradients
from contract import to_numpy
from keras_residual.weights.names import name_map, slots, to_ours
from keras_residual.weights.save import map_for, state_dict
from parity.networks import CLASSES, FEATURES, TIMM, answer, array, assert_agrees, ours, peer, pictures, sizes, state
from parity.timm_peer import timm, torch

# Up to 16 GB of memory: `pytest -m huge tests/parity` runs them.
HUGE = [
    *("resnext101_32x32d", "resnetv2_101x3_bit", "resnetv2_152x2_bit", "resnetv2_152x4_bit", "resnetv2_50x3_bit"),
]
# Every block, stem, norm, shortcut and attention that there is.
KINDS = [
    *("resnet18", "resnet26t", "resnet50_gn", "resnetaa34d", "resnetblur18", "resnetrs50", "resnext50_32x4d"),
    *("seresnet18", "ecaresnet26t", "ecaresnet50d_pruned", "ecaresnetlight", "test_resnet", "senet154"),
    *("resnetv2_18d", "resnetv2_50", "resnetv2_50d_evos", "resnetv2_50d_frn", "resnetv2_50d_gn", "resnetv2_50x1_bit"),
    *("resnest14d", "resnest50d_4s2x40d", "resnest50d_1s4x24d", "res2net50d", "res2next50"),
    *("skresnet18", "skresnext50_32x4d", "legacy_seresnet18", "legacy_seresnet50", "legacy_seresnext26_32x4d"),
]
ON_JAX = keras.backend.backend() == "jax"
NAMES = [
    pytest.param(name, marks=pytest.mark.huge if name in HUGE else ()) for name in (TIMM if ON_JAX else [*KINDS, *HUGE])
]
LEARNING = ["test_resnet", "resnet10t", "resnetv2_18", "seresnet18", "ecaresnet26t"]
if keras.backend.backend() == "torch":
    # Behind the norms on their pooled maps rounding turns signs, and elsewhere Keras rounds to single precision.
    LEARNING += ["resnest14d", "skresnet18"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_timm(name: str) -> None:
    theirs = peer(name)
    model = ours(theirs, name)
    for height, width in sizes(name):
        x = pictures(height, width)
        assert_agrees(model(x, training=False), answer(theirs, x), answer(theirs, x, double=True))


@pytest.mark.every("torch")
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet26t", "resnetv2_18d", "resnest14d", "res2net50d", "skresnet18", "legacy_seresnet18"]
)
def test_maps_of_stem_and_stages_are_those_of_timm(name: str) -> None:
    theirs = peer(name)
    model = ours(theirs, name, features_only=True)
    x = pictures(64, 48)
    with torch.no_grad():
        expected = theirs.forward_intermediates(torch.tensor(x).permute(0, 3, 1, 2), intermediates_only=True)
    found = model(x, training=False)
    assert sorted(found) == sorted(FEATURES)
    for key, value in zip(FEATURES, expected, strict=True):
        value = array(value.permute(0, 2, 3, 1))
        assert np.abs(to_numpy(found[key]) - value).max() <= 1e-5 * np.abs(value).max(), key
    reductions = [info["reduction"] for info in theirs.feature_info]
    assert kr.feature_strides(model) == dict(zip(FEATURES, reductions, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "resnetv2_50d", "resnetblur18", "senet154", "res2net50d"])
def test_dilated_networks_are_those_of_timm(name: str, output_stride: int) -> None:
    theirs = peer(name, output_stride=output_stride)
    model = ours(theirs, name, output_stride=output_stride)
    x = pictures(65, 64)
    assert_agrees(model(x, training=False), answer(theirs, x), answer(theirs, x, double=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_loss_and_gradients_of_a_step_are_those_of_timm(name: str) -> None:
    # In double precision: in single, rounding turns a few activations on or off, which timm's own gradients show too.
    theirs = peer(name).double().train()
    x = pictures(64, 64, count=8).astype("float64")
    labels = np.arange(8) % CLASSES
    loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x).permute(0, 3, 1, 2)), torch.tensor(labels))
    loss.backward()
    losses: list[Any] = []

    def our_loss(inputs: Any) -> Any:
        logits = model(inputs, training=True)
        losses.append(ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)))
        return losses[-1]

    with double_precision():
        model = ours(theirs, name, execution="unrolled")
        trainable = [slot for slot in slots(model) if slot.variable.trainable]
        _, found = gradients(our_loss, [x], [slot.variable for slot in trainable])
    if not ON_JAX:  # where it is a tracer
        assert float(to_numpy(losses[0])) == pytest.approx(loss.item(), rel=1e-6)
    # Of a scalar the helper takes the gradient of its product with a weight.
    weight = float(np.float32(np.random.default_rng(99).uniform(0.5, 1.5)))
    names, parameters = name_map(map_for(model)), dict(theirs.named_parameters())
    for slot, gradient in zip(trainable, found, strict=True):
        expected = weight * to_ours(slot, array(parameters[str(names(slot.path))].grad))
        assert np.abs(gradient - expected).max() <= 1e-5 * np.abs(expected).max(), slot.path


@pytest.mark.slow
@pytest.mark.any_backend
@pytest.mark.parametrize("name", KINDS)
def test_timm_takes_our_weights(name: str, tmp_path: Path) -> None:
    theirs = peer(name)
    model = ours(theirs, name)
    kr.save_weights(model, tmp_path / "weights.safetensors")
    from safetensors.torch import load_file

    fresh = timm.create_model(name, num_classes=CLASSES)
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    expected = state(theirs)
    assert sorted(state(fresh)) == sorted(expected)
    for key, value in state(fresh).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)
    assert set(state_dict(model)) == set(theirs.state_dict())


@pytest.mark.any_backend
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_first_kernel_is_adapted_as_timm_does(channels: int) -> None:
    from timm.models._manipulate import adapt_input_conv

    theirs = peer("test_resnet")
    model = ours(theirs, "test_resnet", input_shape=(32, 32, channels))
    kernel = next(slot for slot in slots(model) if slot.path == "stem_conv1/kernel")
    expected = array(adapt_input_conv(channels, theirs.conv1[0].weight))
    np.testing.assert_allclose(kernel.read().transpose(3, 2, 0, 1), expected, rtol=1e-6)


@pytest.mark.any_backend
def test_executions_give_the_same_answers_with_the_same_weights() -> None:
    theirs = peer("resnet26t")
    x = pictures(32, 32)
    answers = [
        to_numpy(ours(theirs, "resnet26t", execution=execution)(x, training=False))
        for execution in ("scan", "unrolled")
    ]
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-5)
