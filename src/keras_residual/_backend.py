"""What Keras has no operation for, once a backend; the one file that names JAX, PyTorch and TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

BACKEND = keras.backend.backend()

if BACKEND == "jax":
    import jax

    def _scale_alone(x: Any, forward: Any, backward: Any) -> Any:
        del backward
        return x * forward

    def _scale_forward(x: Any, forward: Any, backward: Any) -> tuple[Any, tuple[Any, Any]]:
        return x * forward, (forward, backward)

    def _scale_backward(factors: tuple[Any, Any], upstream: Any) -> tuple[Any, Any, Any]:
        forward, backward = factors
        return upstream * backward, jax.numpy.zeros_like(forward), jax.numpy.zeros_like(backward)

    _scale = jax.custom_vjp(_scale_alone)
    _scale.defvjp(_scale_forward, _scale_backward)

    def _gradient(function: Callable[[Any], Any], x: Any) -> Any:
        return jax.grad(function)(x)

elif BACKEND == "torch":
    import torch

    class _Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, forward: Any, backward: Any) -> Any:
            ctx.save_for_backward(backward)
            return x * forward

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None, None]:
            (backward,) = ctx.saved_tensors
            return grad_outputs[0] * backward, None, None

    _scale = _Scale.apply

    def _gradient(function: Callable[[Any], Any], x: Any) -> Any:
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(function(x), x)[0]

elif BACKEND == "tensorflow":
    import tensorflow as tf

    def _scale_with_gradient(x: Any, forward: Any, backward: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            return upstream * backward, tf.zeros_like(forward), tf.zeros_like(backward)

        return x * forward, gradient

    _scale = tf.custom_gradient(_scale_with_gradient)

    def _gradient(function: Callable[[Any], Any], x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

else:
    raise ImportError(
        f"keras-residual runs on the jax, torch and tensorflow backends of Keras, but the backend is {BACKEND!r}. "
        "Set the environment variable KERAS_BACKEND to one of them before Python starts."
    )


def scale_with_other_gradient(x: Any, forward: Any, backward: Any) -> Any:
    """Returns `x * forward`, whose gradient with respect to `x` is scaled by `backward` instead of `forward`.

    Args:
        x: Tensor of any shape.
        forward: Tensor that broadcasts to the shape of `x`. Its own gradient is 0.
        backward: Tensor that broadcasts to the shape of `x`. Its own gradient is 0.
    """
    return _scale(x, keras.ops.cast(forward, x.dtype), keras.ops.cast(backward, x.dtype))


def input_gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Returns the gradient of `function(x)` with respect to `x`, a tensor of the shape of `x`.

    Weights that the function assigns, such as a batch norm's moving averages in training, keep their values.

    Args:
        function: Takes a tensor and returns a scalar tensor, by operations of Keras.
        x: Array or tensor of any shape, of a float type.
    """
    # The scope takes what is assigned and is dropped.
    with keras.StatelessScope():
        return _gradient(function, keras.ops.convert_to_tensor(x))
