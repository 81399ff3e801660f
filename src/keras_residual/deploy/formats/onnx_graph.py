"""An ONNX graph in the form in which ONNX Runtime can fuse most of it: same answers, sooner. Nothing depends on it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from keras_residual._optional import require

_OF_NUMBERS = frozenset({
    "Abs", "Add", "Cast", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Max", "Min", "Mish", "Mul", "Neg", "Pow", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Tanh", "Where",
})  # fmt: skip
"""Operations of each number by itself, or of those in the same place."""


def rearrange(graph: Any) -> None:
    """Puts a graph into the form in which ONNX Runtime can fuse most of it; its answers stay the same.

    Args:
        graph: An ONNX graph, which is changed; one with loops or branches stays as it is.
    """
    if not any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        sink_transposes(graph)
        add_instead_of_subtracting(graph)


def sink_transposes(graph: Any) -> None:
    """Moves each Transpose behind operations of single numbers, and out where a reduction over other axes does as well.

    `add(transpose(x), transpose(y))` becomes `transpose(add(x, y))`, and `mean(transpose(x))` the mean of `x` over the
    axes that these were. ONNX Runtime leaves some of them in, and then cannot fuse what comes after with the
    convolution before.

    Args:
        graph: An ONNX graph, which is changed.
    """
    onnx = require("onnx", extra="export")
    to_array = onnx.numpy_helper.to_array  # makes a copy, so of those alone that are moved
    constants = {constant.name: constant for constant in graph.initializer}
    users = Counter([name for node in graph.node for name in node.input] + [output.name for output in graph.output])
    held: dict[str, Any] = {}  # by its output, each Transpose with one user that is not among the nodes yet
    nodes: list[Any] = []

    def constant(name: str, array: np.ndarray) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def place(transpose: Any) -> None:
        name = transpose.output[0]
        if users[name] == 1 and _order(transpose):
            held[name] = transpose
        else:
            nodes.append(transpose)

    for node in graph.node:
        output = node.output[0] if node.output else ""
        fixed = [constants[name] for name in node.input if name in constants]
        orders = {_order(held.get(name)) for name in node.input if name and name not in constants}
        order = orders.pop() if len(orders) == 1 else ()
        after = None
        if order and node.op_type in _OF_NUMBERS and all(len(each.dims) <= len(order) for each in fixed):
            for position, name in enumerate(node.input):
                if name in held:
                    node.input[position] = held.pop(name).input[0]
                elif name and math.prod(constants[name].dims) > 1:  # Clip takes its bounds as scalars only
                    array = to_array(constants[name])
                    array = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
                    node.input[position] = constant(f"{output}/{position}", array.transpose(np.argsort(order)))
            node.output[0] = f"{output}/before"
            after = onnx.helper.make_node("Transpose", [node.output[0]], [output], perm=order)
        elif order and node.op_type.startswith("Reduce") and len(fixed) == 1 and not _attribute(node, "keepdims", 1):
            axes = {int(axis) % len(order) for axis in to_array(fixed[0])}
            left = [source for position, source in enumerate(order) if position not in axes]
            if axes and left == sorted(left):
                node.input[0] = held.pop(node.input[0]).input[0]
                sources = np.array([order[axis] for axis in axes], "int64")
                node.input[1] = constant(f"{output}/axes", np.sort(sources))
        nodes += [held.pop(name) for name in node.input if name in held]
        if node.op_type == "Transpose":
            place(node)
        else:
            nodes.append(node)
        if after is not None:
            place(after)
    del graph.node[:]
    graph.node.extend([*nodes, *held.values()])


def _order(transpose: Any) -> tuple[int, ...]:
    """Returns the order of the axes; nothing for no Transpose, and for one that only turns them round."""
    return () if transpose is None else tuple(_attribute(transpose, "perm", ()))


def _attribute(node: Any, name: str, default: Any) -> Any:
    onnx = require("onnx", extra="export")
    return next((onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def add_instead_of_subtracting(graph: Any) -> None:
    """Makes `x - c` of a constant `x + (-c)`, which ONNX Runtime can fuse with the convolution before.

    Args:
        graph: An ONNX graph, which is changed.
    """
    onnx = require("onnx", extra="export")
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        if node.op_type == "Sub" and node.input[0] not in constants and node.input[1] in constants:
            array = onnx.numpy_helper.to_array(constants[node.input[1]])
            if np.issubdtype(array.dtype, np.floating):
                graph.initializer.append(onnx.numpy_helper.from_array(-array, f"{node.output[0]}/negative"))
                node.op_type, node.input[1] = "Add", graph.initializer[-1].name
