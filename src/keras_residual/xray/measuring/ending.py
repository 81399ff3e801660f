"""How a model ends: what its outputs are, and what its loss takes them for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.xray.finding.patched import instead_of
from keras_residual.xray.finding.structure import activation_of, is_map
from keras_residual.xray.measuring.loss import is_any_crossentropy

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
    if loss is None or isinstance(loss, (dict, list, tuple)) or is_any_crossentropy(loss):
        return None, None
    found: Any = keras.losses.get(loss)
    name = getattr(getattr(found, "fn", found), "__name__", None)
    if name not in CROSS_ENTROPIES:
        return None, None
    return name, "logits" if getattr(found, "from_logits", False) else "probabilities"


class Called:
    """The layers of a model in the order in which they are called, which need not be that of its attributes.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._layers = list(model._flatten_layers())
        self.last: Any = None
        """The last layer that was called and called none itself."""
        self._last_map: Any = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the scope, each call of a layer is noted; those of an earlier one are forgotten."""
        self.last = self._last_map = None
        with ExitStack() as patched:
            for layer in self._layers:
                patched.enter_context(instead_of(layer, "call", partial(self._noting, layer)))
            yield

    def _noting(self, layer: Any, call: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.last = None
            out = call(*args, **kwargs)
            if self.last is None:
                self.last = layer
            if is_map(layer):
                self._last_map = layer
            return out

        return watched

    def head(self) -> list[keras.Variable]:
        """Returns the matrix of the last linear map that was called, if it is trained."""
        variables = self._last_map.trainable_variables if self._last_map is not None else []
        return [v for v in variables if len(v.shape) > 1][:1]


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
        "classes": int(numbers["classes"]) if "classes" in numbers else None,
        "output_lowest": float(numbers["lowest"]) if "lowest" in numbers else None,
        "output_highest": float(numbers["highest"]) if "highest" in numbers else None,
        "output_off_one": float(numbers["off_one"]) if "off_one" in numbers else None,
        "head_is_zero": "head" in numbers and float(numbers["head"]) == 0.0,
    }
