"""Learning rates by weight: each weight goes as with an optimizer of its own at its share of the rate."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

from keras_residual import optimizers

RNG = np.random.default_rng(0)
START = [RNG.normal(size=shape).astype("float32") for shape in ((3, 4), (4,), (4, 2))]
GRADIENTS = [[RNG.normal(size=value.shape).astype("float32") for value in START] for _ in range(6)]
SHARES = [0.1, 0.5, 1.0]


def walked(optimizer: Any, which: slice) -> list[np.ndarray]:
    variables = [keras.Variable(value, name=f"v{i}") for i, value in enumerate(START[which])]
    optimizer.build(variables)
    for gradients in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients[which]], variables)
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


KINDS = {
    "sgd": lambda rate: optimizers.SGD(rate, momentum=0.9, weight_decay=0.1),
    "adamw": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1),
    "lamb": lambda rate: optimizers.Lamb(rate, weight_decay=0.1, global_clipnorm=None),
    "accumulating": lambda rate: keras.optimizers.AdamW(rate, gradient_accumulation_steps=2),
    "schedule": lambda rate: optimizers.SGD(optimizers.schedules.cosine(rate, 6), momentum=0.9),
}


@pytest.mark.every("torch")
@pytest.mark.parametrize("kind", KINDS)
def test_each_weight_goes_as_with_an_optimizer_of_its_own(kind: str) -> None:
    together = walked(optimizers.Discriminative(KINDS[kind](0.02), SHARES), slice(None))
    for i, share in enumerate(SHARES):
        (alone,) = walked(KINDS[kind](0.02 * share), slice(i, i + 1))
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-6)


def test_it_trains_within_means_and_is_made_anew_from_its_configuration() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    inner = optimizers.Discriminative(optimizers.SGD(0.1, gradient_accumulation_steps=2), [0.1, 0.1, 1, 1])
    optimizer = optimizers.Averaged(inner, 0.9)
    before = [np.array(weight) for weight in model.get_weights()]
    model.compile(optimizer, "mse")
    x = RNG.normal(size=(8, 3)).astype("float32")
    model.fit(x, x[:, :2] + 1, batch_size=2, epochs=1, verbose=0)
    assert all(np.abs(new - old).max() > 0 for new, old in zip(model.get_weights(), before, strict=True))
    assert int(keras.ops.convert_to_numpy(optimizer._iterations.value)) == 4
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.inner_optimizer.shares == (0.1, 0.1, 1.0, 1.0)


@pytest.mark.any_backend
def test_shares_that_do_not_fit_are_refused() -> None:
    message = "Discriminative: `shares` must be numbers in (0, 1], but received 0 (int)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        optimizers.Discriminative(optimizers.SGD(0.1), [1.0, 0])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="`shares` must be one number for each of 2 trainable weights"):
        optimizers.Discriminative(optimizers.SGD(0.1), [1.0]).build(model.trainable_variables)
