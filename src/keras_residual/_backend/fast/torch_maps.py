"""Maps on PyTorch without copies: a channels-last map of Keras is, turned, a map in PyTorch's channels-last memory.

Keras 3.15 copies each map that it convolves or pools to channels-first memory, convolutions copy it back, and copy the
kernel too; its batch norm is eight operations. `benchmarks/inference.py` has what that costs. This file can go when the
oldest Keras that is allowed copies neither maps nor kernels: https://github.com/keras-team/keras/issues/23279 (closed),
https://github.com/keras-team/keras/issues/23649 and https://github.com/keras-team/keras/issues/21481 (open).
"""

from __future__ import annotations

from typing import Any, cast

import keras
import torch
from torch.nn import functional

from keras_residual._types import Tensor

HAS_BATCH_NORM = True

_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def convolve(x: Tensor, kernel: Tensor, *, strides: int, dilation: int, data_format: str) -> Tensor:
    """Returns the convolution with zeros on each side."""
    last = data_format == "channels_last"
    memory: Any = torch.channels_last if last else torch.contiguous_format
    maps = x.permute(_TO_FIRST) if last else x
    if isinstance(kernel, keras.Variable):
        _lay_out(kernel._value, memory)
        kernel = kernel.value
    weight = kernel.permute(3, 2, 0, 1).contiguous(memory_format=memory)
    padding = dilation * (kernel.shape[0] // 2)
    groups = maps.shape[1] // weight.shape[1]
    y = functional.conv2d(maps, weight, None, strides, padding, dilation, groups)
    return y.permute(_TO_LAST) if last else y


def _lay_out(kernel: Tensor, memory: Any) -> None:
    """Reorders a kernel's memory to that in which convolutions read it, or back while it is trained.

    An optimizer's tensors are in Keras's order: each of its operations on a kernel in another order is slow.
    """
    # A parameter and nothing in its place: no tensor of a trace, none spread over devices, none of other processes.
    if type(kernel) is not torch.nn.Parameter or type(kernel.data) is not torch.Tensor:
        return
    if kernel.ndim != 4:  # all blocks' of a scanned stack, of which one block's is read
        return
    trained = torch.is_grad_enabled() and kernel.requires_grad
    weight = kernel.data if trained else kernel.data.permute(3, 2, 0, 1)
    memory = torch.contiguous_format if trained else memory
    if kernel.is_meta or weight.is_contiguous(memory_format=memory):
        return
    if cast(Any, torch.jit).is_tracing() or torch.compiler.is_compiling():
        return
    if kernel.device.type == "cpu" and kernel.is_shared():
        return
    with torch.inference_mode(False):
        ordered = weight.contiguous(memory_format=memory)
        kernel.data = ordered if trained else ordered.permute(2, 3, 1, 0)


def max_pool(x: Tensor, *, width: int, strides: int, data_format: str) -> Tensor:
    """Returns the maxima over windows."""
    if data_format != "channels_last":
        return functional.max_pool2d(x, width, strides, width // 2)
    return functional.max_pool2d(x.permute(_TO_FIRST), width, strides, width // 2).permute(_TO_LAST)


def normalize(
    x: Tensor, mean: Tensor, variance: Tensor, *, gamma: Tensor, beta: Tensor, epsilon: float, axis: int
) -> Tensor:
    """Returns the maps, normalized by the given statistics."""
    mean, variance, gamma, beta = _in_precision(x, mean, variance, gamma, beta)
    maps, back = _channels_second(x, axis)
    return back(functional.batch_norm(maps, mean, variance, gamma, beta, False, 0.0, epsilon))


def normalize_by_batch(x: Tensor, *, gamma: Tensor, beta: Tensor, epsilon: float, axis: int) -> tuple[Any, Any, Any]:
    """Returns the maps, normalized by their mean and variance, and these two."""
    gamma, beta = _in_precision(x, gamma, beta)
    maps, back = _channels_second(x, axis)
    # Not `functional.batch_norm`, whose variance is the unbiased one.
    y, mean, inverse = torch.native_batch_norm(maps, gamma, beta, None, None, True, 0.0, epsilon)
    mean, inverse = mean.detach(), inverse.detach()
    return back(y), mean, torch.clamp_min(inverse**-2 - epsilon, 0.0)


def is_eager_torch(x: Tensor) -> bool:
    """Returns whether `x` is a plain tensor, and not a stand-in such as a traced one."""
    return type(x) is torch.Tensor and not x.is_meta


def has_hooks(layer: Any) -> bool:
    """Returns whether there are hooks on the module or on all modules."""
    own = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    of_all = torch.nn.modules.module  # its function for this is newer than the oldest PyTorch that is allowed
    return bool(
        own
        or of_all._global_forward_hooks
        or of_all._global_forward_pre_hooks
        or of_all._global_backward_hooks
        or of_all._global_backward_pre_hooks
    )


def relu_in_place(x: Tensor) -> Tensor:
    """Returns `max(x, 0)`, in the memory of `x` where no gradient can be asked for."""
    return torch.relu(x) if torch.is_grad_enabled() else x.relu_()


def _in_precision(x: Tensor, *variables: Any) -> list[Any]:
    """Returns the values of variables in float32, or in float64 where `x` is."""
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    return [None if variable is None else variable.value.to(dtype) for variable in variables]


def _channels_second(x: Tensor, axis: int) -> tuple[Any, Any]:
    """Returns maps with the channels in axis 1, and the function that moves them back."""
    if axis == 1 or x.ndim == 2:
        return x, lambda y: y
    if x.ndim == 4:
        return x.permute(_TO_FIRST), lambda y: y.permute(_TO_LAST)
    maps = x.reshape(x.shape[0], -1, 1, x.shape[-1]).permute(_TO_FIRST)
    return maps, lambda y: y.permute(_TO_LAST).reshape(x.shape)
