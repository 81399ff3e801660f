"""The number whose gradient is followed: the user's loss, or one that looks into a random direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.trainers.compile_utils import CompileLoss

from keras_residual._errors import bad_argument

Loss = Callable[[Any, Any], Any]

FIRST_LOSS_SCALE = 2.0**15
"""What Keras's `LossScaleOptimizer` begins with."""


DIRECTION_SEED = 0x5872_6179


class _AsInTraining(CompileLoss):
    """What `fit` minimises apart from penalties: the losses of the outputs, weighted and summed.

    It keeps no mean of each loss over the batches, which is state that a program of several passes cannot have.
    """

    @property
    def metrics(self) -> list[Any]:
        """One for each loss, none of which is kept."""
        return [None] * len(self._flat_losses or ())


def loss_of(model: Any, loss: Any) -> tuple[Any, Any]:
    """Returns the loss that is followed where there are targets, and the weights of its parts; Nones for none.

    Args:
        model: The model; what it was compiled with is taken where `loss` is None.
        loss: As of `xray`.
    """
    if loss is not None:
        return loss, None
    compiled = getattr(model, "_compile_loss", None)
    if compiled is None:
        return getattr(model, "loss", None), None
    return compiled._user_loss, compiled._user_loss_weights


def loss_function(model: Any, y: Any, loss: Any) -> Loss:
    """Returns `(y, outputs) -> mean loss`, a scalar in float32.

    It is what Keras makes of the loss in training: one for each output, summed with the weights of `compile`, without
    what is masked, and with targets of shape `(batch,)` brought to outputs of `(batch, 1)`. Penalties, weights of
    samples and weights of classes are no part of it.

    Args:
        model: The model; the loss that it was compiled with is used where `loss` is None.
        y: Targets, or None. Then the loss is the outputs' component in one random direction, so that the gradient is
            that of a target about which nothing is known.
        loss: A loss of Keras, its name, a function of targets and outputs, a structure of these, or None.
    """
    if y is None:
        if loss is not None:
            raise bad_argument("xray", "y", "the targets that the loss needs", y)
        return lambda _, outputs: random_direction(outputs)
    loss, weights = loss_of(model, loss)
    if loss is None:
        raise bad_argument("xray", "loss", "given where targets are, or part of a compiled model", loss)
    for part in keras.tree.flatten(loss):
        if part is not None and not is_any_crossentropy(part):
            keras.losses.get(part)  # raises for what is no loss, before anything runs
    total: Any = _AsInTraining(loss, weights, output_names=getattr(model, "output_names", None))
    return lambda y, outputs: ops.mean(ops.cast(total(y, outputs), "float32"))


def is_any_crossentropy(loss: Any) -> bool:
    """Returns whether a loss is a name for the cross-entropy that suits targets and outputs."""
    return isinstance(loss, str) and loss.lower() in ("crossentropy", "ce")


def random_direction(outputs: Any) -> Any:
    """Returns the mean over the samples of `<r, output> / sqrt(size)`, with `r` drawn once from a normal distribution.

    Args:
        outputs: Structure of tensors, the batch first.
    """
    # Not a seed that somebody draws a batch with: a norm takes out the direction of its own input.
    rng = np.random.default_rng(DIRECTION_SEED)
    total: Any = ops.zeros((), "float32")
    for output in keras.tree.flatten(outputs):
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(output.dtype)):
            continue
        direction = rng.normal(size=tuple(output.shape)).astype("float32")
        size = max(direction.size // max(direction.shape[0], 1), 1)
        weighted: Any = ops.cast(output, "float32")
        weighted = weighted * ops.convert_to_tensor(direction)
        total = total + ops.sum(weighted) / (direction.shape[0] * size**0.5)
    return total


def loss_scale(model: Any, float16: bool) -> float:
    """Returns the factor that training puts on the loss, so that float16 holds its gradients; 1 for none.

    Args:
        model: The model.
        float16: Whether parts of it compute in float16.
    """
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = getattr(optimizer, "dynamic_scale", None)  # none before the first step
        return float(optimizer.initial_scale if scale is None else np.asarray(ops.convert_to_numpy(scale)))
    policy = getattr(getattr(model, "dtype_policy", None), "name", "")
    return FIRST_LOSS_SCALE if optimizer is None and float16 and policy == "mixed_float16" else 1.0
