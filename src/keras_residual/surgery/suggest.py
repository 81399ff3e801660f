"""The choice of layers that get a shortcut, by the rule that ResNets follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_residual._arguments import whole_number
from keras_residual.graph.calls import Call, Graph
from keras_residual.graph.nodes import is_plain_graph
from keras_residual.surgery import roles
from keras_residual.surgery.connect import NoShortcut, shortcut_around
from keras_residual.surgery.models import SHORTCUTS, check_model
from keras_residual.surgery.plan import Group, ResidualPlan

# One layer that is counted, and what follows it until the next.
_Unit = list[Call]


def suggest_groups(model: Any, *, every: int = 2) -> ResidualPlan:
    """Returns the groups of layers around which `residualize` puts shortcuts, and the layers that it leaves alone.

    The rule, for each chain of layers in which each takes the output of only the one before it:

    1. Dense, convolutional, separable and depthwise layers count; norms, activations, dropout and noise belong to the
       one before them. Any other layer, such as pooling, flatten or an embedding, ends the chain.
    2. The first and the last layer that count between an input and an output of the model, its stem and its head, are
       left out.
    3. A group has `every` layers that count, at the end of a chain possibly fewer. If the shape changes within it and
       does not change back, it ends before the change, which then begins the next group.
    4. A group ends after the norm that follows its last layer; without one, before the activation that follows. An
       activation inside the last layer, as in `Dense(64, activation="relu")`, moves behind the sum.
    5. A chain that another path bypasses, such as the branch of a ResNet, is left alone, as is a layer that is called
       more than once.

    Args:
        model: A built Sequential or Functional model; models of these classes inside it are searched too.
        every: Number of counted layers in a group, at least 1; ResNet's basic block has 2, its bottleneck 3.

    Returns:
        The groups, all or some of which `residualize(groups=…)` takes, and the layers left alone with the reasons.

    Raises:
        ValueError: If the model is not a graph of layers.

    Example:
        >>> layers = [keras.layers.Dense(8, activation="relu", name=f"dense{i}") for i in range(6)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1, name="head")])
        >>> print(kr.suggest_groups(model))
        3 shortcuts:
          dense1_residual: dense1, dense2 → relu; identity, 8
          dense3_residual: dense3, dense4 → relu; identity, 8
          dense5_residual: dense5 → relu; identity, 8
        left alone:
          dense0: the first layer
          head: the last layer

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, section 3.3
    """
    every = whole_number("suggest_groups", "every", every)
    check_model("suggest_groups", model, **SHORTCUTS)
    groups: list[Group] = []
    left: list[tuple[str, str]] = []
    _look(model, "", every, groups, left, before=False, behind=False)
    return ResidualPlan(tuple(groups), tuple(left))


def group_of(graph: Graph, calls: list[Call], prefix: str, taken: set[str]) -> Group:
    """Returns the group of plain calls in a row.

    Args:
        graph: The model that they are in.
        calls: The calls.
        prefix: Path of that model in the outermost one, with a slash at its end, or empty.
        taken: Names that the connection may not have; the new one is added.

    Raises:
        NoShortcut: If none leads around them.
    """
    shortcut = shortcut_around(calls)
    # The outputs of a model go by the names of the layers that make them.
    named = not prefix and graph.is_returned(calls[-1])
    name = calls[-1].name if named else _free_name(f"{calls[0].name}_residual", taken)
    return Group(
        name=name,
        layers=tuple(f"{prefix}{call.name}" for call in calls),
        shortcut=shortcut,
        input_shape=calls[0].input_shape,
        output_shape=calls[-1].output_shape,
        activation=roles.inner_activation(calls[-1].operation),
    )


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def _look(
    model: Any,
    prefix: str,
    every: int,
    groups: list[Group],
    left: list[tuple[str, str]],
    *,
    before: bool,
    behind: bool,
) -> None:
    graph = Graph(model)
    have_before = graph.beyond(lambda call: roles.holds_a_map(call.operation), before=True)
    have_behind = graph.beyond(lambda call: roles.holds_a_map(call.operation), before=False)
    reasons: dict[int, str] = {}
    for call in graph.calls:
        if graph.is_shared(call):
            reasons[id(call)] = "called more than once"
        elif not roles.is_body(call.operation):
            reasons[id(call)] = f"no rule for {type(call.operation).__name__}"
        elif not call.plain:
            reasons[id(call)] = "called with arguments of its own"
        elif isinstance(call.operation, roles.MIXING):
            if not before and id(call) not in have_before:
                reasons[id(call)] = "the first layer"
            elif not behind and id(call) not in have_behind:
                reasons[id(call)] = "the last layer"
    found: dict[int, Group] = {}
    taken = set(graph.by_name)
    for chain in graph.chains():
        if graph.is_bypassed(chain):
            reasons |= {id(call): "another path leads around it" for call in chain if id(call) not in reasons}
            continue
        for row in _rows(chain, reasons):
            for window in _windows(row, every):
                calls = _until_the_end(window)
                try:
                    found[id(calls[0])] = group_of(graph, calls, prefix, taken)
                except NoShortcut as missing:
                    reasons |= {id(call): str(missing) for call in calls}
    for call in graph.calls:
        if id(call) in found:
            groups.append(found[id(call)])
        nested = is_plain_graph(call.operation)
        if nested and call is graph.by_name[call.name][0]:
            _look(
                call.operation,
                f"{prefix}{call.name}/",
                every,
                groups,
                left,
                before=before or id(call) in have_before,
                behind=behind or id(call) in have_behind,
            )
        elif id(call) in reasons and roles.holds_a_map(call.operation):
            entry = (f"{prefix}{call.name}", reasons[id(call)])
            if entry not in left:
                left.append(entry)


def _rows(chain: list[Call], reasons: dict[int, str]) -> Iterator[list[_Unit]]:
    """Yields rows of units; a call with a reason to be left alone ends one, as does the stem and what belongs to it."""
    row: list[_Unit] = []
    for call in chain:
        if id(call) in reasons:
            if row:
                yield row
            row = []
        elif isinstance(call.operation, roles.MIXING):
            row.append([call])
        elif row:
            row[-1].append(call)
    if row:
        yield row


def _windows(row: list[_Unit], every: int) -> Iterator[list[_Unit]]:
    start = 0
    while start < len(row):
        window = row[start : start + every]
        shortcut = _shortcut(_until_the_end(window))
        if shortcut is None and _shortcut(window[0][:1]) is None:
            window = window[:1]  # so that what follows it can still have one
        elif shortcut != "identity":
            window = window[: next((i for i, unit in enumerate(window) if i and _changes(unit)), len(window))]
        yield window
        start += len(window)


def _changes(unit: _Unit) -> bool:
    return _shortcut(unit[:1]) != "identity"


def _shortcut(calls: list[Call]) -> str | None:
    try:
        return shortcut_around(calls)
    except NoShortcut:
        return None


def _until_the_end(window: list[_Unit]) -> list[Call]:
    """Returns the calls of a group: all units, the last one without what stays after the group."""
    *units, (last, *tail) = window
    calls = [call for unit in units for call in unit]
    norms = [i for i, call in enumerate(tail) if isinstance(call.operation, roles.NORMS)]
    if norms:
        return [*calls, last, *tail[: norms[-1] + 1]]
    if roles.inner_activation(last.operation) is not None:
        return [*calls, last]
    activations = [i for i, call in enumerate(tail) if isinstance(call.operation, roles.ACTIVATIONS)]
    return [*calls, last, *(tail[: activations[0]] if activations else tail)]
