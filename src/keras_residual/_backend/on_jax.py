"""The backend's primitives on JAX; `keras_residual._backend` describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def _scale_alone(x: Any, forward: Any, backward: Any) -> Any:
    del backward
    return x * forward


def _scale_forward(x: Any, forward: Any, backward: Any) -> tuple[Any, tuple[Any, Any]]:
    return x * forward, (forward, backward)


def _scale_backward(factors: tuple[Any, Any], upstream: Any) -> tuple[Any, Any, Any]:
    forward, backward = factors
    return upstream * backward, jax.numpy.zeros_like(forward), jax.numpy.zeros_like(backward)


scale = jax.custom_vjp(_scale_alone)
scale.defvjp(_scale_forward, _scale_backward)


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Returns the gradient of a scalar function."""
    return jax.grad(function)(x)
