"""How a model ends: what its outputs are, and what its loss takes them for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.xray.finding.structure import activation_of, is_map

CROSS_ENTROPIES = (
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "sparse_categorical_crossentropy",
)


def loss_takes(loss: Any) -> tuple[str | None, str | None]:
    """Returns which cross-entropy a loss is, and whether it takes `"logits"` or `"probabilities"`; Nones for others.

    Args:
        loss: A loss of Keras, its name, a function, or None.
    """
    if loss is None or isinstance(loss, (dict, list, tuple)):
        return None, None
    found: Any = keras.losses.get(loss)
    name = getattr(getattr(found, "fn", found), "__name__", None)
    if name not in CROSS_ENTROPIES:
        return None, None
    return name, "logits" if getattr(found, "from_logits", False) else "probabilities"


def last_layer(model: Any) -> Any:
    """Returns the last layer of a model that holds none itself; the model where it has none inside."""
    inner = [layer for layer in model._flatten_layers() if not layer._layers]
    return inner[-1] if inner else model


def head_of(model: Any) -> list[keras.Variable]:
    """Returns the matrix of the last linear map of a model, if it is trained."""
    maps = [layer for layer in model._flatten_layers() if is_map(layer)]
    return [v for v in maps[-1].trainable_variables if len(v.shape) > 1][:1] if maps else []


def ending_numbers(outputs: Any, head: list[Any]) -> dict[str, Any]:
    """Returns the ends of the outputs' range, how far their sums are from 1, and the head's largest entry.

    Args:
        outputs: What the model returned; of anything but one tensor there are no numbers.
        head: The matrix of the last linear map, or nothing.
    """
    found: dict[str, Any] = {}
    if head:
        found["head"] = ops.max(ops.abs(ops.stop_gradient(head[0])))
    if hasattr(outputs, "shape") and len(outputs.shape) > 1:
        outputs = ops.cast(ops.stop_gradient(outputs), "float32")
        found |= {"lowest": ops.min(outputs), "highest": ops.max(outputs)}
        found["classes"] = ops.convert_to_tensor(outputs.shape[-1], "int32")
        total: Any = ops.sum(outputs, axis=-1)
        found["off_one"] = ops.max(ops.abs(total - 1.0))
    return found


def ending_facts(model: Any, loss: Any, numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what the rules ask of a model's ending.

    Args:
        model: The model.
        loss: The loss that was followed; None for none.
        numbers: What came of `ending_numbers`.
    """
    last = last_layer(model)
    kind, takes = loss_takes(loss)
    return {
        "last_layer": last.name,
        "last_activation": activation_of(last),
        "cross_entropy": kind,
        "loss_takes": takes,
        "classes": int(numbers["classes"]) if "classes" in numbers else None,
        "output_lowest": float(numbers["lowest"]) if "lowest" in numbers else None,
        "output_highest": float(numbers["highest"]) if "highest" in numbers else None,
        "output_off_one": float(numbers["off_one"]) if "off_one" in numbers else None,
        "head_is_zero": "head" in numbers and float(numbers["head"]) == 0.0,
    }
