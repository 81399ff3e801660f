"""Stages that training does not change, whose batch norms keep to what they know."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_residual as kr
from contract import to_numpy
from keras_residual.weights.names import slots


def network(execution: str = "auto") -> keras.Model:
    config = kr.ResNetConfig(block="basic", depths=(1, 2, 2), widths=(8, 8, 16), stem="conv3", stem_filters=8)
    return kr.ResNet(config, input_shape=(16, 16, 3), num_classes=3, execution=execution)


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {slot.path: slot.read().copy() for slot in slots(model)}


@pytest.mark.parametrize("execution", ["scan", "unrolled"])
def test_training_leaves_frozen_stages_and_their_statistics_as_they_are(execution: str) -> None:
    model = network(execution)
    kr.freeze(model, "stage2")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, size=(8, 16, 16, 3)).astype("float32"), rng.integers(0, 3, 8)
    before = values(model)
    model.train_on_batch(x, y)
    after = values(model)
    changed = {path.partition("/")[0] for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"stage3_block1", "stage3_block2", "head"}


def test_frozen_norms_use_their_statistics_in_training() -> None:
    model = network()
    x = np.random.default_rng(0).normal(3, 2, size=(8, 16, 16, 3)).astype("float32")
    assert np.abs(to_numpy(model(x, training=True)) - to_numpy(model(x, training=False))).max() > 1e-3
    kr.freeze(model, "stage3")
    np.testing.assert_allclose(to_numpy(model(x, training=True)), to_numpy(model(x, training=False)), rtol=1e-5)


@pytest.mark.any_backend
def test_it_says_what_is_trainable_and_an_earlier_stage_thaws() -> None:
    model = network()
    done = kr.freeze(model, "stage3")
    assert done.trainable == ("head",)
    assert done.trainable_weights == 16 * 3 + 3
    assert done.frozen_weights + done.trainable_weights == model.count_params()
    assert str(done).startswith("frozen: stem_conv, stem_norm, stage1_block1")
    assert "trainable: head (51 weights)" in str(done)
    assert kr.freeze(model, "stem").frozen == ("stem_conv", "stem_norm")
    assert kr.freeze(model, "none").frozen == ()
    assert all(layer.trainable for layer in model.layers)


@pytest.mark.any_backend
@pytest.mark.parametrize("up_to", ["stage4", "head", ""])
def test_a_part_that_is_not_there_is_refused(up_to: str) -> None:
    with pytest.raises(ValueError, match="`up_to` must be one of none, stem, stage1, stage2, stage3 for 'resnet'"):
        kr.freeze(network(), up_to)
