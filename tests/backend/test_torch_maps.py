"""Maps on PyTorch: nothing is copied, and a kernel stays what it was for all who have it."""

from __future__ import annotations

import copy

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("memory of PyTorch's tensors", allow_module_level=True)

import torch

from contract import assert_close, to_numpy
from keras_residual import _backend
from keras_residual.residual.symmetric_conv import SymmetricConv2D


def layer_and_maps(data_format: str = "channels_last") -> tuple[SymmetricConv2D, torch.Tensor]:
    layer = SymmetricConv2D(5, 3, strides=2, data_format=data_format)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6, 6, 6)).astype("float32"))
    layer.build(tuple(x.shape))
    return layer, x


@pytest.mark.parametrize(("data_format", "memory"), [("channels_last", True), ("channels_first", False)])
def test_a_kernel_is_laid_out_once_and_keeps_its_values(data_format: str, memory: bool) -> None:
    layer, x = layer_and_maps(data_format)
    parameter, before = layer.kernel.value, to_numpy(layer.kernel.value).copy()
    with torch.no_grad():
        y = layer(x)
    where = parameter.data_ptr()
    assert layer.kernel.value is parameter
    assert tuple(parameter.shape) == (3, 3, 6, 5)
    wanted = torch.channels_last if memory else torch.contiguous_format
    assert parameter.permute(3, 2, 0, 1).is_contiguous(memory_format=wanted)
    assert_close(parameter, before, 0)
    layer.set_weights([2 * weight for weight in layer.get_weights()])
    with torch.no_grad():
        assert_close(layer(x), 2 * y, 1e-6)
    assert parameter.data_ptr() == where
    layer(x)
    assert parameter.is_contiguous(), "an optimizer's tensors are"
    assert_close(parameter, 2 * before, 0)


def test_maps_stay_in_channels_last_memory() -> None:
    layer, x = layer_and_maps()
    y = layer(x)
    assert y.is_contiguous()
    assert _backend.max_pool(y, width=3, strides=2, data_format="channels_last").is_contiguous()


def test_a_kernel_laid_out_without_gradients_can_be_trained_afterwards() -> None:
    layer, x = layer_and_maps()
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.kernel.value.grad is not None


def test_a_kernel_that_processes_share_stays_where_it_is() -> None:
    layer, x = layer_and_maps()
    parameter = layer.kernel.value.share_memory_()
    where = parameter.data_ptr()
    with torch.no_grad():
        shared = to_numpy(layer(x))
    assert layer.kernel.value.data_ptr() == where
    other, _ = layer_and_maps()
    other.set_weights(layer.get_weights())
    assert_close(other(x), shared, 1e-6)


def test_a_copy_has_memory_of_its_own() -> None:
    layer, x = layer_and_maps()
    with torch.no_grad():
        layer(x)
    twin = copy.deepcopy(layer.kernel.value)
    assert twin.data_ptr() != layer.kernel.value.data_ptr()
    assert_close(twin, layer.kernel.value, 0)


def test_a_model_can_be_exported_and_traced() -> None:
    inputs = keras.Input((6, 6, 6))
    layer, x = layer_and_maps()
    model = keras.Model(inputs, layer(inputs))
    expected = to_numpy(model(x))
    program = torch.export.export(model, (x,))
    assert_close(program.module()(x), expected, 1e-6)
