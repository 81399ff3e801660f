"""Layers in a row, as a branch has them: built with checks, and applied with what each one's `call` takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_residual.layers import direct
from keras_residual.layers.shapes import ATTENTION, Shape


def build(owner: str, argument: str, layers: Iterable[keras.Layer], shape: Shape, dtype: str) -> Shape:
    """Builds layers one after another and returns the shape of what comes out.

    Args:
        owner: The layer that has them, for messages.
        argument: The argument by which it got them, for messages.
        layers: The layers in order.
        shape: Shape of the input, with None for what is not known.
        dtype: Its dtype.

    Raises:
        ValueError: If one does not take one tensor and return one, or was built for another shape.
    """
    tensor = keras.KerasTensor(shape, dtype=dtype)
    for layer in layers:
        what = f"{owner}: `{argument}` has a layer, {layer.name!r} ({type(layer).__name__}), that"
        outputs = _symbolic_call(what, layer, tensor)
        if not isinstance(outputs, keras.KerasTensor):
            returned = "None" if outputs is None else f"a {type(outputs).__name__} of {len(outputs)}"
            raise ValueError(
                f"{owner}: `{argument}` must return one tensor, but its layer {layer.name!r} "
                f"({type(layer).__name__}) returned {returned}. Wrap it in one that returns the tensor to be merged."
            )
        tensor = outputs
    return tuple(tensor.shape)


def apply_all(
    parts: Iterable[keras.Layer], tensor: Any, training: bool | None, mask: Any, inner: Any
) -> tuple[Any, bool]:
    """Applies layers one after another.

    Args:
        parts: The layers.
        tensor: What the first gets.
        training: Whether they act as in training.
        mask: Mask that the first gets, or None.
        inner: Mask that the others get, or None.

    Returns:
        What the last makes, and whether nothing else has that, so that it may be written over.
    """
    owned = False
    for part in parts:
        outputs, kept = (None, False) if mask is not None else direct.applied(part, tensor, training, owned=owned)
        tensor, owned = (apply(part, tensor, training, mask), False) if outputs is None else (outputs, kept)
        mask = inner
    return tensor, owned


def apply(part: keras.Layer | float | None, tensor: Any, training: bool | None, mask: Any) -> Any:
    """Applies a layer with what its `call` takes, multiplies by a number, or does nothing."""
    if part is None:
        return tensor
    if not isinstance(part, keras.Layer):
        return tensor * part
    arguments: dict[str, Any] = {}
    # Given by hand, and not left to the call context, which `stateless_call` does not set up.
    if training is not None and part._call_has_training_arg:
        arguments["training"] = training
    if mask is not None and isinstance(part, ATTENTION):
        arguments |= {"query_mask": mask, "value_mask": mask}
    elif mask is not None and part._call_has_mask_arg and tensor.shape[: len(mask.shape)] == mask.shape:
        arguments["mask"] = mask
    return _call(part, tensor, **arguments)


def _call(layer: keras.Layer, tensor: Any, **arguments: Any) -> Any:
    return layer(tensor, tensor, **arguments) if isinstance(layer, ATTENTION) else layer(tensor, **arguments)


def _symbolic_call(what: str, layer: keras.Layer, tensor: keras.KerasTensor) -> Any:
    was_built, built_for = layer.built, (layer.get_build_config() or {}).get("input_shape")
    try:
        # A symbolic call builds any layer, also one that has no `build`, and checks its input.
        outputs = _call(layer, tensor)
        if was_built:
            # A layer with weights for another shape may only notice it in its `call`.
            keras.Operation.compute_output_spec(
                layer, *([tensor, tensor] if isinstance(layer, ATTENTION) else [tensor])
            )
    except Exception as error:
        if was_built:
            raise ValueError(
                f"{what} was already built for another input{f' {built_for}' if built_for else ''} and cannot take "
                f"one of shape {tuple(tensor.shape)}. Pass a new layer."
            ) from error
        raise ValueError(
            f"{what} cannot be called on one tensor of shape {tuple(tensor.shape)}, or does not return one tensor: "
            f"{error}"
        ) from error
    return outputs
