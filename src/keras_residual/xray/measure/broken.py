"""Where values that are not finite come from, for a report that has any: the batch, the weights, or a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._keras import get_keras_mask, set_keras_mask
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.stack import ResidualStack
from keras_residual.xray.find.discover import ReportedBlock
from keras_residual.xray.find.replaced import instead_of, without_recomputation
from keras_residual.xray.find.structure import CLOSED, distinct, is_functional, leaves
from keras_residual.xray.measure.loss import loss_scale

Numbers = dict[str, Any]


def broken_facts(program: Any, blocks: Sequence[Numbers], whole: Numbers) -> Numbers:
    """Returns where broken numbers come from, as far as there are any: `broken_weights`, `broken_arrays`, and so on.

    Args:
        program: The program that has run.
        blocks: The entries of the blocks.
        whole: The quantities of the whole.
    """
    weights = list(_broken_weights(program))
    if not weights and not _is_broken(blocks, whole):
        return {}
    given = [array for key in ("inputs", "targets", "sample_weights") for array in whole[key] if array["missing"]]
    arrays = [
        {
            "where": array["name"],
            "what": "NaN" if array["nan"] else "infinite values",
            "samples": array["missing"],
            "share": array["missing_share"],
        }
        for array in given
        if _is_broken(blocks, whole)
    ]
    places = program.recorder.places
    found: Numbers = {"broken_weights": weights, "broken_arrays": arrays, "broken_layer": None, "broken_gradient": None}
    if weights or arrays:
        return found
    model, given, training = program.model, program.given, program.training
    # Code of others is run in ways that it may not have been written for: without a layer there is still the block.
    with suppress(Exception):
        if math.isfinite(whole["loss"]):
            scale = loss_scale(model, program.dtype == "float16")
            found["broken_gradient"] = broken_gradient(model, given, program.loss, scale, training, places)
        else:
            found["broken_layer"] = broken_layer(model, given[0], training, places)
    return found


def _is_broken(blocks: Sequence[Numbers], whole: Numbers) -> bool:
    numbers = [whole["loss"], whole["gradient_norm_input"], whole["gradient_norm_output"]]
    numbers += [block[key] for block in blocks for key in ("power", "gradient_norm", "weight_gradient_norm")]
    numbers += [part["weight_gradient_norm"] for part in whole["outside"]]
    shares = (block[key] for block in blocks for key in ("nan", "inf", "gradient_nan"))
    return not all(number is None or math.isfinite(number) for number in numbers) or any(shares)


def _broken_weights(program: Any) -> Any:
    """Yields each variable that is not finite, with the block that holds it."""
    owners = {id(v): place.name for place in program.recorder.places for v, _ in place.weights}
    for variable, numbers in zip(program.weights, program.numbers["weights"], strict=True):
        if np.isfinite(numbers["norm"]).all():
            continue
        value = np.asarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")))
        broken = ~np.isfinite(value)
        if broken.any():
            yield {
                "owner": owners.get(id(variable), variable.path.rpartition("/")[0] or variable.name),
                "name": variable.path,
                "what": "NaN" if np.isnan(value).any() else "infinite",
                "count": int(broken.sum()),
                "size": int(value.size),
            }


_CLOSED = (*CLOSED, ResidualStack)


@dataclass(slots=True, eq=False)
class _Origin:
    operation: Any
    what: str
    share: float
    largest: float | None
    holds: list[Any] = field(default_factory=list)
    """The broken tensors that come of it, kept so that their identities stay theirs."""


class _Origins:
    """Follows broken values through the calls of layers: what breaks them, and what mends them again."""

    def __init__(self) -> None:
        self.origins: list[_Origin] = []

    def watched(self, operation: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*args: Any, **kwargs: Any) -> Any:
            before = list(self.origins)
            out = call(*args, **kwargs)
            given, made = _tensors((args, kwargs)), _tensors(out)
            states = [_state(tensor) for tensor in (*given, *made)]
            if made and None not in states:
                within = [one for one in self.origins if one not in before]
                self._judge(operation, given, made, states, within)
            return out

        return watch

    def _judge(
        self, operation: Any, given: list[Any], made: list[Any], states: list[Any], within: list[_Origin]
    ) -> None:
        came, went = states[: len(given)], states[len(given) :]
        broken_in = [tensor for tensor, state in zip(given, came, strict=True) if state[0]]
        broken_out = [(tensor, state) for tensor, state in zip(made, went, strict=True) if state[0]]
        source = next(
            (one for one in self.origins for tensor in broken_in if any(tensor is x for x in one.holds)), None
        )
        if broken_in and source is None:  # it came by way of an operation that is no layer
            source = self.origins[-1] if self.origins else None
        if not broken_out:
            # An infinite mask in front of a softmax, for one: nothing that lasts.
            self.origins = [one for one in self.origins if not broken_in or one is not source]
        elif (owner := within[0] if within else source) is not None:
            owner.holds += [tensor for tensor, _ in broken_out]
        elif not broken_in:
            what, share, _ = broken_out[0][1]
            largest = max((state[2] for state in came), default=None)
            self.origins.append(_Origin(operation, what, share, largest, [tensor for tensor, _ in broken_out]))


def _tensors(structure: Any) -> list[Any]:
    return [x for x in keras.tree.flatten(structure) if ops.is_tensor(x) and _is_float(x)]


def _is_float(x: Any) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


def _state(tensor: Any) -> tuple[str, float, float] | None:
    """Returns what is broken in a tensor, its share, and the largest size of the rest; None within a compiled loop."""
    try:
        array = np.asarray(ops.convert_to_numpy(ops.cast(ops.stop_gradient(tensor), "float32")))
    except Exception:  # the tensor of a trace, which has no values
        return None
    finite = np.isfinite(array)
    largest = float(np.abs(array[finite]).max()) if finite.any() else 0.0
    if finite.all():
        return "", 0.0, largest
    return "NaN" if np.isnan(array).any() else "infinite values", float(1 - finite.mean()), largest


def broken_layer(model: Any, x: Any, training: bool, places: Sequence[ReportedBlock]) -> dict[str, Any] | None:
    """Returns the layer that first breaks numbers, in a call of the model operation by operation; None for none.

    Args:
        model: The model.
        x: A batch of finite values.
        training: Whether the layers act as in training.
        places: The blocks of the report.
    """
    look = _Origins()
    with _watching(model, look.watched), _backend.keeping_random_state(), keras.StatelessScope():
        model(x, **_arguments(model, training))
    if not look.origins:
        return None
    origin = look.origins[0]
    named = _named(origin.operation, places)
    return named and {**named, "what": origin.what, "share": origin.share, "largest": origin.largest}


def broken_gradient(
    model: Any, given: tuple[Any, ...], loss: Any, scale: Any, training: bool, places: Sequence[ReportedBlock]
) -> dict[str, Any] | None:
    """Returns the layer that first hands back a gradient that is not finite; None for none.

    Args:
        model: The model.
        given: The batch, whose loss is finite.
        loss: The loss.
        scale: What the loss is multiplied by.
        training: Whether the layers act as in training.
        places: The blocks of the report.
    """
    calls: list[tuple[Any, list[int], list[int]]] = []

    def forward(probe: Any, given: Any) -> tuple[Any, Any]:
        calls.clear()
        count = 0

        def probed(structure: Any) -> tuple[Any, list[int]]:
            nonlocal count
            flat = keras.tree.flatten(structure)
            own = [i for i, x in enumerate(flat) if ops.is_tensor(x) and _is_float(x)]
            for i in own:
                mask = get_keras_mask(flat[i])
                flat[i] = flat[i] + probe(tuple(flat[i].shape), keras.backend.standardize_dtype(flat[i].dtype))
                if mask is not None:
                    set_keras_mask(flat[i], mask)
            count += len(own)
            return keras.tree.pack_sequence_as(structure, flat), list(range(count - len(own), count))

        def watched(operation: Any, call: Callable[..., Any]) -> Callable[..., Any]:
            def watch(*args: Any, **kwargs: Any) -> Any:
                (args, kwargs), came = probed((args, kwargs))
                out, went = probed(call(*args, **kwargs))
                calls.append((operation, came, went))
                return out

            return watch

        with _watching(model, watched):
            outputs = model(given[0], **_arguments(model, training))
        return loss(outputs, *given[1:]) * scale, ()

    def finish(outputs: Any, gradients: list[Any], _: list[Any]) -> Any:
        return [ops.all(ops.isfinite(gradient)) for gradient in gradients]

    with _backend.keeping_random_state():
        program = _backend.probed_gradients(forward, finish, [], distinct(model.variables))
        sound = [bool(ops.convert_to_numpy(one)) for one in program(given)]
    for operation, came, went in calls:
        if all(sound[i] for i in went) and not all(sound[i] for i in came):
            return _named(operation, places)
    return None


def _arguments(model: Any, training: bool) -> dict[str, Any]:
    return {"training": training} if model._call_has_training_arg else {}


@contextmanager
def _watching(model: Any, watched: Callable[[Any, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within the scope, each call of a layer or an operation in the model is what `watched` makes of it."""
    operations: list[Any] = list(_open_layers(model))
    operations += [op for layer in operations if is_functional(layer) for op in layer.operations]
    with ExitStack() as patched:
        patched.enter_context(without_recomputation(model))
        for operation in distinct(operations):
            patched.enter_context(instead_of(operation, "call", partial(watched, operation)))
        yield


def _named(operation: Any, places: Sequence[ReportedBlock]) -> dict[str, Any] | None:
    """Returns the block that holds an operation, and what to call the operation there."""
    block = _block_of(operation, places)
    if block is None and isinstance(operation, ResidualStack):
        return None  # which of its blocks it was, their own numbers say
    name = operation.name
    inside = "it" if block is None or block == name else f"its layer {name!r}"
    return {"where": name if block is None else block, "layer": inside}


def _open_layers(layer: Any) -> Iterator[Any]:
    """Yields a layer and those within it, but for what closed ones hold, which may be called in loops."""
    yield layer
    if not isinstance(layer, _CLOSED):
        for part in layer._layers:
            yield from _open_layers(part)


def _block_of(operation: Any, places: Sequence[ReportedBlock]) -> str | None:
    """Returns the name of the block that an operation is part of."""
    for place in places:
        if place.stack is None and any(operation is part for part in _parts(place)):
            return place.name
    return None


def _parts(place: ReportedBlock) -> Iterator[Any]:
    for operation in place.operations:
        yield operation
        if isinstance(operation, keras.Layer):
            yield from sublayers(operation)
            yield from leaves([operation])
