"""Copies of a graph in which some layers are replaced or left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_residual.graph.nodes import is_plain_graph
from keras_residual.surgery.copies import Copies
from keras_residual.surgery.plan import Group, ResidualPlan

# What makes the layer that stands for a group: from the group, the copies of its layers, the activation that was taken
# out of the last one, and the last one's dtype policy.
Connect = Callable[[Group, list[keras.Layer], Any, Any], keras.Layer]


def rewritten(model: Any, plan: ResidualPlan, copies: Copies, connect: Connect, path: str = "") -> Any:
    """Returns a new model of copies, in which a layer stands for each group.

    Args:
        model: A built Sequential or Functional model.
        plan: The groups, those in nested models too.
        copies: Makes the copies.
        connect: Makes the layer that stands for a group.
        path: Path of the model in the outermost one, with a slash at its end, or empty.
    """
    surgery = _Surgery(model, plan, copies, connect, path)
    renewed = surgery.sequential() if isinstance(model, keras.Sequential) else surgery.functional()
    copies.note_model(model, renewed)
    return renewed


class _Surgery:
    """One model's part of the work."""

    def __init__(self, model: Any, plan: ResidualPlan, copies: Copies, connect: Connect, path: str) -> None:
        self._model, self._plan, self._copies, self._connect, self._path = model, plan, copies, connect, path
        self._made: dict[int, Any] = {}
        self._passed: set[int] = set()
        self._connections: dict[int, keras.Layer] = {}
        by_name = {layer.name: layer for layer in model.layers}
        for group in plan:
            names = [name.rpartition("/")[2] for name in group.layers]
            if group.layers[0] == f"{path}{names[0]}":
                self._join(group, [by_name[name] for name in names])

    def _join(self, group: Group, layers: list[keras.Layer]) -> None:
        last, activation = layers[-1], None
        if group.activation is not None:
            activation = keras.activations.get(last.get_config()["activation"])
            self._made[id(last)] = self._copies.copy(last, activation="linear")
        branch = [self.copy(layer) for layer in layers]
        connection = self._connect(group, branch, activation, last.dtype_policy)
        self._passed |= {id(layer) for layer in branch[:-1]}
        self._connections[id(branch[-1])] = connection

    def copy(self, operation: Any) -> Any:
        """Returns the one copy of an operation of this model."""
        if id(operation) not in self._made:
            if is_plain_graph(operation):
                path = f"{self._path}{operation.name}/"
                copied = rewritten(operation, self._plan, self._copies, self._connect, path)
            else:
                copied = self._copies.copy(operation)
            self._made[id(operation)] = copied
        return self._made[id(operation)]

    def sequential(self) -> keras.Sequential:
        """Returns the model as a row of layers."""
        copied = [self.copy(layer) for layer in self._model.layers]
        kept = [self._connections.get(id(layer), layer) for layer in copied if id(layer) not in self._passed]
        return keras.Sequential([input_like(self._model.inputs[0]), *kept], name=self._model.name)

    def functional(self) -> keras.Model:
        """Returns the model as a graph."""

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if id(operation) in self._passed:
                return args[0]
            if id(operation) in self._connections:
                return self._connections[id(operation)](args[0])
            return operation(*args, **kwargs)

        return _cloned(self._model, self.copy, call)


def leaving_out(model: Any, copy: Callable[[Any], Any]) -> Any:
    """Returns a new model of copies without some of the layers, whose inputs go straight to their consumers.

    Args:
        model: A built Sequential or Functional model.
        copy: Returns the copy of a layer or an operation; for a layer of one tensor also another one that takes its
            place, or None to leave it out.
    """
    if isinstance(model, keras.Sequential):
        kept = [copied for copied in map(copy, model.layers) if copied is not None]
        return keras.Sequential([input_like(model.inputs[0]), *(kept or [keras.layers.Identity()])], name=model.name)
    passed: set[int] = set()
    others: set[int] = set()

    def clone(operation: Any) -> Any:
        copied = copy(operation)
        if copied is None:
            # Keras asks for a layer, and calls it by the function below.
            copied = keras.layers.Identity(name=operation.name)
            passed.add(id(copied))
        elif type(copied) is not type(operation):
            others.add(id(copied))
        return copied

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if id(operation) in passed:
            return args[0]
        return operation(args[0]) if id(operation) in others else operation(*args, **kwargs)

    return _cloned(model, clone, call)


def _cloned(model: Any, copy: Callable[[Any], Any], call: Callable[..., Any]) -> keras.Model:
    # A model that is not compiled on the same graph: Keras would compile the clone before it has its weights.
    graph = keras.Model(model.input, model.output, name=model.name)
    inputs = keras.tree.map_structure(input_like, model.input)
    return keras.models.clone_model(graph, input_tensors=inputs, clone_function=copy, call_function=call)


def input_like(tensor: Any) -> Any:
    """Returns an input of its own like that of a model."""
    layer = tensor._keras_history.operation
    return keras.Input(
        batch_shape=layer.batch_shape,
        dtype=layer.dtype,
        sparse=layer.sparse,
        name=layer.name,
        optional=layer.optional,
    )
