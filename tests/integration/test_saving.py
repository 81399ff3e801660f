"""Every public layer through every way in which Keras saves or copies: nothing that it was is lost."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from contract import assert_close, perturb, to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.residual.configured import Configured

PICTURE, SERIES, VECTOR = (6, 6, 4), (5, 4), (4,)


@dataclass(frozen=True)
class Case:
    """A layer, what is done to it once it is built, and the ways that Keras itself does not know for it."""

    make: Callable[[], keras.Layer]
    shape: Any = VECTOR
    change: Callable[[Any], None] | None = None
    masked: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)


NO_IDS = "Keras writes each layer of the model by itself, and so a layer that is in two of them twice"
IN_H5 = {
    "h5": "Keras's own model of a mask does not load: it writes the operations that make the mask, and cannot read them"
}
SHARED_BY_TWO = dict.fromkeys(("h5", "json", "clone"), NO_IDS)


# --- What there is to save -------------------------------------------------------------------------------------------


def conv(filters: int = 4, **kwargs: Any) -> keras.Layer:
    return layers.Conv2D(filters, 3, padding="same", **kwargs)


def tied(activation: str = "relu") -> list[keras.Layer]:
    dense = layers.Dense(4, name="tied")
    return [dense, layers.Activation(activation), dense]


@keras.saving.register_keras_serializable(package="tests")
class Squared(layers.Layer):
    """A layer of a user's own, with an argument and a weight."""

    def __init__(self, power: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power

    def build(self, input_shape: Any) -> None:
        self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gain")

    def call(self, inputs: Any) -> Any:
        return self.gain * inputs**self.power

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """A layer of a user's own that holds others, of which its configuration says nothing."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, activation="relu", name="dense")
        self.norm = layers.BatchNormalization(name="norm")

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)
        self.norm.build((*input_shape[:-1], self.units))
        self.out = layers.Dense(self.units, name="out")
        self.out.build((*input_shape[:-1], self.units))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.out(self.norm(self.dense(inputs), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Net(keras.Model):
    """A subclassed model with a connection as an attribute and others in a list."""

    def __init__(self, connection: keras.Layer, others: Sequence[keras.Layer], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.connection = connection
        self.others = list(others)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = self.connection(inputs, training=training)
        for layer in self.others:
            x = layer(x, training=training)
        return x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "connection": keras.saving.serialize_keras_object(self.connection),
            "others": [keras.saving.serialize_keras_object(layer) for layer in self.others],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Net:
        read = keras.saving.deserialize_keras_object
        return cls(**{**config, "connection": read(config["connection"]), "others": read(config["others"])})


@keras.saving.register_keras_serializable(package="tests")
def twice(x: Any) -> Any:
    return 2 * x


def two_with_one_dense() -> keras.Model:
    dense = layers.Dense(4)
    inputs = keras.Input(VECTOR)
    x = Residual([dense, layers.ReLU()])(inputs)
    return keras.Model(inputs, Residual([layers.Dense(4), dense])(x))


def two_with_one_model() -> keras.Model:
    inputs, inner = keras.Input(VECTOR), inner_model("functional")
    return keras.Model(inputs, Residual(inner)(Residual(inner)(inputs)))


def two_with_one_attention() -> keras.Model:
    inputs, attention = keras.Input(SERIES), layers.MultiHeadAttention(2, 2)
    return keras.Model(inputs, Residual(attention)(Residual(attention)(inputs)))


def in_the_graph_too() -> keras.Model:
    inputs, dense, squared = keras.Input(VECTOR), layers.Dense(4), Squared()
    return keras.Model(inputs, squared(dense(Residual([dense, squared])(squared(dense(inputs))))))


def one_called_twice() -> keras.Model:
    inputs = keras.Input(VECTOR)
    connection = Residual(layers.Dense(4), norm="layer_norm")
    return keras.Model(inputs, connection(connection(inputs)))


def inner_model(kind: str) -> keras.Layer:
    made = [layers.Dense(4, activation="relu", name="a"), layers.Dense(4, name="b")]
    if kind == "sequential":
        return keras.Sequential(made)
    inputs = keras.Input(VECTOR)
    return keras.Model(inputs, made[1](made[0](inputs)))


def stack(block: Any = None, depth: int = 2, **kwargs: Any) -> ResidualStack:
    return ResidualStack(Residual(layers.Dense(4), norm="layer_norm") if block is None else block, depth, **kwargs)


def built_before() -> keras.Layer:
    inner = [keras.Input(VECTOR), layers.Dense(4, name="dense")]
    return Residual(keras.Sequential(inner, name="model"), name="connection")


def resnet(**kwargs: Any) -> keras.Model:
    """Returns a small network of the first generation, with three blocks."""
    small = {"block": "basic", "depths": (1, 2), "widths": (8, 16), "stem_filters": 8, "stem": "conv3"}
    config = kr.ResNetConfig(stem_pool="none", **{**small, **kwargs})
    return kr.ResNet(config, input_shape=(8,) * config.rank + (2,), num_classes=3, drop_path_rate=0.1)


def resnet_v2(**kwargs: Any) -> keras.Model:
    small = {"block": "basic", "depths": (1, 2), "filters": (8, 16), "stem_filters": 8, "stem": "conv3"}
    config = kr.ResNetV2Config(stem_pool="none", **{**small, **kwargs})
    return kr.ResNetV2(config, input_shape=(8, 8, 2), num_classes=3)


# --- What is done to it ----------------------------------------------------------------------------------------------


def every_other_layer_frozen(layer: Any) -> None:
    for index, part in enumerate(layer._flatten_layers(include_self=False)):
        part.trainable = index % 2 == 0


def batch_norms_frozen(layer: Any) -> None:
    for part in layer._flatten_layers():
        if isinstance(part, layers.BatchNormalization):
            part.trainable = False


def frozen_but_for_a_leaf(layer: Any) -> None:
    layer.trainable = False
    leaf = next(part for part in layer._flatten_layers(include_self=False) if part.weights and not part._layers)
    leaf.trainable = True


def branch_frozen(layer: Any) -> None:
    layer.branch[0].trainable = False


def lora(layer: Any) -> None:
    for part in layer._flatten_layers():
        if isinstance(part, (layers.Dense, layers.EinsumDense)):
            part.enable_lora(2)


def int8(layer: Any) -> None:
    for part in layer._flatten_layers():
        if type(part) in (layers.Dense, layers.EinsumDense):
            part.quantize("int8")


def every_other_int8(layer: Any) -> None:
    dense = [part for part in layer._flatten_layers() if type(part) is layers.Dense]
    for part in dense[::2]:
        part.quantize("int8")


def half_precision(layer: Any) -> None:
    for part in layer._flatten_layers(include_self=False):
        if isinstance(part, (layers.LayerNormalization, layers.Dense)):
            part.dtype_policy = "mixed_bfloat16"


def other_settings(layer: Any) -> None:
    layer.pre_norm.momentum, layer.drop_path.rate = 0.5, 0.25


# --- The table -------------------------------------------------------------------------------------------------------

MERGES = [
    name
    for name, kind in vars(kr).items()
    if isinstance(kind, type) and issubclass(kind, kr.Merge) and kind != kr.Merge
]

CASES: dict[str, Case] = {
    **{name: Case(getattr(kr, name), [VECTOR, VECTOR]) for name in MERGES},
    "GRUMerge, frozen": Case(lambda: kr.GRUMerge(trainable=False), [VECTOR, VECTOR]),
    "GRNMerge, parts frozen": Case(kr.GRNMerge, [VECTOR, VECTOR], every_other_layer_frozen),
    "GRUMerge, int8": Case(kr.GRUMerge, [VECTOR, VECTOR], int8),
    "HighwayMerge, LoRA": Case(kr.HighwayMerge, [VECTOR, VECTOR], lora),
    "Scale": Case(lambda: kr.Scale(0.5)),
    "SkipInit": Case(lambda: kr.SkipInit(0.5)),
    "LayerScale": Case(lambda: kr.LayerScale(0.5)),
    "ScalarBias": Case(lambda: kr.ScalarBias(0.5)),
    "FixupScale": Case(kr.FixupScale),
    "DropPath": Case(lambda: kr.DropPath(np.float32(0.5), seed=3)),
    "ShakeDrop": Case(lambda: kr.ShakeDrop(0.5)),
    "ShakeShake": Case(lambda: kr.ShakeShake([layers.Dense(4), tied()]), change=every_other_layer_frozen),
    "ShakeShake, frozen": Case(lambda: kr.ShakeShake([layers.Dense(4), layers.Dense(4)], trainable=False)),
    "ShakeShake, thawed": Case(lambda: kr.ShakeShake([layers.Dense(4), layers.Dense(4)]), change=frozen_but_for_a_leaf),
    "ProjectionShortcut": Case(lambda: kr.ProjectionShortcut(3, norm="batch_norm"), change=every_other_layer_frozen),
    "ProjectionShortcut, int8": Case(lambda: kr.ProjectionShortcut(3), change=int8),
    "AvgPoolShortcut": Case(lambda: kr.AvgPoolShortcut(3, 2, norm=layers.BatchNormalization()), PICTURE),
    "ZeroPadShortcut": Case(lambda: kr.ZeroPadShortcut(6, (2, 1)), PICTURE),
    "ValueResidualAttention": Case(
        lambda: kr.ValueResidualAttention(2, 2, dropout=0.1), SERIES, masked=True, left_out=IN_H5
    ),
    "ValueResidualAttention, int8": Case(lambda: kr.ValueResidualAttention(2, 2), SERIES, int8),
    "ScaledWSConv1D": Case(lambda: kr.ScaledWSConv1D(4, 3), SERIES),
    "ScaledWSConv2D": Case(lambda: kr.ScaledWSConv2D(4, 3, gamma=2.0), PICTURE),
    "ScaledWSConv3D": Case(lambda: kr.ScaledWSConv3D(4, 2), (3, 3, 3, 2)),
    "Preprocessing": Case(lambda: kr.Preprocessing(4), (8, 8, 3)),
    "BlurPool2D": Case(kr.layers.BlurPool2D, PICTURE),
    "DropBlock2D": Case(lambda: kr.layers.DropBlock2D(0.1), PICTURE),
    "EfficientChannelAttention": Case(kr.layers.EfficientChannelAttention, PICTURE, every_other_layer_frozen),
    "EvoNormS0": Case(lambda: kr.layers.EvoNormS0(groups=2), PICTURE),
    "FilterResponseNorm": Case(kr.layers.FilterResponseNorm, PICTURE),
    "MultiScaleConv2D": Case(lambda: kr.layers.MultiScaleConv2D(2, scale=2), PICTURE, batch_norms_frozen),
    "SelectiveKernel2D": Case(lambda: kr.layers.SelectiveKernel2D(4), PICTURE, batch_norms_frozen),
    "SplitAttention2D": Case(
        lambda: kr.layers.SplitAttention2D(4, norm="batch_norm", drop_block=kr.layers.DropBlock2D(0.1)),
        PICTURE,
        batch_norms_frozen,
    ),
    "SqueezeExcite": Case(lambda: kr.layers.SqueezeExcite(0.5, activation=twice), PICTURE, int8),
    "SqueezeExcite, frozen": Case(lambda: kr.layers.SqueezeExcite(0.5, trainable=False), PICTURE),
    "SymmetricConv2D": Case(lambda: kr.layers.SymmetricConv2D(4, 3, strides=2, dilation_rate=2), PICTURE),
    "SymmetricMaxPool2D": Case(kr.layers.SymmetricMaxPool2D, PICTURE),
    "WSConv2D": Case(lambda: kr.layers.WSConv2D(4, 3), PICTURE),
    # One connection
    "plain": Case(lambda: Residual([layers.Dense(4, activation="relu"), layers.Dense(4)])),
    "h5 takes the name of the merge for a function": Case(lambda: Residual(layers.Dense(4), merge="add")),
    "every part": Case(
        lambda: Residual(
            [layers.Dense(6, activation="relu"), layers.Dense(3)],
            preactivation=[layers.BatchNormalization(), layers.ReLU()],
            merge="highway",
            branch_scale="layer_scale",
            skip_scale="fixup",
            norm="batch_norm",
            norm_position=("pre", "out", "post"),
            drop_path_rate=0.1,
            activation=layers.PReLU(),
        ),
        change=every_other_layer_frozen,
    ),
    "batch norms frozen": Case(
        lambda: Residual(
            [conv(6, strides=2), layers.BatchNormalization()],
            shortcut=kr.AvgPoolShortcut(norm="batch_norm"),
            norm="batch_norm",
            norm_position="peri",
        ),
        PICTURE,
        batch_norms_frozen,
    ),
    "a norm for two places": Case(
        lambda: Residual(layers.Dense(4), norm=layers.BatchNormalization(momentum=0.5), norm_position="peri"),
        change=every_other_layer_frozen,
    ),
    "all frozen": Case(lambda: Residual(layers.Dense(3), norm="batch_norm", trainable=False)),
    "frozen but for a leaf": Case(lambda: Residual(layers.Dense(3), norm="batch_norm"), change=frozen_but_for_a_leaf),
    "other settings": Case(
        lambda: Residual(layers.Dense(4), norm="batch_norm", drop_path_rate=0.5), change=other_settings
    ),
    "inferred projection, int8": Case(lambda: Residual(layers.Dense(3)), change=int8),
    "merge of dense layers, int8": Case(lambda: Residual(layers.Dense(4), merge="gru"), change=int8),
    "int8 in places": Case(lambda: Residual([layers.Dense(4), layers.Dense(3)]), change=every_other_int8),
    "LoRA": Case(lambda: Residual([layers.Dense(4), layers.Dense(3)]), change=lora),
    "precision of parts": Case(
        lambda: Residual(layers.Dense(3), norm="layer_norm", norm_position="peri"), change=half_precision
    ),
    "mixed precision": Case(lambda: Residual(layers.Dense(3, dtype="mixed_bfloat16"), dtype="mixed_bfloat16")),
    "masked": Case(
        lambda: Residual([layers.LSTM(4, return_sequences=True)], norm="layer_norm"),
        SERIES,
        masked=True,
        left_out=IN_H5,
    ),
    "attention": Case(
        lambda: Residual(layers.MultiHeadAttention(2, 2), norm="rms_norm"), SERIES, masked=True, left_out=IN_H5
    ),
    "attention, parts frozen": Case(
        lambda: Residual(layers.MultiHeadAttention(2, 2)), SERIES, change=every_other_layer_frozen
    ),
    "attention, frozen": Case(lambda: Residual(layers.MultiHeadAttention(2, 2)), SERIES, change=branch_frozen),
    "attention, int8": Case(lambda: Residual(layers.MultiHeadAttention(2, 2)), SERIES, change=int8),
    "recurrent, frozen": Case(lambda: Residual(layers.LSTM(4, return_sequences=True)), SERIES, change=branch_frozen),
    "own block": Case(lambda: Residual([Block(4), keras.Sequential([Block(4)])]), change=every_other_layer_frozen),
    "own block, batch norms frozen": Case(lambda: Residual(Block(4)), change=batch_norms_frozen),
    "own block, frozen": Case(lambda: Residual(Block(4)), change=branch_frozen),
    "own block, int8": Case(lambda: Residual(Block(4)), change=every_other_int8),
    "own block, LoRA": Case(lambda: Residual(Block(4)), change=lora),
    "own block in a stack, batch norms frozen": Case(
        lambda: stack(Residual(Block(4)), execution="unrolled"), change=batch_norms_frozen
    ),
    "own block in a stack, int8": Case(
        lambda: stack(Residual(Block(4)), execution="unrolled"), change=every_other_int8
    ),
    "own block in a stack, a part frozen before": Case(
        lambda: stack(Residual(with_frozen_norm()), execution="scan"), change=lambda layer: None
    ),
    "one layer twice": Case(lambda: Residual(tied())),
    "one layer twice, frozen": Case(lambda: Residual(tied()), change=every_other_layer_frozen),
    "one layer twice, int8": Case(lambda: Residual(tied()), change=int8),
    "one layer in a wrapper and out of it": Case(
        lambda: Residual([layers.TimeDistributed(d := layers.Dense(4)), d]), SERIES
    ),
    "one layer in a nested connection and out of it": Case(
        lambda: Residual([Residual([d := layers.Dense(4), layers.ReLU()]), d])
    ),
    "one layer in a Sequential and out of it": Case(
        lambda: Residual([d := layers.Dense(4), keras.Sequential([layers.ReLU(), d])])
    ),
    "one connection twice": Case(lambda: Residual([r := Residual(layers.Dense(4), norm="layer_norm"), r])),
    "nested": Case(
        lambda: Residual([layers.Dense(4), Residual(layers.Dense(4), merge="gru")]), change=every_other_layer_frozen
    ),
    "Sequential": Case(lambda: Residual(inner_model("sequential")), change=every_other_layer_frozen),
    "Functional": Case(lambda: Residual(inner_model("functional")), change=every_other_layer_frozen),
    "TimeDistributed": Case(lambda: Residual(layers.TimeDistributed(layers.Dense(4))), SERIES, int8),
    "Bidirectional": Case(lambda: Residual(layers.Bidirectional(layers.GRU(2, return_sequences=True))), SERIES),
    "SpectralNormalization": Case(lambda: Residual(layers.SpectralNormalization(layers.Dense(4)))),
    "Normalization": Case(lambda: Residual([layers.Normalization(mean=[1, 2, 3, 4], variance=[1, 2, 3, 4])])),
    "own layer": Case(lambda: Residual([Squared(3), layers.Dense(4)], activation=twice)),
    "names": Case(lambda: Residual([layers.Dense(4, name="плотный слой"), layers.Dense(4, name="a b")], name="残差")),
    "two of one name": Case(lambda: Residual([layers.Dense(4, name="d"), layers.Dense(4, name="d")])),
    # Stacks
    **{
        f"stack, {name}": Case(lambda n=name: stack(depth=3, topology=n, execution="unrolled"))
        for name in kr.topologies.TOPOLOGIES
        if name != "value_residual"
    },
    "stack, value_residual": Case(
        lambda: stack(Residual(kr.ValueResidualAttention(2, 2)), topology="value_residual", execution="unrolled"),
        SERIES,
    ),
    "stack of a sequential, not built": Case(lambda: stack(keras.Sequential([layers.Dense(4)]), execution="unrolled")),
    "stack of a sequential, scanned": Case(lambda: stack(keras.Sequential([layers.Dense(4)]), execution="scan")),
    "stack of models that were built before, by a function": Case(lambda: stack(lambda index: built_before())),
    "stack, scanned": Case(lambda: stack(drop_path_rate=[0.1, 0.2], execution="scan")),
    "stack, scanned, hyper-connections": Case(lambda: stack(topology="hyper_connections", execution="scan")),
    "stack, frozen": Case(lambda: stack(execution="scan", trainable=False)),
    "stack of tied layers": Case(lambda: stack(Residual(tied()), execution="unrolled")),
    "stack of tied layers, scanned": Case(lambda: stack(Residual(tied()), execution="scan")),
    "stack of two connections with one layer": Case(
        lambda: stack([Residual(d := layers.Dense(4)), Residual([layers.ReLU(), d])], depth_rule="skip_init")
    ),
    "stack of two connections with one layer, int8": Case(
        lambda: stack([Residual([d := layers.Dense(4)]), Residual([layers.ReLU(), d])], execution="unrolled"),
        change=int8,
    ),
    "stack, parts frozen": Case(lambda: stack(execution="unrolled"), change=every_other_layer_frozen),
    "stack, frozen but for a leaf": Case(lambda: stack(execution="unrolled"), change=frozen_but_for_a_leaf),
    "stack, int8": Case(lambda: stack(execution="unrolled"), change=int8),
    "stack, int8 in places": Case(lambda: stack(execution="unrolled"), change=every_other_int8),
    "stack, LoRA": Case(lambda: stack(execution="unrolled", topology="mudd"), change=lora),
    "stack by a function": Case(lambda: stack(lambda index: Residual([layers.Dense(3 + index), layers.Dense(4)]))),
    "stack by a function, one layer in all": Case(lambda: stack(blocks_with_one_layer())),
    "stack by a function, ruled": Case(
        lambda: stack(lambda index: Residual(layers.Dense(4)), depth_rule="fixup", drop_path_rate=0.1),
        change=every_other_layer_frozen,
    ),
    # Models
    "ResNet": Case(resnet, (8, 8, 2), batch_norms_frozen),
    "ResNet, bottlenecks with gates": Case(
        lambda: resnet(block="bottleneck", attention="se", shortcut="avg_pool", anti_aliasing="blur"), (8, 8, 2), int8
    ),
    "ResNet, volumes": Case(lambda: resnet(rank=3), (8, 8, 8, 2), batch_norms_frozen),
    "ResNeSt": Case(lambda: resnet(block="resnest", depths=(2,), widths=(8,)), (8, 8, 2), batch_norms_frozen),
    "SKNet": Case(lambda: resnet(block="sk_basic"), (8, 8, 2), every_other_layer_frozen),
    "Res2Net": Case(lambda: resnet(block="res2net", base_width=32), (8, 8, 2), batch_norms_frozen),
    "ResNet v2": Case(resnet_v2, (8, 8, 2), batch_norms_frozen),
    "ResNet v2, standardised": Case(
        lambda: resnet_v2(norm="filter_response_norm", convolution="standardized"), (8, 8, 2)
    ),
    "model by name": Case(
        lambda: kr.create_model("cifar_resnet20", input_shape=(8, 8, 3), num_classes=3), (8, 8, 3), batch_norms_frozen
    ),
    "table": Case(lambda: kr.create_model("tabular_resnet", input_shape=(4,), num_classes=3), VECTOR, int8),
    "series": Case(lambda: kr.create_model("series_resnet", input_shape=SERIES, num_classes=3), SERIES),
    "one layer in two connections": Case(two_with_one_dense, left_out=SHARED_BY_TWO),
    "one connection called twice": Case(one_called_twice),
    "one layer in the graph and in a connection": Case(in_the_graph_too, left_out=SHARED_BY_TWO),
    "one model in two connections": Case(two_with_one_model, left_out=SHARED_BY_TWO),
    "one attention in two connections, int8": Case(two_with_one_attention, SERIES, int8, left_out=SHARED_BY_TWO),
    "one attention in two connections, LoRA": Case(two_with_one_attention, SERIES, lora, left_out=SHARED_BY_TWO),
    "Sequential of connections": Case(
        lambda: keras.Sequential([Residual(layers.Dense(3)), Residual(layers.Dense(3), norm="batch_norm")]),
        change=every_other_layer_frozen,
    ),
    "subclassed": Case(
        lambda: Net(Residual(layers.Dense(3)), [Residual(tied("tanh")[1:], shortcut="projection"), stack()]),
        change=every_other_layer_frozen,
    ),
}


def with_frozen_norm() -> Block:
    block = Block(4)
    block.norm.trainable = False
    return block


def blocks_with_one_layer() -> Callable[[int], Residual]:
    dense = layers.Dense(4)
    return lambda index: Residual([dense, layers.Dense(4)])


# --- The ways --------------------------------------------------------------------------------------------------------


Way = Callable[[Any, Path, Callable[[], keras.Model]], Any]


def _file(suffix: str) -> Way:
    def way(model: keras.Model, folder: Path, _: Any) -> keras.Model:
        model.save(folder / f"model.{suffix}")
        return keras.models.load_model(folder / f"model.{suffix}")

    return way


def _with_weights(made: Any, model: keras.Model) -> keras.Model:
    if not made.built:
        made.build(model.input_shape)
    made.set_weights(model.get_weights())
    return made


def _weights(model: keras.Model, folder: Path, again: Callable[[], keras.Model]) -> keras.Model:
    made = again()
    model.save_weights(folder / "some.weights.h5")
    made.load_weights(folder / "some.weights.h5")
    return made


WAYS: dict[str, Way] = {
    "keras": _file("keras"),
    "h5": _file("h5"),
    "weights": _weights,
    "json": lambda model, *_: _with_weights(keras.models.model_from_json(model.to_json()), model),
    "clone": lambda model, *_: _with_weights(keras.models.clone_model(model), model),
    # So do `copy.copy` and `copy.deepcopy`.
    "pickle": lambda model, *_: pickle.loads(pickle.dumps(model)),
}


def model_of(case: Case) -> keras.Model:
    """Returns a Functional model with the layer of a case, changed as the case has it."""
    layer = case.make()
    if isinstance(layer, keras.Model) and layer.built:
        model = layer
    else:
        inputs = (
            [keras.Input(shape) for shape in case.shape] if isinstance(case.shape, list) else keras.Input(case.shape)
        )
        model = keras.Model(inputs, layer(layers.Masking()(inputs) if case.masked else inputs))
    if layer.weights:
        perturb(layer)
    if case.change is not None:
        case.change(layer)
    return model


def inputs_of(case: Case) -> Any:
    rng = np.random.default_rng(3)
    shapes = case.shape if isinstance(case.shape, list) else [case.shape]
    arrays = [rng.normal(size=(2, *shape)).astype("float32") for shape in shapes]
    if case.masked:
        arrays[0][:, -1] = 0.0
    return arrays if isinstance(case.shape, list) else arrays[0]


def assert_same(loaded: keras.Model, model: keras.Model, x: Any) -> None:
    """Raises where a model is another one: its answers, what is trained of it, the precision of its parts."""
    np.testing.assert_array_equal(to_numpy(loaded(x, training=False)), to_numpy(model(x, training=False)))
    for kind in ("trainable_variables", "non_trainable_variables", "weights"):
        assert [v.shape for v in getattr(loaded, kind)] == [v.shape for v in getattr(model, kind)], kind
    assert parts(loaded) == parts(model)


def paths(model: Any) -> list[str]:
    return [weight.path.partition("/")[2] for weight in model.weights]


def parts(model: Any) -> list[tuple[str, bool, str]]:
    found = [part for part in model._flatten_layers(include_self=False) if not isinstance(part, layers.InputLayer)]
    return [(type(part).__name__, part.trainable, part.dtype_policy.name) for part in found]


def is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


@pytest.fixture(autouse=True, scope="module")
def _nothing_to_collect():
    """Keeps the garbage collector, which Keras calls for each layer that it quantises, from looking through it all."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.any_backend
def test_every_public_layer_is_in_the_table() -> None:
    public = {**{name: getattr(kr, name) for name in kr.__all__}, **vars(kr.layers)}
    found = {name for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, keras.Layer)}
    elsewhere = {"Merge", "Shortcut", "Residual", "ResidualStack"}  # two are abstract, two have a part of the table
    assert found - elsewhere <= {name.partition(",")[0] for name in CASES}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_every_way_keeps_what_a_layer_is(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, x = model_of(case), inputs_of(case)
    ours = [layer for layer in model._flatten_layers() if isinstance(layer, Configured)]
    for config in (layer.get_config() for layer in ours):
        assert is_plain(config)
        assert case.change is not None or "changed_parts" not in config, "changes of what was not changed"
    for way, go in WAYS.items():
        if way in case.left_out:
            continue
        try:
            loaded = go(model, tmp_path, lambda: model_of(case))
            assert_same(loaded, model, x)
            # The names that Keras makes up count on, and a model in a model is built by itself.
            if way != "weights" and not any(isinstance(layer, keras.Model) for layer in model.layers):
                assert paths(loaded) == paths(model)
        except BaseException as error:
            error.add_note(f"the way: {way}")
            raise


def trained() -> keras.Model:
    inputs = keras.Input(VECTOR)
    x = Residual(tied(), norm="batch_norm", branch_scale="layer_scale")(inputs)
    model = keras.Model(inputs, stack(execution="unrolled")(x))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    train(model)
    return model


def train(model: keras.Model) -> None:
    x, y = np.random.default_rng(5).normal(size=(2, 8, *VECTOR)).astype("float32")
    for _ in range(2):
        model.train_on_batch(x, y)


def saved(model: keras.Model) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        return keras.models.load_model(Path(folder) / "model.keras")


# Not in Keras's older format: there a loaded optimizer has no variables, for a model of Dense alone too.
@pytest.mark.parametrize("way", [saved, copy.copy, copy.deepcopy])
def test_a_copy_trains_by_itself_and_goes_on_where_the_model_was(way: Callable[[Any], Any]) -> None:
    model = trained()
    copied, before = way(model), model.get_weights()
    train(copied)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert any(np.any(now != then) for now, then in zip(copied.get_weights(), before, strict=True))
    train(model)
    for one, other in zip(copied.get_weights(), model.get_weights(), strict=True):
        assert_close(one, other, 1e-5)


LAYERS: dict[str, Callable[[], keras.Layer]] = {
    "merge": kr.GRUMerge,
    "connection": lambda: Residual([layers.Dense(3), layers.Dropout(0.1)], norm="batch_norm", drop_path_rate=0.1),
    "stack": lambda: stack(execution="unrolled"),
    "scanned stack": lambda: stack(execution="scan"),
}


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_copied_before_it_is_built_and_after(name: str, built: bool) -> None:
    layer = LAYERS[name]()
    shape = [(2, *VECTOR)] * 2 if name == "merge" else (2, *VECTOR)
    if built:
        layer.build(shape)
    copied = copy.deepcopy(layer)
    assert copied.built == built
    assert copied.get_config() == layer.get_config()
    if not built:
        copied.build(shape)
        layer.build(shape)
        copied.set_weights(layer.get_weights())
    for one, other in zip(copied.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_what_keras_quantises_loads_again(suffix: str, tmp_path: Path) -> None:
    inputs = keras.Input(SERIES)
    x = Residual(layers.MultiHeadAttention(2, 2), norm="layer_norm")(inputs)
    x = Residual([layers.Dense(8), layers.Dense(6)], merge="highway", norm="layer_norm")(x)
    x = stack(Residual([layers.Dense(6, activation="relu"), layers.Dense(6)]), topology="mudd")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    perturb(model)
    model.quantize("int8")
    model.save(tmp_path / f"model.{suffix}")
    assert_same(keras.models.load_model(tmp_path / f"model.{suffix}"), model, inputs_of(Case(Residual, SERIES)))


PROGRAM = """
import sys
import keras, numpy as np
import keras_residual
for path in sys.argv[1:]:
    saved = np.load(path + ".npz")
    model = keras.models.load_model(path, compile=False)
    answers = keras.ops.convert_to_numpy(model(saved["x"], training=False))
    np.testing.assert_allclose(answers, saved["y"], rtol=1e-5, atol=1e-5, err_msg=path)
    assert [len(model.trainable_weights), len(model.weights)] == list(saved["counts"]), path
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_another_process_loads_without_custom_objects(tmp_path: Path) -> None:
    names = ["every part", "one layer twice", "one layer in two connections", "stack, LoRA", "names"]
    names += ["inferred projection, int8", "Functional"]
    files = []
    for name in names:
        case = CASES[name]
        model, x = model_of(case), inputs_of(case)
        for suffix in ["keras"] if "h5" in case.left_out else ["keras", "h5"]:
            files.append(str(tmp_path / f"{len(files)}.{suffix}"))
            model.save(files[-1])
            counts = [len(model.trainable_weights), len(model.weights)]
            np.savez(f"{files[-1]}.npz", x=x, y=to_numpy(model(x, training=False)), counts=counts)
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, *files], check=True)


# --- What cannot be loaded -------------------------------------------------------------------------------------------


def unregistered() -> type[keras.Layer]:
    class Unregistered(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs

    return Unregistered


def halved(x: Any) -> Any:
    return x / 2


REFUSED: dict[str, tuple[Callable[[], keras.Layer], str]] = {
    "class": (
        lambda: Residual([layers.Dense(4), unregistered()()], name="r"),
        "Residual 'r': `branch` was saved with the class 'Unregistered', which is not registered. Decorate it with "
        "@keras.saving.register_keras_serializable() and import its module before loading, or pass "
        "custom_objects={'Unregistered': Unregistered} to the function that loads.",
    ),
    "class in a stack": (
        lambda: stack(Residual(unregistered()(), name="r")),
        "Residual 'r': `branch` was saved with the class 'Unregistered', which is not registered.",
    ),
    "function": (
        lambda: Residual(layers.Dense(4), activation=halved, name="r"),
        "Residual 'r': `activation` was saved with the function 'halved', which is not registered.",
    ),
    "lambda": (
        lambda: Residual(layers.Dense(4), activation=lambda x: x / 2),
        "Requested the deserialization of a Python lambda.",
    ),
    "Lambda": (
        lambda: Residual(layers.Lambda(lambda x: x / 2)),
        "Requested the deserialization of a `Lambda` layer whose `function` is a Python lambda.",
    ),
}


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_says_what_to_do(name: str, suffix: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    model_of(Case(make)).save(tmp_path / f"model.{suffix}")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        keras.models.load_model(tmp_path / f"model.{suffix}")


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_what_the_user_vouches_for_is_loaded(suffix: str, tmp_path: Path) -> None:
    kind = unregistered()
    case = Case(lambda: Residual([kind(), layers.Lambda(lambda x: x / 2)], activation=lambda x: x * 2))
    model = model_of(case)
    model.save(tmp_path / f"model.{suffix}")
    known = {"Unregistered": kind}
    loaded = keras.models.load_model(tmp_path / f"model.{suffix}", custom_objects=known, safe_mode=False)
    assert_same(loaded, model, inputs_of(case))
