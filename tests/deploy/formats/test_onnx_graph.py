"""An ONNX graph is put into another form only where its answers stay the same."""

from __future__ import annotations

import collections

import keras
import numpy as np
import pytest
from keras.layers import Activation, BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D

import keras_residual as kr
from keras_residual.deploy.formats.onnx_graph import rearrange

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.any_backend

SHAPE = (2, 3, 4, 5)
UNARY = ["Relu", "Sigmoid", "Elu", "Neg", "Softmax"]
BINARY = ["Add", "Sub", "Mul", "Max"]
BOUND_SHAPES = [(), (1,)]
REDUCTIONS = ["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"]


def drawn(seed):
    """Returns a graph of twelve operations that nobody chose: transposes, sums, constants, functions, means."""
    rng = np.random.default_rng(seed)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    values, constants, nodes = {"x": SHAPE, "z": SHAPE}, [], []

    def constant(array):
        constants.append(numpy_helper.from_array(array, f"c{len(constants)}"))
        return constants[-1].name

    def node(kind, inputs, shape, **attributes):
        nodes.append(helper.make_node(kind, inputs, [f"v{len(nodes)}"], **attributes))
        values[nodes[-1].output[0]] = tuple(shape)

    order = [0, 2, 3, 1]
    for _ in range(12):
        name = str(rng.choice(list(values)[-4:]))
        shape = values[name]
        rank = len(shape)
        draw = rng.integers(6)
        if draw == 0 and rank:
            order = order if rank == len(order) and rng.integers(2) else rng.permutation(rank).tolist()
            node("Transpose", [name], [shape[axis] for axis in order], perm=order)
        elif draw == 1 and rank > 1:
            axes = rng.choice(rank, rng.integers(1, rank), replace=False)
            keeps = int(rng.integers(2))
            left = [1 if axis in axes else size for axis, size in enumerate(shape) if keeps or axis not in axes]
            given = constant(np.where(rng.integers(2), axes, axes - rank).astype("int64"))
            node(str(rng.choice(REDUCTIONS)), [name, given], left, keepdims=keeps)
        elif draw == 2:
            sides = [other for other, size in values.items() if size == shape]
            node(str(rng.choice(BINARY)), [name, str(rng.choice(sides))], shape)
        elif draw == 3:
            kept = rng.integers(rank + 1)
            sizes = [size if rng.integers(2) else 1 for size in shape[rank - kept :]]
            pair = [name, constant(rng.normal(size=sizes).astype("float32"))]
            node(str(rng.choice(BINARY)), pair[:: int(rng.choice([1, -1]))], shape)
        elif draw == 4:
            bounds = [
                constant(np.full(BOUND_SHAPES[rng.integers(len(BOUND_SHAPES))], end, "float32")) for end in (-1, 1)
            ]
            node("Clip", [name, *bounds], shape)
        else:
            node(str(rng.choice(UNARY[: 5 if rank else 4])), [name], shape)
    info = helper.make_tensor_value_info
    outputs = [*rng.choice(list(values)[2:], 2, replace=False), list(values)[-1]]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [info("x", 1, SHAPE), info("z", 1, SHAPE)],
        [info(str(name), 1, values[name]) for name in dict.fromkeys(outputs)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answers(model, feeds):
    onnx.checker.check_model(model, full_check=True)
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    return runtime.InferenceSession(model.SerializeToString(), settings).run(None, feeds)


def kinds(model):
    return collections.Counter(node.op_type for node in model.graph.node)


def test_graphs_that_nobody_chose_answer_as_before():
    changes = collections.Counter()
    for seed in range(500):
        model = drawn(seed)
        rng = np.random.default_rng(seed)
        feeds = {name: rng.normal(size=SHAPE).astype("float32") for name in ("x", "z")}
        expected, before = answers(model, feeds), kinds(model)
        rearrange(model.graph)
        for found, wanted in zip(answers(model, feeds), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}")
        after = kinds(model)
        changes["fewer transposes"] += after["Transpose"] < before["Transpose"]
        changes["fewer differences"] += after["Sub"] < before["Sub"]
        assert after["Transpose"] <= before["Transpose"]
    assert min(changes["fewer transposes"], changes["fewer differences"]) > 15, changes  # the test says something


def test_norms_of_keras_and_the_last_mean_are_fused_with_convolutions(tmp_path):
    x = inputs = keras.Input((8, 8, 3))
    for filters, strides in ((8, 1), (12, 2)):
        branch = [
            Conv2D(filters, 3, strides, padding="same", use_bias=False), BatchNormalization(), Activation("relu"),
            Conv2D(filters, 3, padding="same", use_bias=False), BatchNormalization(),
        ]  # fmt: skip
        x = kr.Residual(branch, activation="relu")(x)
    kr.export(keras.Model(inputs, Dense(5)(GlobalAveragePooling2D()(x))), tmp_path / "net.onnx")
    found = kinds(onnx.load(tmp_path / "net.onnx"))
    assert found == {"Transpose": 1, "Conv": 6, "Relu": 4, "Add": 2, "ReduceMean": 1, "Gemm": 1}
