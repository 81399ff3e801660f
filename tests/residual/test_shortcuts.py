"""Shortcuts against direct formulas, alone and around a branch, in each number of dimensions and data format."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from backend_helpers import gradients
from contract import assert_close, assert_layer_contract, perturb, to_numpy
from keras_residual import AvgPoolShortcut, ProjectionShortcut, Residual, ZeroPadShortcut

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


CASES: dict[str, Any] = {
    "dense": (lambda: ProjectionShortcut(5), (3, 4), True),
    "dense on a sequence": (lambda: ProjectionShortcut(5), (3, 6, 4), True),
    "series": (lambda: ProjectionShortcut(5, strides=2), (3, 7, 4), False),
    "picture with a norm": (lambda: ProjectionShortcut(5, strides=2, norm="batch_norm"), (3, 7, 6, 4), False),
    "volume": (lambda: ProjectionShortcut(5, strides=(1, 2, 3)), (2, 5, 6, 7, 4), False),
    "pooled series": (lambda: AvgPoolShortcut(5, strides=2), (3, 7, 4), False),
    "pooled picture": (lambda: AvgPoolShortcut(5, strides=2, norm=layers.LayerNormalization()), (3, 7, 6, 4), False),
    "pooled without strides": (lambda: AvgPoolShortcut(5), (3, 6, 4), True),
    "padded": (lambda: ZeroPadShortcut(7), (3, 4), True),
    "padded on both sides": (lambda: ZeroPadShortcut(7, strides=2, pad="both"), (3, 6, 5, 4), False),
}


@pytest.mark.every
@pytest.mark.parametrize("case", CASES)
def test_contract(case: str) -> None:
    make, shape, masks = CASES[case]
    assert_layer_contract(make, shape, masks=masks)


def test_dense_where_it_is_enough_and_a_convolution_where_it_is_not() -> None:
    kinds = {}
    for shape, strides in (((None, 4), 1), ((None, 6, 4), 1), ((None, 6, 4), 2), ((None, 6, 6, 4), 1)):
        shortcut = ProjectionShortcut(5, strides=strides)
        shortcut.build(shape)
        kinds[shape, strides] = type(shortcut.projection).__name__
    assert list(kinds.values()) == ["Dense", "Dense", "Conv1D", "SymmetricConv2D"]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_projection_is_a_matrix_on_every_stride_th_position(rank: int) -> None:
    shortcut = ProjectionShortcut(5, strides=2, use_bias=True)
    x = normal(2, *[5] * rank, 4)
    shortcut(x)
    perturb(shortcut)
    kernel, bias = shortcut.projection.get_weights()
    taken = x[(slice(None), *[slice(None, None, 2)] * rank)]
    assert_close(shortcut(x), taken @ kernel.reshape(4, 5) + bias)


def test_projection_by_the_identity_matrix_is_the_identity() -> None:
    x = normal(2, 5, 5, 4)
    shortcut = ProjectionShortcut(4, use_bias=False)
    shortcut.build((None, 5, 5, 4))
    shortcut.set_weights([np.eye(4).reshape(1, 1, 4, 4)])
    assert_close(shortcut(x), x, 1e-6)


def test_avg_pool_is_the_mean_of_the_inputs_that_are_there() -> None:
    x = normal(2, 5, 4, 3)
    shortcut = AvgPoolShortcut(3, strides=2, use_bias=False)
    shortcut.build(x.shape)
    shortcut.set_weights([np.eye(3).reshape(1, 1, 3, 3)])
    direct = np.stack(
        [
            np.stack([x[:, i : i + 2, j : j + 2].mean(axis=(1, 2)) for j in range(0, 4, 2)], axis=1)
            for i in range(0, 5, 2)  # the last window has one row only
        ],
        axis=1,
    )
    assert_close(shortcut(x), direct)


def test_a_strided_projection_is_blind_to_three_quarters_of_a_map_and_avg_pool_to_none() -> None:
    x = normal(1, 6, 6, 3)
    seen = {}
    for shortcut in (ProjectionShortcut(4, strides=2), AvgPoolShortcut(4, strides=2)):
        shortcut.build(x.shape)
        gradient = gradients(shortcut, [x])[0][0]
        seen[type(shortcut).__name__] = float(np.mean(np.any(gradient != 0, axis=-1)))
    assert seen == {"ProjectionShortcut": 0.25, "AvgPoolShortcut": 1.0}


@pytest.mark.parametrize(("pad", "before"), [("end", 0), ("both", 1)])
def test_zero_pad_takes_positions_and_adds_zeros(pad: str, before: int) -> None:
    x = normal(2, 5, 4, 3)
    y = to_numpy(ZeroPadShortcut(6, strides=2, pad=pad)(x))
    np.testing.assert_array_equal(y[..., before : before + 3], x[:, ::2, ::2])
    assert not np.any(np.delete(y, range(before, before + 3), axis=-1))


def test_option_a_adds_no_parameters_and_the_new_channels_are_the_branch() -> None:
    branch = layers.Conv2D(5, 3, strides=2, padding="same")
    layer = Residual(branch, shortcut="zero_pad")
    x = normal(2, 6, 6, 3)
    y = to_numpy(layer(x))
    np.testing.assert_array_equal(y[..., 3:], to_numpy(branch(x))[..., 3:])
    assert layer.count_params() == branch.count_params()


@pytest.mark.parametrize("name", ["projection", "zero_pad", "avg_pool"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_channels_first_gives_what_channels_last_gives(name: str, rank: int) -> None:
    x = normal(2, *[5] * rank, 4)
    kinds = {
        "projection": lambda data_format: ProjectionShortcut(6, strides=2, data_format=data_format),
        "zero_pad": lambda data_format: ZeroPadShortcut(6, strides=2, data_format=data_format),
        "avg_pool": lambda data_format: AvgPoolShortcut(6, strides=2, norm="batch_norm", data_format=data_format),
    }
    last, first = kinds[name]("channels_last"), kinds[name]("channels_first")
    last.build(x.shape)
    first.build((2, 4, *[5] * rank))
    perturb(last)
    # On a pooled series one is a Dense layer and the other a convolution, whose kernels differ by an axis of one.
    first.set_weights([w.reshape(v.shape) for w, v in zip(last.get_weights(), first.weights, strict=True)])
    assert_close(np.moveaxis(to_numpy(first(np.moveaxis(x, -1, 1))), 1, -1), last(x))


def test_always_false_is_the_identity_where_shapes_agree() -> None:
    same = Residual(layers.Dense(4), shortcut=ProjectionShortcut(norm="batch_norm", always=False))
    other = Residual(layers.Dense(5), shortcut=ProjectionShortcut(norm="batch_norm", always=False))
    same.build((None, 4))
    other.build((None, 4))
    assert same.shortcut_layer is None
    assert same.count_params() == 4 * 4 + 4
    assert other.count_params() == (4 * 5 + 5) + (4 * 5 + 4 * 5)


def test_what_was_inferred_is_no_argument() -> None:
    shortcut = ProjectionShortcut(norm="layer_norm")
    Residual(layers.Conv1D(6, 3, strides=2, padding="same"), shortcut=shortcut).build((None, 8, 4))
    config = shortcut.get_config()
    assert (config["filters"], config["strides"], config["data_format"]) == (None, None, None)
    message = (
        f"ProjectionShortcut {shortcut.name!r}: already serves another connection, with 6 filters, channels_last, "
        "sizes (n/2 rounded up), and cannot serve one with 5 filters, channels_last, sizes (n). "
        "Create a second shortcut."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Residual(layers.Conv1D(5, 3, padding="same"), shortcut=shortcut).build((None, 8, 4))


MISTAKES: dict[str, Any] = {
    "no filters": (
        lambda: ProjectionShortcut(name="s").build((None, 4)),
        "ProjectionShortcut 's': `filters` must be a positive whole number, but received None (NoneType). Outside a "
        "Residual nothing can infer it.",
    ),
    "no channel at all": (
        lambda: ProjectionShortcut(0),
        "ProjectionShortcut: `filters` must be a positive whole number or None, but received 0 (int).",
    ),
    "a stride of zero": (
        lambda: AvgPoolShortcut(4, strides=0),
        "AvgPoolShortcut: `strides` must be positive whole numbers or None, but received 0 (int).",
    ),
    "strides of another rank": (
        lambda: ProjectionShortcut(4, strides=(2, 2), name="s").build((None, 8, 4)),
        "ProjectionShortcut 's': `strides` must be one number or 1 of them, for the input shape (None, 8, 4), but "
        "received (2, 2) (tuple).",
    ),
    "a norm with a typo": (
        lambda: ProjectionShortcut(4, norm="layernorm"),
        "ProjectionShortcut: unknown name for `norm`: 'layernorm'. Did you mean 'layer_norm'? Known: batch_norm, "
        "layer_norm, group_norm, rms_norm.",
    ),
    "a side with a typo": (
        lambda: ZeroPadShortcut(4, pad="ends"),
        "ZeroPadShortcut: unknown name for `pad`: 'ends'. Did you mean 'end'? Known: end, both.",
    ),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("case", MISTAKES)
def test_message(case: str) -> None:
    make, message = MISTAKES[case]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_a_norm_given_as_a_layer_is_copied() -> None:
    norm = keras.layers.BatchNormalization(momentum=0.5)
    first, second = ProjectionShortcut(4, norm=norm), ProjectionShortcut(4, norm=norm)
    first.build((None, 3))
    second.build((None, 3))
    assert first.projection_norm is not second.projection_norm
    assert first.projection_norm.momentum == 0.5


@pytest.mark.parametrize("shortcut", [ProjectionShortcut, AvgPoolShortcut, ZeroPadShortcut])
def test_a_mask_passes_without_strides_and_ends_at_a_stride(shortcut: Any) -> None:
    x, mask = keras.KerasTensor((1, 4, 3)), np.array([[True, True, True, False]])
    assert shortcut(3).compute_mask(x, mask) is mask
    assert shortcut(3, strides=2).compute_mask(x, mask) is None


# --- Sizes that a branch rounds down, and sizes that it multiplies ---------------------------------------------------

DOWN = {
    "max pool": lambda: [layers.Conv2D(8, 3, padding="same"), layers.MaxPooling2D(2)],
    "average pool by 3": lambda: layers.AveragePooling2D(3),
    "patches": lambda: layers.Conv2D(8, 2, strides=2),
    "one axis": lambda: layers.MaxPooling2D((1, 2)),
    "twice": lambda: [layers.MaxPooling2D(2), layers.MaxPooling2D(2)],
}
UP = {
    "transposed": lambda: layers.Conv2DTranspose(8, 3, strides=2, padding="same"),
    "nearest by 3": lambda: [layers.UpSampling2D(3), layers.Conv2D(8, 3, padding="same")],
    "one axis": lambda: layers.UpSampling2D((1, 2)),
    "up and down": lambda: [layers.UpSampling2D((2, 1)), layers.MaxPooling2D((1, 2))],
}


@pytest.mark.parametrize("shortcut", ["auto", "avg_pool", "zero_pad"])
@pytest.mark.parametrize("name", [*DOWN, *(f"{name}, up" for name in UP)])
def test_a_shortcut_follows_every_size(name: str, shortcut: str) -> None:
    make = UP[name.removesuffix(", up")] if name.endswith(", up") else DOWN[name]
    inputs = keras.Input((None, None, 8))
    layer = Residual(make(), shortcut=shortcut)
    model = keras.Model(inputs, layer(inputs))
    for height, width in ((8, 8), (7, 7), (9, 10), (5, 11)):
        x = np.random.default_rng(0).normal(size=(1, height, width, 8)).astype("float32")
        branch: Any = x
        for part in layer.branch:
            branch = part(branch)
        assert to_numpy(model(x)).shape == tuple(branch.shape)
        if keras.backend.backend() == "tensorflow":  # a program of which knows no sizes
            assert model.predict(x, verbose=0).shape == tuple(branch.shape)


def test_upsampling_repeats_and_rounding_down_drops() -> None:
    x = np.arange(1.0, 6.0, dtype="float32").reshape(1, 5, 1)
    up = Residual(layers.Conv1DTranspose(1, 2, strides=2, kernel_initializer="zeros"), shortcut=identity_projection())
    assert to_numpy(up(x)).ravel().tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    down = Residual(layers.Conv1D(1, 2, strides=2, kernel_initializer="zeros"), shortcut=identity_projection())
    assert to_numpy(down(x)).ravel().tolist() == [1, 3]
    again = keras.models.clone_model(keras.Sequential([keras.Input((5, 1)), down]))
    assert again.output_shape == (None, 2, 1)


def identity_projection() -> ProjectionShortcut:
    return ProjectionShortcut(kernel_initializer="ones", use_bias=False)


def test_channels_first_upsampling() -> None:
    layer = Residual(layers.UpSampling2D(2, data_format="channels_first"), shortcut="projection")
    assert layer.compute_output_shape((None, 3, 4, 5)) == (None, 3, 8, 10)
    assert layer.shortcut_layer.compute_output_shape((None, 3, 4, 5)) == (None, 3, 8, 10)


UNKNOWN = (None, None, None, 4)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Residual(layers.MaxPooling2D(2), shortcut="identity"),
        lambda: Residual(layers.Conv2D(4, 3, padding="same"), shortcut=layers.MaxPooling2D(2)),
        lambda: Residual(layers.MaxPooling2D(2), shortcut=layers.MaxPooling2D(2, padding="same")),
        lambda: Residual(layers.MaxPooling2D(2), shortcut=layers.MaxPooling2D(2, padding="same"), merge="mean"),
        lambda: Residual(layers.MaxPooling2D(2), shortcut=layers.MaxPooling2D(2, padding="same"), merge=layers.Add()),
        lambda: Residual([layers.MaxPooling2D(2, padding="same"), layers.UpSampling2D(2)]),
        lambda: Residual(layers.Conv2DTranspose(4, 3, strides=2)),
    ],
)
def test_paths_that_differ_at_some_size_are_refused_where_no_size_is_known(layer: Any) -> None:
    with pytest.raises(ValueError, match="cannot be merged"):
        layer().build(UNKNOWN)


def test_nothing_is_broadcast_where_a_program_finds_sizes_as_it_runs() -> None:
    class Liar(layers.Layer):
        """Says that it rounds 3 / 2 up, and rounds it down."""

        def call(self, inputs: Any) -> Any:
            return keras.ops.max_pool(inputs, 2, 2, "valid")

        def compute_output_shape(self, shape: Any) -> Any:
            return (shape[0], shape[1] and (shape[1] + 1) // 2, shape[2])

    for merge, jit_compile in (("add", False), ("add", True), ("mean", False), (layers.Add(), False)):
        inputs = keras.Input((None, 2))
        model = keras.Model(inputs, Residual(Liar(), merge=merge)(inputs))
        model.compile(jit_compile=jit_compile and keras.backend.backend() != "torch")
        assert model.predict(np.ones((1, 4, 2)), verbose=0).shape == (1, 2, 2)
        with pytest.raises(Exception, match=r"shape|size"):
            model.predict(np.ones((1, 3, 2)), verbose=0)
