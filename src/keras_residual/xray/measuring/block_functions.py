"""Each block as a function of what it receives, for what is asked of one block at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_residual._keras import Function
from keras_residual.residual.residual import Residual
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.single import Single
from keras_residual.xray.finding.discover import Target
from keras_residual.xray.finding.replay import Run

BlockFunction = Callable[[Any], Any]


def block_functions(target: Target, training: bool, runs: Mapping[int, Run]) -> list[BlockFunction | None]:
    """Returns a function of a tensor for each place of a target; None where there is no such function.

    There is none for a block of several streams, and for one whose branch depends on more than what the block receives.

    Args:
        target: What is watched.
        training: Whether the layers act as in training.
        runs: The run that each place in a layer of others was part of, by its identity.
    """
    operation = target.operation
    if isinstance(operation, ResidualStack):
        return _of_stack(operation, training)
    if target.calls:
        pairs = zip(target.places, target.merges, strict=True)
        return [_of_run(runs.get(id(place)), merge, training) for place, merge in pairs]
    if target.merges:
        return [_of_merge(merge, training) if not merge.shortcut else None for merge in target.merges]
    return [functools.partial(_call, operation, training)]


def _of_stack(stack: ResidualStack, training: bool) -> list[BlockFunction | None]:
    if not isinstance(stack.topology, Single):
        return [None] * (stack.depth * stack.per_block)
    unrolled = stack if stack.execution == "unrolled" else stack.with_execution("unrolled")
    functions: list[BlockFunction | None] = []
    for index, cell in enumerate(unrolled._blocks.cells):
        contexts = unrolled._contexts.of_block(index)
        for connection, context in zip(cell.connections, contexts, strict=True):
            told = {"depth_context": context} if isinstance(connection, Residual) else {}
            functions.append(functools.partial(_call, connection, training, **told))
    return functions


def _of_merge(merge: Any, training: bool) -> BlockFunction | None:
    try:
        graph = Function(merge.source, merge.output)
    except ValueError:  # the branch depends on another input of the model as well
        return None

    def apply(x: Any) -> Any:
        return graph._run_through_graph(x, operation_fn=lambda operation: functools.partial(_call, operation, training))

    return apply


def _of_run(run: Run | None, merge: Any, training: bool) -> BlockFunction | None:
    if run is None or merge.shortcut:
        return None
    return run.block_of(merge, lambda operation, *args, **kwargs: _call(operation, training, *args, **kwargs))


def _call(operation: Any, training: bool, /, *args: Any, **kwargs: Any) -> Any:
    if isinstance(operation, keras.Layer) and operation._call_has_training_arg:
        kwargs = {**kwargs, "training": training}
    return operation(*args, **kwargs)
