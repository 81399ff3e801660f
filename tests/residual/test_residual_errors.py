"""What a user of `Residual` reads after a mistake: the whole message."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual import ProjectionShortcut, Residual

PICTURES = (None, 32, 32, 64)


class Pair(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs, inputs


class Nothing(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return None


def dense() -> keras.Layer:
    return layers.Dense(4, name="dense")


def valid_convolution() -> keras.Layer:
    return layers.Conv2D(64, 3)


def residual(branch: Any, **kwargs: Any) -> Residual:
    return Residual(branch, name="block", **kwargs)


MADE: dict[str, Any] = {
    "an empty branch": (
        lambda: residual([]),
        "Residual 'block': `branch` must be a layer or a list of at least one layer, but received [] (list). For no "
        "change use Identity().",
    ),
    "a name for a branch": (
        lambda: residual("dense"),
        "Residual 'block': `branch` must be a Keras layer or a list of Keras layers, but received 'dense' (str). Wrap "
        "a function in keras.layers.Lambda or, to be able to save it, in a layer of your own.",
    ),
    "a shortcut with a typo": (
        lambda: residual(dense(), shortcut="projecton"),
        "Residual 'block': unknown name for `shortcut`: 'projecton'. Did you mean 'projection'? Known: auto, identity, "
        "projection, zero_pad, avg_pool.",
    ),
    "a merge with a typo": (
        lambda: residual(dense(), merge="Higway"),
        "Residual 'block': unknown name for `merge`: 'Higway'. Did you mean 'highway'? Known: add, concat, mean, "
        "weighted, highway, gru, input_gate, output_gate, sigmoid_tanh, lerp, grn, orthogonal, magnitude_preserving, "
        "delta, normalized_lerp.",
    ),
    "a merge that is a function": (
        lambda: residual(dense(), merge=3),
        "Residual 'block': `merge` must be a Keras layer or one of add, concat, mean, weighted, highway, gru, "
        "input_gate, output_gate, sigmoid_tanh, lerp, grn, orthogonal, magnitude_preserving, delta, normalized_lerp, "
        "but received 3 (int).",
    ),
    "a scale with a typo": (
        lambda: residual(dense(), branch_scale="layerscale"),
        "Residual 'block': unknown name for `branch_scale`: 'layerscale'. Did you mean "
        "'layer_scale'? Known: skip_init, "
        "rezero, layer_scale, fixup, inverse_sqrt_2.",
    ),
    "a scale that is not finite": (
        lambda: residual(dense(), skip_scale=float("inf")),
        "Residual 'block': `skip_scale` must be a finite number, but received inf (float).",
    ),
    "a scale that is a flag": (
        lambda: residual(dense(), skip_scale=True),
        "Residual 'block': `skip_scale` must be a number, a Keras layer or one of skip_init, rezero, layer_scale, "
        "fixup, inverse_sqrt_2, but received True (bool).",
    ),
    "a norm with a typo": (
        lambda: residual(dense(), norm="batchnorm"),
        "Residual 'block': unknown name for `norm`: 'batchnorm'. Did you mean 'batch_norm'? Known: batch_norm, "
        "layer_norm, group_norm, rms_norm.",
    ),
    "a place that no norm has": (
        lambda: residual(dense(), norm="layer_norm", norm_position="before"),
        "Residual 'block': unknown name for `norm_position`: 'before'. Known: pre, post, out, peri.",
    ),
    "a place without a norm": (
        lambda: residual(dense(), norm_position="post"),
        "Residual 'block': `norm_position` must be left out where there is no norm, but received 'post' (str). Pass "
        "norm=, for example norm='layer_norm'.",
    ),
    "a rate of one": (
        lambda: residual(dense(), drop_path_rate=1.0),
        "Residual 'block': `drop_path_rate` must be a number in [0, 1), but received 1.0 (float).",
    ),
    "a negative rate": (
        lambda: residual(dense(), drop_path_rate=-0.1),
        "Residual 'block': `drop_path_rate` must be a number in [0, 1), but received -0.1 (float).",
    ),
    "a rate that is not a number": (
        lambda: residual(dense(), drop_path_rate="0.1"),
        "Residual 'block': `drop_path_rate` must be a number in [0, 1), but received '0.1' (str).",
    ),
}

BUILT: dict[str, Any] = {
    "a branch that crops": (
        lambda: residual(valid_convolution()).build(PICTURES),
        "Residual 'block': the input has shape (None, 32, 32, 64) and the branch's output has shape "
        "(None, 30, 30, 64), "
        "which cannot be merged. No shortcut can be inferred: the branch takes sizes of 32, 240, 241 to 30, 238, 239, "
        "which is neither a stride nor a whole factor. Pass padding='same' to the branch's layers, or `shortcut=` a "
        "layer that makes the branch's shape, such as a cropping layer.",
    ),
    "a branch that crops pictures of any size": (
        lambda: residual(valid_convolution()).build((None, None, None, 64)),
        "Residual 'block': the input has shape (None, None, None, 64) and the branch's output has shape (None, None, "
        "None, 64), which cannot be merged. No shortcut can be inferred: the branch takes sizes of 240, 241, 242 to "
        "238, 239, 240, which is neither a stride nor a whole factor. Pass padding='same' to the branch's layers, or "
        "`shortcut=` a layer that makes the branch's shape, such as a cropping layer.",
    ),
    "strides that do not divide": (
        lambda: residual(layers.Conv2D(64, 3, strides=2)).build((None, 30, 30, 64)),
        "Residual 'block': the input has shape (None, 30, 30, 64) and the branch's output has shape "
        "(None, 14, 14, 64), "
        "which cannot be merged. No shortcut can be inferred: the branch takes sizes of 30, 240, 241 to 14, 119, 120, "
        "which is neither a stride nor a whole factor. Pass padding='same' to the branch's layers, or `shortcut=` a "
        "layer that makes the branch's shape, such as a cropping layer.",
    ),
    "an identity between two shapes": (
        lambda: residual(dense(), shortcut="identity").build((None, 6)),
        "Residual 'block': the shortcut's output has shape (None, 6) and the branch's output has "
        "shape (None, 4), which "
        "cannot be merged. Pass shortcut='projection', or a layer that makes the branch's shape.",
    ),
    "an own shortcut of another shape": (
        lambda: residual(dense(), shortcut=layers.Dense(5)).build((None, 6)),
        "Residual 'block': the shortcut's output has shape (None, 5) and the branch's output has "
        "shape (None, 4), which "
        "cannot be merged. Pass shortcut='projection', or a layer that makes the branch's shape.",
    ),
    "an own shortcut that would be broadcast": (
        lambda: residual(dense(), shortcut=layers.Dense(1), merge="mean").build((None, 6)),
        "Residual 'block': the shortcut's output has shape (None, 1) and the branch's output has "
        "shape (None, 4), which "
        "cannot be merged. Pass shortcut='projection', or a layer that makes the branch's shape.",
    ),
    "strides of one's own that do not fit": (
        lambda: residual(layers.Conv2D(8, 1), shortcut=ProjectionShortcut(strides=2)).build((None, 8, 8, 4)),
        "Residual 'block': the shortcut's output has shape (None, 4, 4, 8) and the branch's output has shape (None, 8, "
        "8, 8), which cannot be merged. Pass shortcut='projection', or a layer that makes the branch's shape.",
    ),
    "a branch of another rank": (
        lambda: residual(layers.Flatten()).build((None, 4, 4, 2)),
        "Residual 'block': the input has shape (None, 4, 4, 2) and the branch's output has shape (None, 32), which "
        "cannot be merged. No shortcut can be inferred between ranks: pass `shortcut=` a layer that makes the branch's "
        "shape.",
    ),
    "a branch that returns two tensors": (
        lambda: residual(Pair(name="pair")).build((None, 4)),
        "Residual 'block': `branch` must return one tensor, but its layer 'pair' (Pair) returned a tuple of 2. Wrap it "
        "in a layer that returns the one to be merged.",
    ),
    "several inputs": (
        lambda: residual(dense())([np.ones((2, 4)), np.ones((2, 4))]),
        "Residual 'block': `inputs` must be one tensor of shape (batch, …, channels), but received [(2, 4), (2, 4)] "
        "(list). Merge several tensors, or choose one, before.",
    ),
    "an input without channels": (
        lambda: residual(dense()).build((None, None)),
        "Residual 'block': `inputs` must be a tensor (batch, …, channels) with a known number of "
        "channels, but received "
        "(None, None) (tuple).",
    ),
    "zero padding to fewer channels": (
        lambda: residual(dense(), shortcut="zero_pad").build((None, 6)),
        "ZeroPadShortcut 'shortcut': `filters` must be at least the number of input channels, 6, but received 4 (int). "
        "Zeros can only be added: use a projection for fewer channels.",
    ),
}


@pytest.mark.parametrize("case", [*MADE, *BUILT])
def test_message(case: str) -> None:
    make, message = {**MADE, **BUILT}[case]
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        make()


def test_a_branch_that_returns_nothing_is_named() -> None:
    # PyTorch's backend stumbles over the None before it comes out, and its own words follow ours.
    start = (
        "Residual 'block': `branch` (must return one tensor|has a layer, 'nothing' (Nothing), that cannot be called)"
    )
    with pytest.raises(ValueError, match=start.replace("(Nothing)", r"\(Nothing\)")):
        residual(Nothing(name="nothing"))(np.ones((2, 4)))


@pytest.mark.parametrize("layer", [lambda: layers.Dense(8), lambda: layers.LayerNormalization()])
def test_a_branch_built_for_another_shape(layer: Any) -> None:
    built = layer()
    built.build((None, 5))
    message = (
        f"Residual 'block': `branch` has a layer, {built.name!r} ({type(built).__name__}), that was already built for "
        "another input (None, 5) and cannot take one of shape (None, 8). Pass a new layer."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        residual(built).build((None, 8))


def test_a_branch_of_several_inputs() -> None:
    inputs = [keras.Input((8,)), keras.Input((8,))]
    model = keras.Model(inputs, layers.Add()(inputs), name="two")
    with pytest.raises(ValueError, match=r"has a layer, 'two' \(Functional\), that takes 2 inputs, but gets one"):
        Residual(model)(keras.Input((8,)))


def test_a_branch_built_for_this_shape_keeps_its_weights() -> None:
    built = layers.Dense(8)
    built.build((None, 8))
    before = np.asarray(keras.ops.convert_to_numpy(built.kernel))
    residual(built).build((None, 8))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(built.kernel), before)


@pytest.mark.parametrize("argument", ["shortcut", "merge", "branch_scale", "skip_scale", "norm", "activation"])
def test_one_layer_in_the_branch_and_elsewhere(argument: str) -> None:
    layer = layers.Dense(4, name="both")
    message = (
        f"Residual 'block': the layer 'both' (Dense) is in `branch` and in `{argument}`. Each needs an instance of "
        f"its own: make a second layer for `{argument}`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        residual([layers.ReLU(), layer], **{argument: layer})


def test_a_layer_of_the_branch_inside_the_shortcut() -> None:
    layer = layers.Dense(4, name="both")
    with pytest.raises(ValueError, match=r"the layer 'both' \(Dense\) is in `branch` and in `shortcut`"):
        residual(keras.Sequential([layer]), shortcut=keras.Sequential([layers.ReLU(), layer]))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda n: residual(residual_around(n), shortcut=n), ("branch", "shortcut")),
        (lambda n: residual(layers.TimeDistributed(n), shortcut=n), ("branch", "shortcut")),
        (lambda n: residual(dense(), shortcut=n, norm=n), ("shortcut", "norm")),
    ],
)
def test_one_layer_in_two_places_at_any_depth(make: Any, named: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=f"is in `{named[0]}` and in `{named[1]}`"):
        make(layers.Dense(4))


def residual_around(layer: keras.Layer) -> Residual:
    return Residual(layer)


@pytest.mark.parametrize(
    ("branch", "size"),
    [
        (lambda: layers.Conv2D(4, 3), 5),
        (lambda: layers.Conv2D(4, 3, strides=2), 7),
        (lambda: layers.GlobalAveragePooling2D(keepdims=True), 8),
    ],
)
def test_a_crop_of_a_small_picture_is_no_stride(branch: Any, size: int) -> None:
    with pytest.raises(ValueError, match=r"^Residual 'block': .* No shortcut can be inferred: the branch takes sizes"):
        residual(branch()).build((None, size, size, 4))


@pytest.mark.parametrize("argument", ["norm", "branch_scale", "activation"])
def test_a_part_that_changes_the_shape(argument: str) -> None:
    part = layers.Dense(3, name="part")
    message = (
        f"Residual 'block': `{argument}` must be a layer that keeps the shape, (None, 4), but received 'part' (str). "
        "It returns (None, 3)."
    )
    if argument == "norm":
        message = message.replace("'part'", "'pre_norm'")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        residual(dense(), **{argument: part}).build((None, 4))


@pytest.mark.parametrize("merge", [lambda: layers.Add(), lambda: layers.Dense(3)])
def test_a_merge_of_keras_that_does_not_fit(merge: Any) -> None:
    with pytest.raises(ValueError, match=r"^Residual 'block': (the shortcut's output|`merge` must be)"):
        residual(layers.Dense(1), merge=merge(), shortcut="identity").build((None, 4))


def test_a_norm_of_another_axis() -> None:
    branch = layers.Conv2D(6, 3, padding="same", data_format="channels_first")
    with pytest.raises(ValueError, match="`norm` must be a norm on the channels, which the branch has in axis 1"):
        residual(branch, norm=layers.BatchNormalization()).build((None, 6, 8, 9))


@pytest.mark.parametrize("position", [5, None, (), ("pre", "pre")])
def test_places_that_are_none(position: Any) -> None:
    with pytest.raises(ValueError, match="`norm_position` must be one of pre, post, out, peri, or a sequence of"):
        residual(dense(), norm="layer_norm", norm_position=position)


@pytest.mark.parametrize("activation", [layers.ReLU, 5])
def test_an_activation_that_is_none(activation: Any) -> None:
    with pytest.raises(TypeError, match="`activation` must be a name, a function or a layer, and not a class"):
        residual(dense(), activation=activation)


def test_a_built_connection_called_with_another_width() -> None:
    layer = residual(dense())
    layer.build((None, 6))
    with pytest.raises(ValueError, match="of layer 'block' is incompatible with the layer"):
        layer(np.ones((2, 7)))


def test_an_activation_with_a_typo() -> None:
    with pytest.raises(
        ValueError, match=r"^Residual 'block': unknown name for `activation`: 'rleu'. Did you mean 'relu'"
    ):
        residual(dense(), activation="rleu")
