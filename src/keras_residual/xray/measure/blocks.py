"""The numbers of one run, sorted by block."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.variables import rank_in_block
from keras_residual.xray.find.discover import ReportedBlock, Weight
from keras_residual.xray.measure.recorder import Recorder
from keras_residual.xray.quantities import QUANTITIES, measured_of
from keras_residual.xray.quantities.quantity import samples_of
from keras_residual.xray.quantities.weights import WeightSums

Numbers = dict[str, Any]


def assemble(
    model: Any,
    recorder: Recorder,
    weights: Sequence[keras.Variable],
    trained: Sequence[keras.Variable],
    found: Numbers,
    facts: Numbers,
    normed: Collection[int],
) -> tuple[list[Numbers], Numbers]:
    """Returns the entries of the blocks, and the quantities of the whole model.

    Args:
        model: The model.
        recorder: What was watched, and in which order.
        weights: The variables of the places.
        trained: Those of them whose gradients were asked for.
        found: What came out of the program, as arrays.
        facts: What else is known of the run; `update_steps` is the number of steps over which the weights have moved.
        normed: Identities of the layers that a norm follows at once.
    """
    gradients = _gradients(recorder, found["streams"])
    over_time = _over_time(recorder, found["streams"])
    nothing_over_time = {quantity.key: None for quantity in measured_of("recurrent gradient")}
    by_variable = _by_variable(weights, trained, found)
    optimizer = _optimizer(model)
    blocks, inputs = [], []
    # What holds for each of a few samples may hold by chance.
    unknown = [quantity.key for quantity in QUANTITIES if samples_of(facts) < quantity.samples]
    calls: dict[int, int] = {}
    for entry, (places, numbers) in enumerate(zip(recorder.order, found["seen"], strict=True)):
        for position, place in enumerate(places):
            own = _of_place(numbers, position, len(places))
            inputs.append(own["in"])
            depth = place.index if len(places) > 1 or place.stack is not None else None
            gradient = _gradient_at(gradients["blocks"].get(entry), depth, last=position == len(places) - 1)
            calls[id(place)] = calls.get(id(place), 0) + 1
            block = _block(place, own, gradient)
            if not place.is_connection and id(place.operations[-1]) in normed:
                block["norm"] = ["post"]
            block["name"] += f":{calls[id(place)]}" if calls[id(place)] > 1 else ""
            block["shape"] = list(recorder.shapes[entry][1:])
            block |= over_time.get(entry, nothing_over_time)
            block |= _weights_of(place.weights, by_variable, optimizer, facts.get("update_steps"))
            block |= dict.fromkeys(unknown)
            fingerprint = _fingerprint(place.weights, by_variable)
            block |= {"_fingerprint": fingerprint, "_owner": tuple((id(v), index) for v, index in place.weights)}
            blocks.append(block)
    _add_across(recorder, found["seen"], blocks)
    _mark_duplicates(blocks)
    whole = _whole(model, blocks, inputs, gradients, found, facts, optimizer)
    held = {id(v) for place in recorder.places for v, _ in place.weights}
    # What a topology itself has to learn is of no layer, and may well begin without a gradient.
    held |= {id(v) for t in recorder.targets if isinstance(t.operation, ResidualStack) for v in t.operation.variables}
    others = [variable for variable in trained if id(variable) not in held]
    whole["outside"] = _outside(others, by_variable, optimizer, facts.get("update_steps"))
    return blocks, whole


# --- A block ---------------------------------------------------------------------------------------------------------


def _of_place(numbers: Numbers, position: int, count: int) -> dict[str, Numbers]:
    """Returns what was measured of one connection: in front of it, behind it, and in its branch."""
    stacked = any(np.ndim(value) for value in numbers.values())
    own = {name: value[position] if np.ndim(value) else value for name, value in numbers.items()}
    before = {name.removeprefix("in_"): value for name, value in own.items() if name.startswith("in_")}
    behind = {name.removeprefix("out_"): value for name, value in own.items() if name.startswith("out_")}
    if stacked and position + 1 < count:
        # What a connection of a stack hands on is what the next one receives.
        behind = {n.removeprefix("in_"): v[position + 1] for n, v in numbers.items() if n.startswith("in_")}
    rest = {n: v for n, v in own.items() if not n.startswith(("in_", "out_"))}
    return {"in": before, "out": behind, "branch": rest}


def _block(place: ReportedBlock, own: dict[str, Numbers], gradient: Numbers | None) -> Numbers:
    behind, branch = own["out"], own["branch"]
    connection = place.is_connection

    def of_branch(name: str) -> float | None:
        return _number(branch.get(name)) if connection else None

    block: Numbers = {"name": place.name, "kind": place.kind}
    for quantity in QUANTITIES:
        key = quantity.key
        match quantity.of:
            case "gradient":
                block[key] = None if gradient is None else _number(gradient[key])
            case "stream" | "streams":
                block[key] = _number(behind.get(key))
            case "values":
                block[key] = max(_number(behind.get(key)) or 0.0, of_branch(f"branch_{key}") or 0.0)
            case "branch":
                known = not (quantity.sums_only and place.kind == "concatenate")
                block[key] = of_branch(f"branch_{key}") if known else None
            case "transport" | "transports":
                block[key] = of_branch(key)
            case "units":
                block[key] = _part(branch[key], branch[f"{key}_of"])
    return {
        **block,
        "norm": list(place.norm),
        "maps": place.structure.maps,
        "activations": place.structure.nonlinear,
        "norms": place.structure.norms,
        "skip_scale": place.skip_scale,
        "scaled": place.scaled,
        "additive": place.additive,
        "projected": place.shape_changes,
        "multi_stream": place.multi_stream,
        "topology": None if place.stack is None else type(place.stack.topology).__name__,
        "frozen": place.frozen,
        "duplicate_of": None,
    }


def _part(count: Any, total: Any) -> float | None:
    return float(count / total) if total else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


# --- Gradients -------------------------------------------------------------------------------------------------------


def _gradients(recorder: Recorder, streams: list[Numbers]) -> dict[str, Any]:
    """Returns the numbers of the gradient at the input of the first block, behind each entry, and at the outputs."""
    first, at_outputs, blocks = None, [], {}
    for (kind, entry), numbers in zip(recorder.probes, streams, strict=True):
        if kind == "input":
            first = numbers
        elif kind == "output":
            at_outputs.append(float(numbers["gradient_norm"]))
        elif kind == "unused":
            continue
        elif entry not in blocks:
            blocks[entry] = numbers
        else:  # one more row of a stack of several
            before = blocks[entry]
            blocks[entry] = {
                quantity.key: quantity.rows(before[quantity.key], numbers[quantity.key])
                for quantity in measured_of("gradient")
            }
    return {"input": first, "blocks": blocks, "output": math.hypot(*at_outputs) if at_outputs else None}


def _over_time(recorder: Recorder, streams: list[Numbers]) -> dict[int, Numbers]:
    """Returns, for each entry that is a recurrent layer, what becomes of the gradient along its sequences."""
    found = {}
    for (kind, entry), numbers in zip(recorder.probes, streams, strict=True):
        own = {q.key: float(numbers[q.key]) for q in measured_of("recurrent gradient") if q.key in numbers}
        if own:
            found[entry + (kind == "stream")] = own
    return found


def _gradient_at(numbers: Numbers | None, index: int | None, *, last: bool) -> Numbers | None:
    """Returns the numbers of one block; None where only the gradient behind the last of a stack is known."""
    if numbers is not None and index is not None and not np.ndim(numbers["gradient_norm"]):
        return numbers if last else None
    return _at(numbers, index)


def _at(numbers: Numbers | None, index: int | None) -> Numbers | None:
    if numbers is None or index is None:
        return numbers
    return {name: value[index] if np.ndim(value) else value for name, value in numbers.items()}


# --- Weights ---------------------------------------------------------------------------------------------------------


def _by_variable(
    weights: Sequence[keras.Variable], trained: Sequence[keras.Variable], found: Numbers
) -> dict[int, Numbers]:
    numbers = {id(v): dict(n) for v, n in zip(weights, found["weights"], strict=True)}
    for variable, gradient in zip(trained, found["weight_gradients"], strict=True):
        numbers[id(variable)]["gradient"] = gradient
    for variable, moved in zip(trained, found["moved"], strict=bool(found["moved"])):
        numbers[id(variable)] |= moved
    return numbers


def _fingerprint(weights: Sequence[Weight], by_variable: dict[int, Numbers]) -> tuple[tuple[float, float], ...]:
    """Returns what two matrices have in common that are equal, for those whose entries are not all the same."""
    found = []
    for variable, index in weights:
        own = _at(by_variable.get(id(variable)), index)
        if not own or rank_in_block(variable) < 2:
            continue
        norm, total = float(own["norm"]), float(own["sum"])  # a float32 overflows where weights do not yet
        if total**2 < 0.999 * _entries(variable, index) * norm**2:
            found.append((norm, total))
    return tuple(found)


def _entries(variable: keras.Variable, index: int | None) -> int:
    return math.prod(variable.shape) // (variable.shape[0] if index is not None else 1)


def _outside(
    variables: Sequence[keras.Variable], by_variable: dict[int, Numbers], optimizer: Numbers | None, steps: int | None
) -> list[Numbers]:
    """Returns an entry for each layer whose weights are trained and belong to no block: the stem, the head."""
    layers: dict[str, list[Weight]] = {}
    for variable in variables:
        layers.setdefault(variable.path.rpartition("/")[0] or variable.name, []).append((variable, None))
    return [
        {
            "name": name,
            "matrix": any(len(variable.shape) > 1 for variable, _ in weights),
            **_weights_of(weights, by_variable, optimizer, steps),
        }
        for name, weights in layers.items()
    ]


def _weights_of(
    weights: Sequence[Weight], by_variable: dict[int, Numbers], optimizer: Numbers | None, steps: int | None
) -> Numbers:
    squares = gradient_squares = moved_squares = before_squares = size = 0.0
    trained = False
    for variable, index in weights:
        own = _at(by_variable.get(id(variable)), index)
        if own and "gradient" in own:
            trained = True
            squares += float(own["norm"]) ** 2
            gradient_squares += float(own["gradient"]) ** 2
            moved_squares += float(own.get("by", 0.0)) ** 2
            before_squares += float(own.get("from", 0.0)) ** 2
            size += _entries(variable, index)
    sums = WeightSums(
        trained=trained,
        norm=math.sqrt(squares),
        gradient=math.sqrt(gradient_squares),
        size=int(size),
        moved=math.sqrt(moved_squares),
        before=math.sqrt(before_squares),
        steps=steps or 0,
        optimizer=optimizer,
    )
    return {quantity.key: quantity.measure(sums) for quantity in measured_of("weights")}


def _optimizer(model: Any) -> Numbers | None:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    try:
        rate = float(np.asarray(ops.convert_to_numpy(optimizer.learning_rate)))
    except Exception:  # an optimizer of the user's own
        return None
    momentum = getattr(optimizer, "momentum", 0.0)
    return {
        "optimizer": type(optimizer).__name__,
        "learning_rate": rate,
        "momentum": momentum if isinstance(momentum, float) and 0 <= momentum < 1 else 0.0,
    }


def _is_scheduled(model: Any) -> bool:
    optimizer = getattr(model, "optimizer", None)
    rate = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", None)
    return isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)


def _mark_duplicates(blocks: list[Numbers]) -> None:
    """Names for each block the first one with the same weights in variables of its own."""
    seen: dict[Any, tuple[str, Any]] = {}
    for block in blocks:
        fingerprint, owner = block.pop("_fingerprint"), block.pop("_owner")
        if fingerprint:
            name, first = seen.setdefault(fingerprint, (block["name"], owner))
            block["duplicate_of"] = None if first == owner else name


# --- The whole -------------------------------------------------------------------------------------------------------


def _add_across(recorder: Recorder, seen: list[Numbers], blocks: list[Numbers]) -> None:
    """Adds what a block has only in comparison with all others."""
    for quantity in (quantity for quantity in measured_of("branch") if quantity.across is not None):
        values, sizes = [], []
        for places, shape, numbers in zip(recorder.order, recorder.shapes, seen, strict=True):
            own = np.atleast_1d(numbers.get(f"branch_{quantity.key}", np.zeros(len(places))))
            values += [float(value) for value in own]
            sizes += [math.prod(shape)] * len(own)
        for block, value in zip(blocks, quantity.across(values, sizes) if quantity.across else (), strict=True):
            block[quantity.key] = value if block["kind"] != "layer" else None


def _whole(
    model: Any,
    blocks: list[Numbers],
    inputs: list[Numbers],
    gradients: Numbers,
    found: Numbers,
    facts: Numbers,
    optimizer: Numbers | None,
) -> Numbers:
    first = gradients["input"]
    before = inputs[0].get("power") if inputs else None
    alike = inputs[0].get("sample_cosine") if inputs else None
    whole = {
        "name": model.name,
        "connections": sum(block["kind"] != "layer" for block in blocks),
        "parameters": int(model.count_params()),
        "loss": float(found["loss"]),
        "gradient_norm_input": None if first is None else float(first["gradient_norm"]),
        "gradient_norm_output": gradients["output"],
        "sample_cosine_input": _number(alike),
        "power_input": _number(before),
        "learning_rate": None if optimizer is None else optimizer["learning_rate"],
        "learning_rate_scheduled": _is_scheduled(model),
        "optimizer": None if optimizer is None else optimizer["optimizer"],
        **facts,
    }
    for quantity in measured_of("model"):
        whole[quantity.key] = quantity.measure(blocks, whole)
    return whole
