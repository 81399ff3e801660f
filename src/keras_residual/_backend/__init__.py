"""What Keras has no operation for, once a backend; the one folder that names JAX, PyTorch and TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

BACKEND = keras.backend.backend()

if TYPE_CHECKING or BACKEND == "jax":
    from keras_residual._backend import on_jax as _on
elif BACKEND == "torch":
    from keras_residual._backend import on_torch as _on
elif BACKEND == "tensorflow":
    from keras_residual._backend import on_tensorflow as _on
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
    return _on.scale(x, keras.ops.cast(forward, x.dtype), keras.ops.cast(backward, x.dtype))


def input_gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Returns the gradient of `function(x)` with respect to `x`, a tensor of the shape of `x`.

    Weights that the function assigns, such as a batch norm's moving averages in training, keep their values.

    Args:
        function: Takes a tensor and returns a scalar tensor, by operations of Keras.
        x: Array or tensor of any shape, of a float type.
    """
    # The scope takes what is assigned and is dropped.
    with keras.StatelessScope():
        return _on.gradient(function, keras.ops.convert_to_tensor(x))
