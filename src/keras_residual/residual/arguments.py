"""Checks of the arguments of `Residual`, made once, when the layer is created."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import keras

from keras_residual._arguments import number
from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual.residual.norms import NORMS
from keras_residual.residual.shapes import sublayers

NORM_POSITIONS: dict[str, tuple[str, ...]] = {
    "pre": ("pre",),
    "post": ("post",),
    "out": ("out",),
    "peri": ("pre", "out"),
}


def as_layers(owner: str, argument: str, value: Any) -> list[keras.Layer]:
    """Returns a layer or a list of layers as a list."""
    layers = list(value) if isinstance(value, (list, tuple)) else [value]
    if not layers:
        rule = "a layer or a list of at least one layer"
        raise bad_argument(owner, argument, rule, value, "For no change use Identity().")
    for layer in layers:
        if not isinstance(layer, keras.Layer):
            way_out = "Wrap a function in keras.layers.Lambda or, to be able to save it, in a layer of your own."
            raise wrong_type(owner, argument, "a Keras layer or a list of Keras layers", layer, way_out)
    return layers


def check_not_shared(owner: str, **given: Any) -> None:
    """Raises a `ValueError` if a layer is in two arguments, at any depth: its weights would serve two purposes."""
    seen: dict[int, str] = {}
    for argument, value in given.items():
        layers = value if isinstance(value, list) else [value] if _is_layer(value) else []
        inner = {id(part): part for layer in layers for part in sublayers(layer)}
        for part in inner.values():
            if id(part) in seen:
                raise ValueError(
                    f"{owner}: the layer {part.name!r} ({type(part).__name__}) is in `{seen[id(part)]}` and in "
                    f"`{argument}`. Each needs an instance of its own: make a second layer for `{argument}`."
                )
        seen |= dict.fromkeys(inner, argument)


def check_name_or_layer(owner: str, argument: str, value: Any, names: Mapping[str, Any] | Sequence[str]) -> None:
    """Accepts a layer or one of `names`."""
    if isinstance(value, str):
        if value not in names:
            raise unknown_name(owner, argument, value, names)
    elif not _is_layer(value):
        raise wrong_type(owner, argument, f"a Keras layer or one of {', '.join(names)}", value)


def check_scale(owner: str, argument: str, value: Any, names: Sequence[str]) -> None:
    """Accepts None, a finite number, a layer, or one of `names`."""
    if value is None or _is_layer(value):
        return
    if isinstance(value, str):
        if value not in names:
            raise unknown_name(owner, argument, value, names)
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_type(owner, argument, f"a number, a Keras layer or one of {', '.join(names)}", value)
    number(owner, argument, value, "a finite number")


def as_norm_positions(owner: str, norm: Any, position: Any) -> tuple[str, ...]:
    """Returns the positions of the norm, in the order of the formula; none without a norm."""
    if isinstance(position, str):
        if position not in NORM_POSITIONS:
            raise unknown_name(owner, "norm_position", position, NORM_POSITIONS)
        positions = NORM_POSITIONS[position]
    else:
        if not isinstance(position, (list, tuple)) or not position or len(set(position)) < len(position):
            rule = f"one of {', '.join(NORM_POSITIONS)}, or a sequence of pre, out and post, each at most once"
            raise bad_argument(owner, "norm_position", rule, position)
        positions = tuple(position)
        for place in positions:
            if place not in ("pre", "out", "post"):
                raise unknown_name(owner, "norm_position", str(place), ["pre", "out", "post"])
    if norm is None:
        if positions != ("pre",):
            way_out = "Pass norm=, for example norm='layer_norm'."
            raise bad_argument(owner, "norm_position", "left out where there is no norm", position, way_out)
        return ()
    check_name_or_layer(owner, "norm", norm, NORMS)
    return positions


def as_activation(owner: str, activation: Any) -> Callable[..., Any] | keras.Layer | None:
    """Returns the activation as a function or a layer; None for none."""
    if activation is None or _is_layer(activation):
        return activation
    if isinstance(activation, type) or not (callable(activation) or isinstance(activation, str)):
        raise wrong_type(owner, "activation", "a name, a function or a layer, and not a class", activation)
    if isinstance(activation, str):
        known = sorted(name for name in vars(keras.activations) if not name.startswith("_"))
        known = [name for name in known if name not in ("get", "serialize", "deserialize")]
        if activation not in known:
            raise unknown_name(owner, "activation", activation, known)
    return keras.activations.get(activation)


def _is_layer(value: Any) -> bool:
    return isinstance(value, keras.Layer)
