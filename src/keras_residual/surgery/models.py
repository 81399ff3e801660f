"""The models that surgery accepts, and the reasons why it refuses others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_residual._errors import bad_argument
from keras_residual.graph.nodes import is_plain_graph
from keras_residual.residual.shapes import sublayers

SHORTCUTS = {"first": "Put the shortcuts in first, train", "instead": "put kr.Residual into the code of the model"}
"""What `check_model` says to those who want shortcuts."""

_RULE = "a built Sequential or Functional model"


def check_model(owner: str, model: Any, *, first: str, instead: str) -> None:
    """Refuses models that are not graphs of layers, quantised layers, and weights that two layers share.

    Args:
        owner: The function that was called, for messages.
        model: The argument to check.
        first: What the function does, as an imperative: it must precede quantisation.
        instead: What to do by hand if it cannot be called, as an imperative.

    Raises:
        ValueError: With the reason and the way out.
    """
    if not isinstance(model, keras.Model):
        raise bad_argument(owner, "model", _RULE, model)
    if not is_plain_graph(model):
        functional = getattr(model, "inputs", None) and getattr(model, "outputs", None)
        way_out = (
            "Methods of its own would be lost. For the graph alone pass keras.Model(model.inputs, model.outputs)."
            if functional
            else f"Its call is Python code, not a graph. {instead[0].upper()}{instead[1:]}."
        )
        raise bad_argument(owner, "model", f"{_RULE}, not of a subclass", model, way_out)
    if not getattr(model, "outputs", None):
        raise bad_argument(
            owner, "model", _RULE, model, "Begin it with keras.Input(shape), or call model.build(shape)."
        )
    _check_layers(owner, model, first, instead)


def nested_models(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a model and those inside it, each with its path, which is empty or ends with a slash."""
    yield path, model
    for layer in model.layers:
        if is_plain_graph(layer):
            yield from nested_models(layer, f"{path}{layer.name}/")


def compile_like(model: Any, renewed: Any) -> None:
    """Compiles a new model like the original; warns if that cannot be copied.

    Args:
        model: The original model.
        renewed: The new one.
    """
    if not model.compiled:
        return
    try:
        renewed.compile_from_config(model.get_compile_config())
    except Exception as error:
        warnings.warn(
            f"The new {model.name!r} is not compiled, since the original's compilation cannot be copied: {error}",
            stacklevel=3,
        )


def _check_layers(owner: str, model: Any, first: str, instead: str) -> None:
    holders: dict[int, str] = {}
    for path, inner in nested_models(model):
        for layer in inner.layers:
            if is_plain_graph(layer):
                continue
            place = f"{path}{layer.name}"
            quantised = next((part for part in sublayers(layer) if part.quantization_mode is not None), None)
            if quantised is not None:
                inside = "" if quantised is layer else f", in {quantised.name!r},"
                raise ValueError(
                    f"{owner}: {place!r} is quantised{inside} to {quantised.quantization_mode}, and only float "
                    f"layers can be copied. {first}, and quantise then."
                )
            for weight in layer.weights:
                holder = holders.setdefault(id(weight), place)
                if holder != place:
                    raise ValueError(
                        f"{owner}: {holder!r} and {place!r} share the weight {weight.path!r}. Copies of them would "
                        f"have one each. Use the layer in one place, or {instead}."
                    )
