"""Chains of layers, as in a branch: built with checks, and called with the arguments that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from numbers import Real
from typing import Any

import keras

from keras_residual._arguments import owner_of
from keras_residual._errors import did_you_mean
from keras_residual._types import Shape, Tensor
from keras_residual.residual import direct
from keras_residual.residual.shapes import ATTENTION, LIST_ATTENTION

Arguments = Mapping[str, Any]
"""Arguments of a call by name, other than its input, `training` and `mask`."""

_OWN = ("training", "mask", "depth_context", "return_attention_scores")


def argument_names(layers: Iterable[keras.Layer | None]) -> list[str]:
    """Returns the names of the arguments that the layers' calls take, other than one input, `training` and `mask`."""
    return list(dict.fromkeys(name for layer in layers if layer is not None for name in _names_of(layer)))


def arguments_for(layer: keras.Layer, arguments: Arguments) -> dict[str, Any]:
    """Returns the arguments that the layer's call takes and that are not None."""
    names = _names_of(layer) if arguments else ()
    return {name: arguments[name] for name in names if arguments.get(name) is not None}


def _names_of(layer: keras.Layer) -> list[str]:
    if isinstance(layer, keras.Model):
        return []  # it passes nothing to its layers
    kinds = layer._call_signature.parameters.items()
    named = [name for name, kind in kinds if kind.kind in (kind.POSITIONAL_OR_KEYWORD, kind.KEYWORD_ONLY)]
    pair = ["value", "key", "value_mask"] if isinstance(layer, LIST_ATTENTION) else []
    return [name for name in [*named[1:], *pair] if name not in _OWN]


def declare_arguments(holder: keras.Layer, layers: Iterable[keras.Layer]) -> None:
    """Lets the calls of a layer take, by name, the arguments of the calls of the layers within.

    Keras binds a call to the signature of `call`, and passes `build` the shape of each tensor that `build` names. Here
    both depend on the layers that the holder was given.

    Args:
        holder: A layer with `call(inputs, …, **arguments)` and `build(inputs_shape, **argument_shapes)`.
        layers: The layers in it.
    """
    names = argument_names(layers)
    for owner, attribute, suffix in ((holder, "_call_signature", ""), (holder.build, "__signature__", "_shape")):
        signature = inspect.signature(holder.build if suffix else holder.call)
        kept = [kind for kind in signature.parameters.values() if kind.kind is not kind.VAR_KEYWORD]
        added = [
            inspect.Parameter(name + suffix, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in names
            if name + suffix not in signature.parameters
        ]
        setattr(owner, attribute, signature.replace(parameters=[*kept, *added]))


def build(
    owner: str, argument: str, layers: Iterable[keras.Layer], shape: Shape, dtype: str, shapes: Arguments | None = None
) -> Shape:
    """Builds layers one after another and returns the shape of the output.

    Args:
        owner: The layer that holds them, for messages.
        argument: The argument that they were passed as, for messages.
        layers: The layers in order.
        shape: Shape of the input, with None for unknown sizes.
        dtype: Its dtype.
        shapes: Shapes of the arguments of calls, by the names that `build` has for them, such as `value_shape`.

    Raises:
        ValueError: If one does not take one tensor and return one, or was built for another shape.
    """
    tensor = keras.KerasTensor(shape, dtype=dtype)
    names = {name: name.removesuffix("_shape") for name in shapes or ()}
    arguments = {names[name]: _symbols(names[name], found, dtype) for name, found in (shapes or {}).items()}
    named: dict[str, list[keras.Layer]] = {}
    for layer in layers:
        what = f"{owner}: `{argument}` has a layer, {layer.name!r} ({type(layer).__name__}), that"
        alike = named.setdefault(layer.name, [])
        # Of two layers with one name, the second's weights get other paths: Keras identifies weights by path.
        with keras.name_scope(f"{layer.name}_{len(alike)}") if alike else nullcontext():
            outputs = _symbolic_call(what, layer, tensor, arguments)
        if layer not in alike:
            alike.append(layer)
        if not isinstance(outputs, keras.KerasTensor):
            returned = "None" if outputs is None else f"a {type(outputs).__name__} of {len(outputs)}"
            raise ValueError(
                f"{owner}: `{argument}` must return one tensor, but its layer {layer.name!r} "
                f"({type(layer).__name__}) returned {returned}. Wrap it in a layer that returns the one to be merged."
            )
        # Without its history: this call is not part of the graph of a model that contains the layer too.
        tensor = keras.KerasTensor(outputs.shape, dtype=outputs.dtype)
    return tuple(tensor.shape)


def _symbols(name: str, shapes: Any, dtype: str) -> Any:
    kind = "bool" if name.endswith("mask") else dtype
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, dtype=kind), shapes)


class ChainError(ValueError):
    """A layer of a chain cannot be called. The message names that layer, so layers around it pass it on unchanged."""


def check_arguments(layer: keras.Layer, arguments: Iterable[str]) -> None:
    """Raises a `TypeError` if a call is given an argument that no layer within takes."""
    known = layer._call_signature.parameters
    for name in arguments:
        if name not in known:
            offered = did_you_mean(name, [given for given in known if given != "depth_context"])
            raise TypeError(f"{owner_of(layer)}: its call takes no argument {name!r}, nor does a layer in it.{offered}")


def _check_given(what: str, layer: keras.Layer, inputs: list[Any], keywords: dict[str, Any]) -> None:
    for name, kind in list(layer._call_signature.parameters.items())[len(inputs) :]:
        by_name = kind.kind in (kind.POSITIONAL_OR_KEYWORD, kind.KEYWORD_ONLY)
        if by_name and kind.default is kind.empty and name not in keywords:
            raise ChainError(
                f"{what} needs the call argument {name!r}. Pass it by name where the connection or the stack is "
                f"called: layer(inputs, {name}=…)."
            )


def _symbolic_call(what: str, layer: keras.Layer, tensor: keras.KerasTensor, arguments: Arguments) -> Any:
    was_built, built_for = layer.built, (layer.get_build_config() or {}).get("input_shape")
    inputs, keywords = _call_arguments(layer, tensor, None, None, arguments)
    _check_given(what, layer, inputs, keywords)
    calls = len(layer._inbound_nodes)
    try:
        # A symbolic call builds any layer, even one without `build`, and checks its input.
        outputs = layer(*inputs, **keywords)
        if was_built:
            # A layer built for another shape may only notice in its `call`.
            keras.Operation.compute_output_spec(layer, *inputs, **keywords)
    except ChainError:
        raise
    except Exception as error:
        count = len(keras.tree.flatten(getattr(layer, "inputs", None) or [tensor]))
        if was_built and count > 1:
            raise ChainError(f"{what} takes {count} inputs, but gets one tensor.") from error
        if was_built:
            raise ChainError(
                f"{what} was already built for another input{f' {built_for}' if built_for else ''} and cannot take "
                f"one of shape {tuple(tensor.shape)}. Pass a new layer."
            ) from error
        raise ChainError(
            f"{what} cannot be called on one tensor of shape {tuple(tensor.shape)}, or does not return one tensor: "
            f"{error}"
        ) from error
    finally:
        # A model's configuration counts the calls of each layer.
        del layer._inbound_nodes[calls:]
    return outputs


class Caller:
    """Calls the parts of a connection one after another, each with the arguments that its `call` takes.

    A part is a layer, a list of layers in a row, a function, a number or a scalar tensor that `x` is multiplied by, or
    None, which returns `x`.

    Args:
        training: Whether layers act as in training; None leaves that to the call around this one.
        mask: Mask that the layers get, or None; may be changed between two calls.
        arguments: Further arguments of the layers' calls, by name.
    """

    def __init__(self, training: bool | None, mask: Any = None, arguments: Arguments | None = None) -> None:
        self.training = training
        self.mask = mask
        self.arguments = arguments or {}
        self._fresh: Any = None  # the last output, if nothing else refers to it

    def __call__(self, part: Any, x: Tensor) -> Any:
        """Returns `part(x)`."""
        if part is None:
            return x
        if isinstance(part, (list, tuple)):
            for layer in part:
                x = self(layer, x)
            return x
        is_fresh, self._fresh = self._fresh is x, None
        if isinstance(part, keras.Layer):
            if self.mask is None and direct.is_direct(part, x, self.training):
                y = direct.call(part, x, self.training, is_fresh)
                self._fresh = y if direct.makes_fresh(part) else None
                return y
            inputs, keywords = _call_arguments(part, x, self.training, self.mask, self.arguments)
            return part(*inputs, **keywords)
        if callable(part):
            return direct.activate(part, x, is_fresh)
        return x * (part if isinstance(part, Real) else keras.ops.cast(part, x.dtype))


def apply(part: Any, x: Tensor, training: bool | None, mask: Any = None, arguments: Arguments | None = None) -> Any:
    """Returns `part(x)`, for one part as `Caller` takes it."""
    return Caller(training, mask, arguments)(part, x)


def _call_arguments(
    layer: keras.Layer, tensor: Tensor, training: bool | None, mask: Any, arguments: Arguments
) -> tuple[list[Any], dict[str, Any]]:
    """Returns what a layer is called with: positional arguments and those by name."""
    # By hand, and not left to the call context, which `stateless_call` does not set up.
    training_given = {"training": training} if training is not None and layer._call_has_training_arg else {}
    if isinstance(tensor, list):  # what is merged
        return [tensor], training_given
    given = {**arguments_for(layer, arguments), **training_given}
    if isinstance(layer, ATTENTION):
        value = given.pop("value", tensor)
        if mask is not None:
            given["query_mask"] = mask
            if value is tensor:
                given["value_mask"] = mask
        return [tensor, value], given
    if isinstance(layer, LIST_ATTENTION):
        value, key = given.pop("value", tensor), given.pop("key", None)
        value_mask = given.pop("value_mask", mask if value is tensor else None)
        if mask is not None or value_mask is not None:
            given["mask"] = [mask, value_mask]
        return [[tensor, value] if key is None else [tensor, value, key]], given
    if mask is not None and layer._call_has_mask_arg and tensor.shape[: len(mask.shape)] == mask.shape:
        given["mask"] = mask
    return [tensor], given
