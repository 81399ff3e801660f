"""Convolutions that XLA runs fast on the CPU inside a loop too.

XLA brings the gradients of a convolution into the layout that its CPU kernels take only outside loops; inside one they
go to a naive kernel, tens of times slower (https://github.com/jax-ml/jax/issues/12868). The convolutions here are
written in that layout to begin with.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy
from jax import numpy as jnp


class _Window(NamedTuple):
    """How the kernel moves over the data; one entry a spatial dimension, except for `groups`."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


_stock = jax.lax.conv_general_dilated
_lock = threading.Lock()
_open = 0
_here = threading.local()


@contextlib.contextmanager
def canonical_convolutions() -> Iterator[None]:
    """Gives Keras's convolutions, traced by this thread within the context, gradients that are fast in a loop.

    Does nothing where the default device is not the CPU. Such a convolution has no forward-mode derivative.
    """
    if jax.default_backend() != "cpu":
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _open, _stock
    with _lock:
        if _open == 0:
            _stock = jax.lax.conv_general_dilated
            jax.lax.conv_general_dilated = _dispatch
        _open += 1
    _here.depth = getattr(_here, "depth", 0) + 1


def _leave() -> None:
    global _open
    _here.depth -= 1
    with _lock:
        _open -= 1
        if _open == 0:
            jax.lax.conv_general_dilated = _stock


def _dispatch(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **others: Any,
) -> Any:
    """Stands in for `jax.lax.conv_general_dilated`; other threads, and what is not ours, get the stock one."""
    ours = (
        getattr(_here, "depth", 0)
        and not any(others.values())
        and not (lhs_dilation and any(step != 1 for step in lhs_dilation))
        and lhs.dtype == rhs.dtype
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and lhs.size
        and rhs.size
    )
    if not ours:
        return _stock(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **others,
        )
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    batch, channels, *spatial = numbers.lhs_spec
    outputs, inputs, *taps = numbers.rhs_spec
    x = lhs.transpose(batch, *spatial, channels)
    kernel = rhs.transpose(*taps, inputs, outputs)
    strides = tuple(window_strides)
    dilation = tuple(rhs_dilation or (1,) * len(strides))
    if isinstance(padding, str):
        reach = [step * (size - 1) + 1 for step, size in zip(dilation, kernel.shape[:-2], strict=True)]
        padding = jax.lax.padtype_to_pads(x.shape[1:-1], reach, strides, padding)
    pairs = tuple((int(low), int(high)) for low, high in padding)
    y = _convolution(x, kernel, _Window(strides, pairs, dilation, feature_group_count))
    batch, channels, *spatial = numbers.out_spec
    back = [0] * y.ndim
    for position, axis in zip((batch, *spatial, channels), range(y.ndim), strict=True):
        back[position] = axis
    return y.transpose(back)


def _channels_last(rank: int) -> jax.lax.ConvDimensionNumbers:
    data = (0, rank + 1, *range(1, rank + 1))
    return jax.lax.ConvDimensionNumbers(data, (rank + 1, rank, *range(rank)), data)


def _plain(x: Any, kernel: Any, window: _Window, *, data_dilation: tuple[int, ...] | None = None) -> Any:
    """The stock convolution of channels-last data (N, ..., C) and a kernel (..., I, O)."""
    return _stock(
        x,
        kernel,
        window.strides,
        window.padding,
        data_dilation,
        window.dilation,
        _channels_last(x.ndim - 2),
        window.groups,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: Any, kernel: Any, window: _Window) -> Any:
    return _plain(x, kernel, window)


def _forward(x: Any, kernel: Any, window: _Window) -> tuple[Any, tuple[Any, Any]]:
    return _convolution(x, kernel, window), (x, kernel)


def _backward(window: _Window, kept: tuple[Any, Any], upstream: Any) -> tuple[Any, Any]:
    x, kernel = kept
    return _data_gradient(x, kernel, upstream, window), _kernel_gradient(x, kernel, upstream, window)


_convolution.defvjp(_forward, _backward)


def _data_gradient(x: Any, kernel: Any, upstream: Any, window: _Window) -> Any:
    *sizes, inputs, outputs = kernel.shape
    rank, groups = len(sizes), window.groups
    mirrored = jnp.flip(kernel, range(rank)).reshape(*sizes, inputs, groups, outputs // groups)
    mirrored = jnp.moveaxis(mirrored, rank, -1 if groups == 1 else rank + 2)
    mirrored = jnp.moveaxis(mirrored, rank, rank + 1).reshape(*sizes, outputs // groups, groups * inputs)
    padding = []
    for axis, size in enumerate(sizes):
        reach = window.dilation[axis] * (size - 1)
        low = reach - window.padding[axis][0]
        spread = (upstream.shape[axis + 1] - 1) * window.strides[axis] + 1
        padding.append((low, x.shape[axis + 1] + reach - spread - low))
    ones = (1,) * rank
    turned = _Window(ones, tuple(padding), window.dilation, groups)
    return _plain(upstream, mirrored, turned, data_dilation=window.strides)


def _kernel_gradient(x: Any, kernel: Any, upstream: Any, window: _Window) -> Any:
    *sizes, inputs, outputs = kernel.shape
    rank, groups = len(sizes), window.groups
    padding = []
    for axis, size in enumerate(sizes):
        low = window.padding[axis][0]
        last = window.dilation[axis] * (size - 1) + window.strides[axis] * (upstream.shape[axis + 1] - 1)
        padding.append((low, last + 1 - x.shape[axis + 1] - low))
    if groups == 1:
        turned = _Window(window.dilation, tuple(padding), window.strides, 1)
        found = _plain(
            x.transpose(rank + 1, *range(1, rank + 1), 0), upstream.transpose(*range(1, rank + 1), 0, rank + 1), turned
        )
        return found.transpose(*range(1, rank + 1), 0, rank + 1)
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)])
    x = x.reshape(*x.shape[:-1], groups, inputs)
    y = upstream.reshape(*upstream.shape[:-1], groups, outputs // groups)
    batch = x.shape[0]
    taps = []
    for tap in numpy.ndindex(*sizes):
        start = [d * t for d, t in zip(window.dilation, tap, strict=True)]
        stop = [b + s * (o - 1) + 1 for b, s, o in zip(start, window.strides, upstream.shape[1:-1], strict=True)]
        part = jax.lax.slice(x, [0, *start, 0, 0], [batch, *stop, groups, inputs], [1, *window.strides, 1, 1])
        taps.append(jnp.einsum("n...gi,n...go->igo", part, y).reshape(inputs, outputs))
    return jnp.stack(taps).reshape(kernel.shape)
