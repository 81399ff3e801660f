"""The attention layer alone: plain self-attention, as Keras's own computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from contract import assert_close, assert_layer_contract, perturb, to_numpy
from keras_residual.layers.value_attention import ValueResidualAttention

X = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
MASK = np.array([[True] * 5, [True, True, True, False, False]])


@pytest.mark.parametrize("causal", [False, True])
def test_contract(causal: bool) -> None:
    # A bias of all keys shifts all logits of a row alike, which a softmax does not see.
    assert_layer_contract(
        lambda: ValueResidualAttention(2, 4, value_dim=3, dropout=0.1, causal=causal),
        (2, 5, 6),
        output_shape=(2, 5, 6),
        zero_gradient_ok=["key/bias"],
    )


def same_as_keras(layer: ValueResidualAttention) -> Callable[..., Any]:
    """Returns Keras's attention with the weights of `layer`, a function of the input."""
    heads, value = layer.value_shape
    theirs = keras.layers.MultiHeadAttention(heads, layer.key_dim, value_dim=value, use_bias=layer.use_bias)
    theirs.build(X.shape, X.shape)
    given = []
    for dense, size in ((layer.query, layer.key_dim), (layer.key, layer.key_dim), (layer.value, value)):
        kernel, *bias = dense.get_weights()
        given += [kernel.reshape(-1, heads, size), *(b.reshape(heads, size) for b in bias)]
    kernel, *bias = layer.output_projection.get_weights()
    theirs.set_weights([*given, kernel.reshape(heads, value, -1), *bias])
    # With the scores: without them, on JAX, Keras takes a kernel that refuses values of another size than keys.
    return lambda x, **kwargs: theirs(x, x, return_attention_scores=True, **kwargs)[0]


@pytest.mark.parametrize("value_dim", [None, 3])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_output_is_that_of_keras(value_dim: int | None, use_bias: bool, causal: bool) -> None:
    layer = ValueResidualAttention(2, 4, value_dim=value_dim, use_bias=use_bias, causal=causal)
    layer(X)
    perturb(layer)
    theirs = same_as_keras(layer)
    assert_close(layer(X), theirs(X, use_causal_mask=causal))
    allowed = np.random.default_rng(1).random((2, 5, 5)) < 0.6
    allowed |= np.eye(5, dtype=bool)
    y = layer(X, mask=MASK, attention_mask=allowed)
    expected = theirs(X, attention_mask=allowed & MASK[:, None, :], use_causal_mask=causal)
    # Of steps that are masked themselves only those that see something are told by either.
    sees = (allowed & MASK[:, None, :] & (np.tri(5, dtype=bool) if causal else True)).any(axis=-1)
    assert_close(to_numpy(y)[sees], to_numpy(expected)[sees])
    assert_close(layer(X, attention_mask=allowed[0]), theirs(X, attention_mask=allowed[:1], use_causal_mask=causal))


def test_no_step_sees_a_later_one() -> None:
    layer = ValueResidualAttention(2, 4, causal=True)
    changed = X.copy()
    changed[:, 3:] += 1.0
    before, after = to_numpy(layer(X)), to_numpy(layer(changed))
    assert_close(after[:, :3], before[:, :3])
    assert np.abs(after[:, 3:] - before[:, 3:]).max() > 1e-3


def test_a_step_that_sees_nothing_is_finite() -> None:
    assert np.isfinite(to_numpy(ValueResidualAttention(2, 4)(X, mask=np.zeros((2, 5), bool)))).all()


def test_dropout_acts_in_training_alone() -> None:
    layer = ValueResidualAttention(2, 4, dropout=0.5)
    first, second = (to_numpy(layer(X, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    plain = ValueResidualAttention(2, 4)
    plain(X)
    plain.set_weights(layer.get_weights())
    assert_close(layer(X), to_numpy(plain(X)))


@pytest.mark.any_backend
def test_arguments_come_back() -> None:
    arguments = {"num_heads": 3, "key_dim": 4, "value_dim": 5, "dropout": 0.25, "use_bias": False, "causal": True}
    layer = ValueResidualAttention(**arguments, kernel_initializer=keras.initializers.Orthogonal(gain=0.5, seed=4))
    copy = ValueResidualAttention.from_config(layer.get_config())
    assert {name: getattr(copy, name) for name in arguments} == arguments
    assert copy.kernel_initializer.get_config() == {"gain": 0.5, "seed": 4}


@pytest.mark.any_backend
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`num_heads` must be a whole number of at least 1, but received 0"):
        ValueResidualAttention(0, 4)
    with pytest.raises(TypeError, match="`causal` must be True or False"):
        ValueResidualAttention(2, 4, causal="yes")
    with pytest.raises(ValueError, match=r"`inputs` must be a sequence \(batch, time, channels\)"):
        ValueResidualAttention(2, 4)(np.ones((2, 6), "float32"))
