"""Small nets of each kind for the tests of exports, with statistics that no layer starts with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.layers import Activation, BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D

import keras_residual as kr


def residual() -> keras.Model:
    x = inputs = keras.Input((6,))
    x = kr.Residual([Dense(8, activation="gelu"), Dense(8)], norm="layer_norm", drop_path_rate=0.5)(x)
    x = kr.Residual([Dense(8, activation="relu"), Dense(8)], merge="highway", branch_scale="layer_scale")(x)
    return keras.Model(inputs, Dense(3)(x))


def _stack(execution: str, **how: Any) -> keras.Model:
    inputs = keras.Input((6,))
    block = kr.Residual([Dense(6, activation="relu"), Dense(6)], norm="layer_norm")
    outputs = kr.ResidualStack(block, depth=4, execution=execution, **how)(inputs)
    return keras.Model(inputs, Dense(3)(outputs))


def convolutions() -> keras.Model:
    x = inputs = keras.Input((8, 8, 3))
    for filters, strides in ((8, 1), (12, 2)):
        branch = [
            Conv2D(filters, 3, strides, padding="same", use_bias=False), BatchNormalization(), Activation("relu"),
            Conv2D(filters, 3, padding="same", use_bias=False), BatchNormalization(),
        ]  # fmt: skip
        x = kr.Residual(branch, activation="relu")(x)
    return keras.Model(inputs, Dense(5)(GlobalAveragePooling2D()(x)))


def _zoo(name: str, shape: tuple[int, ...]) -> keras.Model:
    return kr.create_model(name, input_shape=shape, num_classes=5)


def two_of_each() -> keras.Model:
    """Two inputs and two outputs, one of them of whole numbers, with names that few formats have.

    On TensorFlow, which calls no layer of such a name, they are plain.
    """

    def named(name: str, plain: str) -> str:
        return plain if keras.backend.backend() == "tensorflow" else name

    words = keras.Input((5,), dtype="int32", name="слова и знаки")
    size = keras.Input((4,), name="Größe (cm)")
    x = keras.layers.Embedding(4, 4, name=named("表", "table"))(words)
    x = kr.Residual(Dense(4, name=named("枝 1", "branch1")))(keras.ops.mean(x, axis=1))
    x = keras.layers.Concatenate()([x, size])
    outputs = [Dense(3, name=named("Klasse A", "a"))(x), Dense(1, name=named("γ 2", "b"))(x)]
    return keras.Model([words, size], outputs, name=named("zwei Köpfe", "two_heads"))


QUICK = ("residual", "convolutions", "scanned stack", "two of each")
NETS: dict[str, Callable[[], keras.Model]] = {
    "residual": residual,
    "convolutions": convolutions,
    "two of each": two_of_each,
    "scanned stack": lambda: _stack("scan"),
    "unrolled stack": lambda: _stack("unrolled"),
    "momentum": lambda: _stack("auto", topology="momentum"),
    "cifar_resnet20": lambda: _zoo("cifar_resnet20", (8, 8, 3)),
    "tabular_resnet": lambda: _zoo("tabular_resnet", (7,)),
    "series_resnet": lambda: _zoo("series_resnet", (16, 2)),
}


def made(name: str) -> keras.Model:
    """Returns a net with weights and statistics drawn by a seed."""
    keras.utils.set_random_seed(5)
    return randomised(NETS[name]())


def randomised(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(7)
    for variable in model.variables:
        if "seed" in variable.path or not keras.backend.is_float_dtype(variable.dtype):
            continue
        value = np.asarray(keras.ops.convert_to_numpy(variable))
        if "variance" in variable.path:
            drawn = rng.uniform(0.5, 2, value.shape)
        else:
            drawn = value + 0.1 * rng.standard_normal(value.shape)
        variable.assign(drawn.astype("float32"))
    return model


def rows(model: keras.Model, count: int, seed: int = 3) -> Any:
    """Returns a batch for each input, in the structure that the model is called with."""
    rng = np.random.default_rng(seed)

    def drawn(tensor: Any) -> np.ndarray:
        shape = (count, *tensor.shape[1:])
        whole = not keras.backend.is_float_dtype(tensor.dtype)
        return rng.integers(0, 4, shape).astype("int32") if whole else rng.standard_normal(shape).astype("float32")

    return keras.tree.map_structure(drawn, model.inputs[0] if len(model.inputs) == 1 else model.input)


def close(found: Any, expected: Any, *, part: float = 2e-4) -> None:
    """Raises an AssertionError where outputs are further apart than a part of the deviation of what is expected."""
    for ours, theirs in zip(keras.tree.flatten(expected), keras.tree.flatten(found), strict=True):
        ours, theirs = (np.asarray(keras.ops.convert_to_numpy(value), "float64") for value in (ours, theirs))
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= part * max(ours.std(), 1e-2 * np.abs(ours).max())
