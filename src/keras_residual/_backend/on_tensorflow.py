"""The backend's primitives on TensorFlow; `keras_residual._backend` describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def _scale_with_gradient(x: Any, forward: Any, backward: Any) -> tuple[Any, Any]:
    def gradient(upstream: Any) -> tuple[Any, Any, Any]:
        return upstream * backward, tf.zeros_like(forward), tf.zeros_like(backward)

    return x * forward, gradient


scale = tf.custom_gradient(_scale_with_gradient)


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Returns the gradient of a scalar function."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)
