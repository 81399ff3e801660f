"""Convolutions that XLA runs fast on the CPU, even inside a loop.

XLA brings a convolution into the layout that its CPU kernels take (channels last) only outside loops; inside one, a
convolution in any other layout goes to a naive kernel, tens of times slower, and so do the gradients of every one
(https://github.com/jax-ml/jax/issues/12868). Here both are written in that layout to begin with.
`benchmarks/convolution_in_loop.py` has the numbers behind each choice. This file can go when XLA's own convolution in a
loop is as fast there as outside of it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from keras_residual._types import Tensor

# The CPU kernel is no slower with this many channels than with fewer, and there is one call of it for each block.
BLOCK_CHANNELS = 16
MOST_BLOCKS = 32  # each is an operation of its own, to be compiled

_stock = {"conv_general_dilated": jax.lax.conv_general_dilated, "conv_transpose": jax.lax.conv_transpose}
_lock = threading.Lock()
_contexts = 0  # open ones, of all threads
_here = threading.local()


@contextlib.contextmanager
def canonical_convolutions() -> Iterator[None]:
    """Makes convolutions that this thread traces within the context fast in a loop on the CPU, with their gradients.

    These are what Keras's layers make: every `jax.lax.conv_general_dilated` and `jax.lax.conv_transpose` of equal
    floating types. They have derivatives of any order in reverse mode, and none in forward mode. Other threads, other
    arguments and other devices get the stock ones.
    """
    if jax.default_backend() != "cpu":
        yield
        return
    _open()
    try:
        yield
    finally:
        _close()


def _open() -> None:
    global _contexts
    with _lock:
        if not _contexts:
            # Not those of the import: another library's stand-ins must be there again afterwards.
            for name in _stock:
                _stock[name] = getattr(jax.lax, name)
            jax.lax.conv_general_dilated = _conv_general_dilated
            jax.lax.conv_transpose = _conv_transpose
        _contexts += 1
    _here.contexts = getattr(_here, "contexts", 0) + 1


def _close() -> None:
    global _contexts
    _here.contexts -= 1
    with _lock:
        _contexts -= 1
        if not _contexts:
            for name, function in _stock.items():
                setattr(jax.lax, name, function)


class _Window(NamedTuple):
    """How the kernel moves over the data: an entry a spatial dimension.

    Attributes:
        strides: Steps from one output to the next.
        padding: Zeros before and after the data; less than none cuts.
        spread: Steps from one entry of the data to the next; zeros lie between (`lhs_dilation`).
        dilation: Steps from one tap of the kernel to the next (`rhs_dilation`).
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]
    dilation: tuple[int, ...]


def _conv_general_dilated(*args: Any, **kwargs: Any) -> Any:
    """Stands in for `jax.lax.conv_general_dilated`."""
    given = _arguments("conv_general_dilated", args, kwargs)
    lhs, rhs, groups = given.pop("lhs"), given.pop("rhs"), given.pop("feature_group_count")
    strides, padding, numbers = given.pop("window_strides"), given.pop("padding"), given.pop("dimension_numbers")
    spread, dilation = given.pop("lhs_dilation"), given.pop("rhs_dilation")
    plain = given.pop("batch_group_count") == 1 and not any(given.values())  # what remains asks for precisions
    plain = plain and not (spread and isinstance(padding, str))  # which JAX refuses
    if not (getattr(_here, "contexts", 0) and plain and _is_ours(lhs, rhs)):
        return _stock["conv_general_dilated"](*args, **kwargs)
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
    batch, channels, *spatial = numbers.lhs_spec
    outputs, inputs, *taps = numbers.rhs_spec
    if lhs.shape[channels] != groups * rhs.shape[inputs] or rhs.shape[outputs] % groups:
        return _stock["conv_general_dilated"](*args, **kwargs)  # which says what is wrong
    x = jnp.transpose(lhs, (batch, *spatial, channels))
    kernel = jnp.transpose(rhs, (*taps, inputs, outputs))
    ones = (1,) * len(spatial)
    spread, dilation = tuple(spread or ones), tuple(dilation or ones)
    if isinstance(padding, str):
        reach = [_extent(*pair) for pair in zip(kernel.shape[:-2], dilation, strict=True)]
        padding = jax.lax.padtype_to_pads(x.shape[1:-1], reach, strides, padding)
    pairs = tuple((int(before), int(after)) for before, after in padding)
    y = _grouped(x, kernel, _Window(tuple(strides), pairs, spread, dilation), groups)
    batch, channels, *spatial = numbers.out_spec
    order = (batch, *spatial, channels)  # where each axis of `y` goes
    return jnp.transpose(y, sorted(range(y.ndim), key=order.__getitem__))


def _conv_transpose(*args: Any, **kwargs: Any) -> Any:
    """Stands in for `jax.lax.conv_transpose`, which does not look up the stand-in of the other."""
    given = _arguments("conv_transpose", args, kwargs)
    lhs, rhs, strides, padding = given.pop("lhs"), given.pop("rhs"), given.pop("strides"), given.pop("padding")
    dilation, numbers = given.pop("rhs_dilation"), given.pop("dimension_numbers")
    plain = given.pop("transpose_kernel") and not any(given.values()) and not isinstance(padding, str)
    if not (getattr(_here, "contexts", 0) and plain and numbers is not None):
        return _stock["conv_transpose"](*args, **kwargs)
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
    outputs, inputs, *taps = numbers.rhs_spec
    turned = jnp.swapaxes(jnp.flip(rhs, taps), outputs, inputs)
    ones = (1,) * len(taps)
    return _conv_general_dilated(lhs, turned, ones, padding, strides, dilation, numbers)


def _arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(_stock[name]).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _is_ours(lhs: Any, rhs: Any) -> bool:
    return lhs.dtype == rhs.dtype and jnp.issubdtype(lhs.dtype, jnp.floating) and bool(lhs.size and rhs.size)


def _grouped(x: Tensor, kernel: Tensor, window: _Window, groups: int) -> Any:
    """Convolves (N, ..., groups * I) with (..., I, O): ordinary convolutions of blocks of several groups each.

    Zeros in the kernel keep the groups of a block apart. The kernel for groups that XLA has takes several times as
    long on the CPU, outside loops too: it is slowest where a group has one channel.
    """
    *sizes, inputs, outputs = kernel.shape
    blocks = _blocks(groups, inputs)
    if blocks == groups == 1:
        return _convolution(x, kernel, window)
    group = groups // blocks
    apart = jnp.eye(group, dtype=bool)[:, None, :, None]
    parts = []
    for data, taps in zip(jnp.split(x, blocks, -1), jnp.split(kernel, blocks, -1), strict=True):
        taps = jnp.where(apart, taps.reshape(*sizes, 1, inputs, group, outputs // groups), 0)
        parts.append(_convolution(data, taps.reshape(*sizes, group * inputs, outputs // blocks), window))
    return jnp.concatenate(parts, -1)


def _blocks(groups: int, inputs: int) -> int:
    """Returns into how many blocks of equal size to split the groups."""
    fitting = [
        count
        for count in range(1, min(groups, MOST_BLOCKS) + 1)
        if groups % count == 0 and groups // count * inputs >= BLOCK_CHANNELS
    ]
    return max(fitting, default=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: Tensor, kernel: Tensor, window: _Window) -> Any:
    """Convolves (N, ..., I) with (..., I, O)."""
    rank = x.ndim - 2
    data = (0, rank + 1, *range(1, rank + 1))
    layout = jax.lax.ConvDimensionNumbers(data, (rank + 1, rank, *range(rank)), data)
    return _stock["conv_general_dilated"](x, kernel, *window, layout)


def _forward(x: Tensor, kernel: Tensor, window: _Window) -> tuple[Any, tuple[Any, Any]]:
    return _convolution(x, kernel, window), (x, kernel)


def _backward(window: _Window, kept: tuple[Any, Any], upstream: Tensor) -> tuple[Any, Any]:
    x, kernel = kept
    if 0 in upstream.shape:  # no window fits, which XLA refuses
        return jnp.zeros_like(x), jnp.zeros_like(kernel)
    return _data_gradient(x, kernel, upstream, window), _kernel_gradient(x, kernel, upstream, window)


_convolution.defvjp(_forward, _backward)


def _data_gradient(x: Tensor, kernel: Tensor, upstream: Tensor, window: _Window) -> Any:
    """Convolves the upstream gradient with the kernel turned around."""
    rank = x.ndim - 2
    padding = []
    for axis in range(rank):
        reach = _extent(kernel.shape[axis], window.dilation[axis]) - 1
        before = reach - window.padding[axis][0]
        size = _extent(x.shape[1 + axis], window.spread[axis])
        padding.append((before, size + reach - before - _extent(upstream.shape[1 + axis], window.strides[axis])))
    turned = jnp.swapaxes(jnp.flip(kernel, range(rank)), -1, -2)
    return _convolution(upstream, turned, _Window(window.spread, tuple(padding), window.strides, window.dilation))


def _kernel_gradient(x: Tensor, kernel: Tensor, upstream: Tensor, window: _Window) -> Any:
    """Convolves the data with the upstream gradient, the batch being the channels of both."""
    rank = x.ndim - 2
    ones = (1,) * rank
    if kernel.shape[:-2] == window.spread == ones and not any(map(any, window.padding)):
        # One tap: a plain product of matrices, which spares the transpositions.
        seen = x[(slice(None), *(slice(None, None, step) for step in window.strides))]
        every = tuple(range(rank + 1))
        return jnp.tensordot(seen, upstream, (every, every)).reshape(kernel.shape)
    padding = []
    for axis in range(rank):
        before = window.padding[axis][0]
        needed = (
            _extent(kernel.shape[axis], window.dilation[axis])
            + _extent(upstream.shape[1 + axis], window.strides[axis])
            - 1
        )
        padding.append((before, needed - before - _extent(x.shape[1 + axis], window.spread[axis])))
    spatial = range(1, rank + 1)
    found: Any = _convolution(
        jnp.transpose(x, (rank + 1, *spatial, 0)),
        jnp.transpose(upstream, (*spatial, 0, rank + 1)),
        _Window(window.dilation, tuple(padding), window.spread, window.strides),
    )
    return jnp.transpose(found, (*spatial, 0, rank + 1))


def _extent(entries: int, step: int) -> int:
    """Returns how many positions `entries` take that lie `step` apart."""
    return (entries - 1) * step + 1
