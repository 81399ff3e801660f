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
from keras_residual.xray.quantities.branch import shares
from keras_residual.xray.quantities.stream_gradient import ratio_of_ends, slope
from keras_residual.xray.quantities.table import LEAST_SAMPLES, samples_of
from keras_residual.xray.quantities.update_ratio import measured_update_ratio, update_ratio

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
    by_variable = _by_variable(weights, trained, found)
    optimizer = _optimizer(model)
    blocks, inputs, few = [], [], samples_of(facts) < LEAST_SAMPLES
    calls: dict[int, int] = {}
    for entry, (places, numbers) in enumerate(zip(recorder.order, found["seen"], strict=True)):
        for position, place in enumerate(places):
            own = _of_place(numbers, position, len(places))
            inputs.append(own["in"])
            depth = place.index if len(places) > 1 or place.stack is not None else None
            gradient = _gradient_at(gradients["blocks"].get(entry), depth, last=position == len(places) - 1)
            calls[id(place)] = calls.get(id(place), 0) + 1
            block = _block(place, own, gradient)
            if few:
                block["dead_units"] = None
            if not place.is_connection and id(place.operations[-1]) in normed:
                block["norm"] = ["post"]
            block["name"] += f":{calls[id(place)]}" if calls[id(place)] > 1 else ""
            block["shape"] = list(recorder.shapes[entry][1:])
            block["gradient_over_time"] = over_time.get(entry)
            block |= _weights_of(place.weights, by_variable, optimizer, facts.get("update_steps"))
            fingerprint = _fingerprint(place.weights, by_variable)
            block |= {"_fingerprint": fingerprint, "_owner": tuple((id(v), index) for v, index in place.weights)}
            blocks.append(block)
    _add_shares(recorder, found["seen"], blocks)
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

    return {
        "name": place.name,
        "kind": place.kind,
        "gradient_norm": None if gradient is None else _number(gradient["norm"]),
        "gradient_spread": None if gradient is None else _number(gradient["spread"]),
        "squared_mean": _number(behind.get("squared_mean")),
        "variance": _number(behind.get("variance")),
        "power": _number(behind.get("power")),
        "sample_cosine": _number(behind.get("sample_cosine")),
        "stream_collapse": _number(behind.get("stream_collapse")),
        "transport_gain": of_branch("transport_gain"),
        "double_stochasticity": of_branch("double_stochasticity"),
        "branch_variance": of_branch("branch_variance"),
        "branch_ratio": of_branch("branch_ratio"),
        "branch_cosine": None if place.kind == "concatenate" else of_branch("branch_cosine"),
        "dead_units": _part(branch["dead"], branch["units"]),
        "saturated_units": _part(branch["saturated"], branch["bounded"]),
        "nan": max(_number(behind.get("nan")) or 0.0, of_branch("branch_nan") or 0.0),
        "inf": max(_number(behind.get("inf")) or 0.0, of_branch("branch_inf") or 0.0),
        "underflow": of_branch("branch_underflow"),
        "gradient_nan": None if gradient is None else _number(gradient["nan"]),
        "gradient_underflow": None if gradient is None else _number(gradient["underflow"]),
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
            at_outputs.append(float(numbers["norm"]))
        elif kind == "unused":
            continue
        elif entry not in blocks:
            blocks[entry] = numbers
        else:  # one more row of a stack of several
            before = blocks[entry]
            blocks[entry] = {
                **{name: np.maximum(before[name], numbers[name]) for name in ("spread", "nan", "underflow")},
                "norm": np.hypot(before["norm"], numbers["norm"]),
            }
    return {"input": first, "blocks": blocks, "output": math.hypot(*at_outputs) if at_outputs else None}


def _over_time(recorder: Recorder, streams: list[Numbers]) -> dict[int, float]:
    """Returns, for each entry that is a recurrent layer, how much of the gradient comes to the end of its sequences."""
    pairs = zip(recorder.probes, streams, strict=True)
    return {
        entry + (kind == "stream"): float(numbers["over_time"])
        for (kind, entry), numbers in pairs
        if "over_time" in numbers
    }


def _gradient_at(numbers: Numbers | None, index: int | None, *, last: bool) -> Numbers | None:
    """Returns the numbers of one block; None where only the gradient behind the last of a stack is known."""
    if numbers is not None and index is not None and not np.ndim(numbers["norm"]):
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
    norm, gradient = math.sqrt(squares), math.sqrt(gradient_squares)
    step = None
    if steps:
        step = measured_update_ratio(math.sqrt(moved_squares), math.sqrt(before_squares), steps) if trained else None
    elif trained and optimizer is not None:
        step = update_ratio(gradient_norm=gradient, weight_norm=norm, size=int(size), **optimizer)
    return {
        "weight_norm": norm if trained else None,
        "weight_gradient_norm": gradient if trained else None,
        "weight_gradient_ratio": gradient / norm if trained and norm else None,
        "update_ratio": step,
        "update_size": None if step is None else step * norm / math.sqrt(size),
    }


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


def _add_shares(recorder: Recorder, seen: list[Numbers], blocks: list[Numbers]) -> None:
    powers = []
    for places, shape, numbers in zip(recorder.order, recorder.shapes, seen, strict=True):
        power = numbers.get("branch_power", np.zeros(len(places)))
        powers += [float(value) * math.prod(shape) for value in np.atleast_1d(power)]
    connections = [block["kind"] != "layer" for block in blocks]
    for block, share, connection in zip(blocks, shares(powers), connections, strict=True):
        block["share"] = share if connection else None


def _whole(
    model: Any,
    blocks: list[Numbers],
    inputs: list[Numbers],
    gradients: Numbers,
    found: Numbers,
    facts: Numbers,
    optimizer: Numbers | None,
) -> Numbers:
    norms = [block["gradient_norm"] for block in blocks]
    norms = [norm for norm in norms if norm is not None]
    first = gradients["input"]
    at_input = None if first is None else float(first["norm"])
    profile = norms if at_input is None else [at_input, *norms]
    powers = [block["power"] for block in blocks]
    before = inputs[0].get("power") if inputs else None
    signal = [float(before), *powers] if before is not None else powers
    alike = inputs[0].get("sample_cosine") if inputs else None
    weights = [block["weight_gradient_norm"] for block in blocks if block["weight_gradient_norm"] is not None]
    return {
        "name": model.name,
        "connections": sum(block["kind"] != "layer" for block in blocks),
        "parameters": int(model.count_params()),
        "loss": float(found["loss"]),
        "gradient_norm_input": at_input,
        "gradient_norm_output": gradients["output"],
        "sample_cosine_input": _number(alike),
        "power_input": _number(before),
        "gradient_ratio": ratio_of_ends(profile),
        "gradient_slope": slope(profile),
        "weight_gradient_ratio": ratio_of_ends(weights),
        "weight_gradient_slope": slope(weights),
        "signal_ratio": ratio_of_ends(signal[::-1]),
        "signal_slope": slope(signal),
        "learning_rate": None if optimizer is None else optimizer["learning_rate"],
        "learning_rate_scheduled": _is_scheduled(model),
        "optimizer": None if optimizer is None else optimizer["optimizer"],
        **facts,
    }
