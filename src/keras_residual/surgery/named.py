"""Groups that the caller names, checked against the graph of the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import keras

from keras_residual._errors import did_you_mean, wrong_type
from keras_residual.graph.calls import Call, Graph
from keras_residual.surgery.connect import NoShortcut
from keras_residual.surgery.models import nested_models
from keras_residual.surgery.plan import Group, ResidualPlan
from keras_residual.surgery.suggest import group_of

_OWNER = "residualize"


def plan_of(model: Any, groups: Any) -> ResidualPlan:
    """Returns the plan of the groups that were asked for.

    Args:
        model: The model, which has been checked.
        groups: Groups of a plan, or sequences of layers or of their names.

    Raises:
        TypeError: If `groups` is something else.
        ValueError: If a shortcut cannot lead around one of them.
    """
    graphs = {path: Graph(inner) for path, inner in nested_models(model)}
    taken = {path: set(graph.by_name) for path, graph in graphs.items()}
    owners: dict[str, int] = {}
    planned = []
    for number, names in enumerate(_names(groups), start=1):
        for name in names:
            if name in owners:
                also = "in it twice" if owners[name] == number else f"in group {owners[name]} too"
                raise _refused(number, names, f"{name!r} is {also}")
            owners[name] = number
        path = names[0].rpartition("/")[0]
        path = f"{path}/" if path else ""
        if any(name.rpartition("/")[0] != path.rstrip("/") for name in names):
            raise _refused(number, names, "its layers are in different models")
        if path not in graphs:
            raise _refused(number, names, f"it contains no Functional or Sequential model {path[:-1]!r}")
        calls = [_call(graphs[path], number, names, name) for name in names]
        _check_row(graphs[path], number, names, calls)
        try:
            planned.append(group_of(graphs[path], calls, path, taken[path]))
        except NoShortcut as missing:
            raise _refused(number, names, str(missing)) from None
    return ResidualPlan(tuple(planned), groups.left_alone if isinstance(groups, ResidualPlan) else ())


def _names(groups: Any) -> list[tuple[str, ...]]:
    rule = "groups of suggest_groups, or sequences of names of layers in a row"
    if isinstance(groups, (str, Group)) or not isinstance(groups, Iterable):
        raise wrong_type(_OWNER, "groups", rule, groups, "For one group pass a list of one.")
    found = []
    for group in groups:
        given = group.layers if isinstance(group, Group) else group
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            raise wrong_type(_OWNER, "groups", rule, group)
        names = tuple(part.name if isinstance(part, keras.Layer) else part for part in given)
        if not all(isinstance(name, str) for name in names):
            raise wrong_type(_OWNER, "groups", rule, group)
        found.append(names)
    return found


def _call(graph: Graph, number: int, names: Sequence[str], path: str) -> Call:
    name = path.rpartition("/")[2]
    if name not in graph.by_name:
        raise _refused(number, names, f"there is no layer {name!r}.{did_you_mean(name, graph.by_name)}")
    call = graph.by_name[name][0]
    if not isinstance(call.operation, keras.Layer):
        kind = type(call.operation).__name__
        raise _refused(number, names, f"{name!r} is an operation ({kind}), and a branch consists of layers")
    if graph.is_shared(call):
        raise _refused(
            number, names, f"{name!r} is called {len(graph.by_name[name])} times, and a branch has one place"
        )
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        counts = f"{len(call.inputs)} tensors and makes {len(call.outputs)}"
        raise _refused(number, names, f"{name!r} takes {counts}, and a branch has one way through")
    if not call.plain:
        raise _refused(number, names, f"{name!r} is called with arguments beside its input")
    if getattr(call.operation, "stateful", False):
        raise _refused(number, names, f"{name!r} keeps state from batch to batch")
    return call


def _check_row(graph: Graph, number: int, names: Sequence[str], calls: list[Call]) -> None:
    for before, call in pairwise(calls):
        if call.inputs[0] is not before.outputs[0]:
            raise _refused(number, names, f"{call.name!r} does not take what {before.name!r} makes")
        if graph.following(before) is not call:
            takers = [f"{taker.name!r}" for taker in graph.consumers(before.outputs[0]) if taker is not call]
            who = ", ".join([*takers, *(["the output of the model"] if graph.is_returned(before) else [])])
            raise _refused(number, names, f"what {before.name!r} makes also goes to {who}")


def _refused(number: int, names: Sequence[str], reason: str) -> ValueError:
    shown = ", ".join(names) if len(names) < 4 else f"{names[0]}, …, {names[-1]}"
    end = "" if reason.endswith(".") else "."
    return ValueError(f"{_OWNER}: group {number} ({shown}) cannot have a shortcut: {reason}{end}")
