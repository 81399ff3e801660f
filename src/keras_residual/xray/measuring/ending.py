"""How a model ends: what its outputs are, and what its loss takes them for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_residual.xray.finding.structure import activation_of
from keras_residual.xray.measuring.loss import loss_takes, squares_or_sizes


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
        found["rms"] = ops.sqrt(ops.mean(ops.square(outputs)))
    return found


def ending_facts(last: Any, loss: Any, numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what the rules ask of a model's ending.

    Args:
        last: The last layer that was called.
        loss: The loss that was followed; None for none.
        numbers: What came of `ending_numbers`.
    """
    kind, takes = loss_takes(loss)
    return {
        "last_layer": last.name,
        "last_activation": activation_of(last),
        "cross_entropy": kind,
        "loss_takes": takes,
        "loss_is_distance": squares_or_sizes(loss),
        "classes": int(numbers["classes"]) if "classes" in numbers else None,
        "output_lowest": float(numbers["lowest"]) if "lowest" in numbers else None,
        "output_highest": float(numbers["highest"]) if "highest" in numbers else None,
        "output_off_one": float(numbers["off_one"]) if "off_one" in numbers else None,
        "output_rms": float(numbers["rms"]) if "rms" in numbers else None,
        "head_is_zero": "head" in numbers and float(numbers["head"]) == 0.0,
    }
