"""Calls without Keras's `__call__`: the same numbers, and nothing written over that somebody else has."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual.residual import direct
from keras_residual.residual.norms import BatchNormalization
from keras_residual.residual.symmetric_conv import SymmetricConv2D

ON_TORCH = keras.backend.backend() == "torch"
needs_torch = pytest.mark.skipif(not ON_TORCH, reason="only PyTorch runs operations one by one")


def normal(*shape: int) -> Any:
    return keras.ops.convert_to_tensor(np.random.default_rng(3).normal(size=shape).astype("float32"))


def no_gradients() -> AbstractContextManager[Any]:
    """Returns a scope in which results may be written over."""
    if not ON_TORCH:
        return nullcontext()
    import torch

    return torch.no_grad()


def block(strides: int = 1, **arguments: Any) -> kr.Residual:
    branch = [
        SymmetricConv2D(4, 3, strides=strides, use_bias=False),
        BatchNormalization(),
        layers.ReLU(),
        SymmetricConv2D(4, 3, use_bias=False),
        BatchNormalization(),
    ]
    return kr.Residual(branch, activation="relu", **arguments)


def by_hand(layer: kr.Residual, x: Any, training: bool) -> Any:
    """Returns what the block does, each layer called by Keras."""
    y = x
    for part in layer.branch:
        y = part(y, training=training) if isinstance(part, BatchNormalization) else part(y)
    skip = x if layer.shortcut_layer is None else layer.shortcut_layer(x, training=training)
    return keras.ops.relu(keras.ops.add(skip, y))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("training", [False, True])
def test_numbers_and_gradients_are_those_of_calls(training: bool, strides: int) -> None:
    layer, x = block(strides), to_numpy(normal(4, 6, 6, 4))
    layer.build(x.shape)
    found = gradients(lambda x: layer(x, training=training), [x], layer.trainable_variables)
    expected = gradients(lambda x: by_hand(layer, x, training), [x], layer.trainable_variables)
    for mine, theirs in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert mine is not None
        assert theirs is not None
        assert_close(mine, theirs, 1e-5)
    with no_gradients():
        assert_close(layer(x, training=False), by_hand(layer, x, False), 1e-6)


@pytest.mark.parametrize(
    "branch",
    [
        lambda: [layers.ReLU()],
        lambda: [layers.Dropout(0.5), layers.ReLU()],
        lambda: [BatchNormalization(), layers.Dropout(0.5), layers.ReLU()],
        lambda: [layers.Identity()],
        lambda: [BatchNormalization()],
    ],
)
def test_the_input_is_never_written_over(branch: Any) -> None:
    layer, x = kr.Residual(branch(), activation="relu"), normal(2, 3, 3, 4)
    before = to_numpy(x).copy()
    with no_gradients():
        layer(x, training=False)
    assert_close(x, before, 0)


def test_other_arguments_of_relu_count() -> None:
    layer, x = kr.Residual([BatchNormalization(), layers.ReLU(max_value=0.5, negative_slope=0.1)]), normal(2, 3, 3, 4)
    layer.build(x.shape)
    norm, relu = layer.branch
    assert_close(layer(x, training=False), x + relu(norm(x, training=False)), 1e-6)


@needs_torch
def test_nobody_who_listens_is_passed_over_or_shown_other_numbers() -> None:
    layer, x = block(), normal(2, 6, 6, 4)
    layer.build(x.shape)
    norm, relu = layer.branch[1:3]
    seen: list[Any] = []
    call = norm.call
    norm.call = lambda *args, **kwargs: seen.append(call(*args, **kwargs)) or seen[-1]  # type: ignore[method-assign]
    listening: Any = relu
    handle = listening.register_forward_hook(lambda module, given, made: seen.append(made))
    with no_gradients():
        layer(x, training=False)
    handle.remove()
    assert len(seen) == 2
    assert (to_numpy(seen[0]) < 0).any(), "the norm's output was rectified in place"
    assert_close(seen[1], np.maximum(to_numpy(seen[0]), 0), 0)


@needs_torch
def test_what_an_activation_keeps_of_a_convolution_is_not_written_over() -> None:
    kept: list[Any] = []
    conv = SymmetricConv2D(4, 3, activation=lambda x: kept.append(x) or x)
    layer, x = kr.Residual([conv, layers.ReLU()]), normal(2, 6, 6, 4)
    layer.build(x.shape)
    kept.clear()
    with no_gradients():
        layer(x, training=False)
    assert (to_numpy(kept[0]) < 0).any(), "rectified in place"


@needs_torch
def test_who_listens_to_the_merge_is_told() -> None:
    layer, x = block(), normal(2, 6, 6, 4)
    layer.build(x.shape)
    seen: list[Any] = []
    layer.merge_layer.register_forward_hook(lambda module, given, made: seen.append(made))
    with no_gradients():
        layer(x, training=False)
    assert len(seen) == 1
    assert (to_numpy(seen[0]) < 0).any(), "the sum was rectified in place"


@needs_torch
@pytest.mark.parametrize(
    "why", ["a policy", "another dtype", "no mode", "a mask", "a symbol", "a regularizer", "not built", "a scope"]
)
def test_keras_calls_the_layer_where_that_does_something(why: str) -> None:
    layer = SymmetricConv2D(
        4,
        3,
        dtype="mixed_bfloat16" if why == "a policy" else "float32",
        activity_regularizer="l2" if why == "a regularizer" else None,
    )
    if why != "not built":
        layer.build((None, 6, 6, 4))
    x = keras.Input((6, 6, 4)) if why == "a symbol" else normal(2, 6, 6, 4)
    if why == "another dtype":
        x = keras.ops.cast(x, "float16")
    if why == "a mask":
        x._keras_mask = True
    scope = keras.src.backend.AutocastScope("bfloat16" if why == "a scope" else None)
    with scope:
        assert not direct.is_plain(layer, x, None if why == "no mode" else False)
    plain = SymmetricConv2D(4, 3)
    plain.build((None, 6, 6, 4))
    assert direct.is_plain(plain, normal(2, 6, 6, 4), False)
