"""One residual connection: its formula, what it infers, and what it promises on each axis."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from backend_helpers import gradients
from contract import MaskProbe, assert_close, assert_layer_contract, perturb, to_numpy
from keras_residual import AddMerge, LayerScale, ProjectionShortcut, Residual, depth_rules

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def conv(filters: int, **kwargs: Any) -> layers.Conv2D:
    return layers.Conv2D(filters, 3, padding="same", **kwargs)


CASES: dict[str, Any] = {
    "vector": (lambda: Residual(layers.Dense(6)), (4, 6)),
    "vector, projected": (lambda: Residual([layers.Dense(8, activation="relu"), layers.Dense(3)]), (4, 6)),
    "sequence": (lambda: Residual(layers.Dense(6), norm="layer_norm", norm_position="peri"), (4, 5, 6)),
    "series, strided": (lambda: Residual(layers.Conv1D(4, 3, strides=2, padding="same")), (4, 7, 6)),
    "picture": (lambda: Residual([conv(3), layers.BatchNormalization()], activation="relu"), (4, 6, 6, 3)),
    "picture, strided": (lambda: Residual([conv(5, strides=2)], norm="batch_norm"), (4, 7, 7, 3)),
    "volume": (lambda: Residual(layers.Conv3D(3, 3, padding="same"), shortcut="projection"), (2, 4, 4, 4, 3)),
    "zero_pad": (lambda: Residual(conv(5, strides=2), shortcut="zero_pad"), (4, 6, 6, 3)),
    "avg_pool": (lambda: Residual(conv(5, strides=2), shortcut="avg_pool"), (4, 7, 7, 3)),
    "own shortcut": (lambda: Residual(layers.Dense(4), shortcut=layers.Dense(4, use_bias=False)), (4, 6)),
    "concat": (lambda: Residual(layers.Dense(4), merge="concat"), (4, 3, 6)),
    "keras merge": (lambda: Residual(layers.Dense(6), merge=layers.Maximum()), (4, 3, 6)),
    "scales": (lambda: Residual(layers.Dense(6), branch_scale=0.5, skip_scale="inverse_sqrt_2"), (4, 6)),
    "layer_scale": (lambda: Residual(layers.Dense(6), branch_scale="layer_scale", skip_scale=LayerScale(1.0)), (4, 6)),
    "fixup": (lambda: Residual(layers.Dense(6), branch_scale="fixup"), (4, 6)),
    "drop_path": (lambda: Residual(layers.Dense(6), drop_path_rate=0.5), (16, 6)),
    "dropout": (lambda: Residual([layers.Dense(6), layers.Dropout(0.5)]), (16, 3, 6)),
    "keel": (lambda: Residual(layers.Dense(6), norm="rms_norm", norm_position=("pre", "post"), skip_scale=8), (4, 6)),
    "group norm": (lambda: Residual(conv(6), norm="group_norm", norm_position="out"), (4, 4, 4, 6)),
    "norm layer": (lambda: Residual(conv(6), norm=layers.LayerNormalization(), norm_position="peri"), (4, 4, 4, 6)),
    "layer activation": (lambda: Residual(layers.Dense(6), activation=layers.PReLU()), (4, 6)),
    "preactivation": (
        lambda: Residual(layers.Dense(4), preactivation=[layers.BatchNormalization(), layers.ReLU()]),
        (8, 6),
    ),
    "nested": (lambda: Residual([layers.Dense(6), Residual(layers.Dense(6), norm="layer_norm")]), (4, 6)),
}


@pytest.mark.every
@pytest.mark.parametrize("case", CASES)
def test_contract(case: str) -> None:
    make, shape = CASES[case]
    # Keras's convolutions destroy masks and say so with a warning; those of sequences pass.
    assert_layer_contract(make, shape, masks=len(shape) == 3 and "strided" not in case)


@pytest.mark.parametrize("merge", ["highway", "gru", "lerp", "grn", "delta", "orthogonal", "normalized_lerp", "mean"])
def test_contract_with_each_kind_of_merge(merge: str) -> None:
    assert_layer_contract(lambda: Residual(layers.Dense(6), merge=merge), (4, 6))


# --- The formula -----------------------------------------------------------------------------------------------------


def test_is_the_whole_formula() -> None:
    branch = layers.Dense(6, name="branch")
    layer = Residual(
        branch,
        branch_scale=0.3,
        skip_scale=2.0,
        norm=layers.LayerNormalization(epsilon=1e-6),
        norm_position=("pre", "out", "post"),
        activation="tanh",
    )
    x = normal(4, 6)
    layer(x)
    perturb(layer)
    pre, out, post = layer.pre_norm, layer.out_norm, layer.post_norm
    direct = ops.tanh(post(2.0 * ops.convert_to_tensor(x) + 0.3 * out(branch(pre(x)))))
    assert_close(layer(x), direct, 1e-6)
    assert len({id(norm) for norm in (pre, out, post)}) == 3


def test_a_zero_branch_is_the_identity_and_with_relu_the_relu() -> None:
    x = normal(4, 6)
    np.testing.assert_array_equal(to_numpy(Residual(layers.Dense(6, kernel_initializer="zeros"))(x)), x)
    v1 = Residual(layers.Dense(6, kernel_initializer="zeros"), activation="relu")
    np.testing.assert_array_equal(to_numpy(v1(x)), np.maximum(x, 0))
    np.testing.assert_array_equal(input_gradient(v1, x), input_gradient(lambda v: v, x) * (x > 0))


def input_gradient(function: Any, x: np.ndarray) -> np.ndarray | None:
    return gradients(function, [x])[0][0]


def test_a_stack_of_zero_branches_is_the_identity_with_jacobian_one() -> None:
    blocks = [Residual(layers.Dense(6, kernel_initializer="zeros"), norm="layer_norm") for _ in range(20)]
    x = normal(3, 6)

    def stack(y: Any) -> Any:
        for block in blocks:
            y = block(y)
        return y

    np.testing.assert_array_equal(to_numpy(stack(x)), x)
    np.testing.assert_array_equal(input_gradient(stack, x), input_gradient(lambda v: v, x))


def test_rezero_starts_as_the_identity_and_learns_its_factor_first() -> None:
    layer = Residual(layers.Dense(6, name="branch"), branch_scale="skip_init")
    x = normal(4, 6)
    np.testing.assert_array_equal(to_numpy(layer(x)), x)
    _, found = gradients(lambda v: layer(v), [x], layer.trainable_variables)
    moved = {v.path.split("/")[-1]: bool(np.any(g)) for v, g in zip(layer.trainable_variables, found, strict=True)}
    assert moved.pop("scale", moved.pop("factor", None)) is True
    assert not any(moved.values())


def test_inverse_sqrt_2_on_both_paths_keeps_the_variance() -> None:
    layer = Residual(layers.Identity(), branch_scale="inverse_sqrt_2", skip_scale="inverse_sqrt_2")
    skip, branch = normal(200_000, 1), normal(200_000, 1)
    layer.build((None, 1))
    merged = layer.merge_layer([skip * layer.skip_scale_layer, branch * layer.branch_scale_layer])
    assert np.var(to_numpy(merged)) == pytest.approx(1.0, abs=0.02)
    assert_close(layer(skip), skip * 2**0.5)


# --- Norm placement --------------------------------------------------------------------------------------------------


def testpre_norm_makes_the_branch_blind_to_the_scale_of_the_input() -> None:
    layer = Residual(layers.Dense(8), norm=layers.LayerNormalization(epsilon=1e-12))
    x = normal(4, 8)
    assert_close(to_numpy(layer(100 * x)) - 100 * x, to_numpy(layer(x)) - x, 1e-4)


def testpost_norm_fixes_the_norm_of_the_output() -> None:
    y = to_numpy(Residual(layers.Dense(64), norm="layer_norm", norm_position="post")(10 * normal(4, 64)))
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), 8.0, rtol=1e-3)


def testout_norm_fixes_the_norm_of_what_is_added() -> None:
    x = normal(4, 64)
    y = to_numpy(Residual(layers.Dense(64), norm="rms_norm", norm_position="out")(x))
    np.testing.assert_allclose(np.linalg.norm(y - x, axis=-1), 8.0, rtol=1e-3)


def test_peri_norm_adds_one_to_the_variance() -> None:
    x = 3 * normal(4000, 64)
    y = to_numpy(Residual(layers.Dense(64), norm="layer_norm", norm_position="peri")(x))
    assert np.var(y) == pytest.approx(np.var(x) + 1, rel=0.05)


def test_deepnorm_and_keel_against_their_formulas() -> None:
    x = normal(4, 6)
    norm = layers.LayerNormalization()
    for scales, positions in ((depth_rules.deepnorm(100), "post"), (depth_rules.keel(100), ("pre", "post"))):
        branch = layers.Dense(6)
        layer = Residual(branch, norm="layer_norm", norm_position=positions, skip_scale=scales.skip_scale)
        y = layer(x)
        inner = branch(norm(x)) if positions == ("pre", "post") else branch(x)
        assert_close(y, norm(scales.skip_scale * ops.convert_to_tensor(x) + inner), 1e-5)


# --- Drop path -------------------------------------------------------------------------------------------------------


def test_drop_path_drops_the_branch_of_a_row_and_only_in_training() -> None:
    branch = layers.Dense(6)
    layer = Residual(branch, drop_path_rate=0.4, activation=None)
    x = normal(200, 6)
    y = to_numpy(layer(x, training=True))
    full = x + to_numpy(branch(x)) / 0.6
    dropped = np.all(y == x, axis=-1)
    np.testing.assert_allclose(y[~dropped], full[~dropped], rtol=1e-4, atol=1e-5)
    assert 0.25 < dropped.mean() < 0.55
    assert_close(layer(x), x + to_numpy(branch(x)), 1e-6)


def test_stateless_call_hands_training_on() -> None:
    layer = Residual(layers.BatchNormalization(momentum=0.5))
    layer.build((None, 3))
    x = normal(64, 3) + 5
    _, state = layer.stateless_call(layer.trainable_variables, layer.non_trainable_variables, x, training=True)
    assert np.abs(to_numpy(state[0])).min() > 1  # the moving mean has moved


# --- What is inferred ------------------------------------------------------------------------------------------------


def shortcut_of(layer: Residual, *shape: int | None) -> keras.Layer | None:
    layer.build(shape)
    return layer.shortcut_layer


def test_auto_is_the_identity_where_shapes_agree() -> None:
    assert shortcut_of(Residual(conv(8)), None, 6, 6, 8) is None
    assert shortcut_of(Residual(conv(8)), None, None, None, 8) is None


@pytest.mark.parametrize(
    ("branch", "shape", "strides"),
    [
        (lambda: conv(8, strides=2), (None, 6, 6, 8), (2, 2)),
        (lambda: conv(8, strides=(1, 2)), (None, 6, 7, 8), (1, 2)),
        (lambda: conv(8, strides=2), (None, 7, 5, 8), (2, 2)),
        (lambda: conv(8, strides=3), (None, None, None, 8), (3, 3)),
        (lambda: conv(8, strides=(2, 1)), (None, None, 9, 4), (2, 1)),
        (lambda: layers.MaxPooling2D(4), (None, 32, 32, 8), (4, 4)),
        (lambda: layers.Conv1D(4, 3, strides=2, padding="causal"), (None, None, 4), (2,)),
    ],
)
def test_auto_infers_filters_and_strides(branch: Any, shape: Any, strides: tuple[int, ...]) -> None:
    layer = branch()
    shortcut = shortcut_of(Residual(layer), *shape)
    assert isinstance(shortcut, ProjectionShortcut)
    assert shortcut.projection.strides == strides
    assert shortcut.projection.filters == getattr(layer, "filters", 8)


def test_one_network_takes_pictures_of_any_size() -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, Residual(conv(4, strides=2))(inputs))
    assert model.output_shape == (None, None, None, 4)
    assert to_numpy(model(normal(1, 9, 6, 3))).shape == (1, 5, 3, 4)


def test_channels_first_is_read_off_the_branch() -> None:
    layer = Residual(conv(8, strides=2, data_format="channels_first"), norm="batch_norm")
    shortcut = shortcut_of(layer, None, 4, 6, 6)
    assert shortcut.compute_output_shape((None, 4, 6, 6)) == (None, 8, 3, 3)
    assert layer.pre_norm.axis == 1
    nested = Residual(Residual(layers.Conv2D(4, 1, data_format="channels_first")), norm="batch_norm")
    nested.build((None, 4, 6, 7))
    assert nested.pre_norm.axis == 1
    branch = layers.Conv2D(8, 1, data_format="channels_first")
    assert Residual(branch, merge="concat").compute_output_shape((None, 4, 6, 6)) == (None, 12, 6, 6)


def test_a_layer_without_build_or_shape_function_is_a_branch() -> None:
    class Lazy(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    layer = Residual(Lazy())
    assert to_numpy(layer(normal(2, 6))).shape == (2, 4)
    assert layer.compute_output_shape((None, 6)) == (None, 4)
    assert layer.count_params() == (6 * 4 + 4) + (6 * 4 + 4)


def test_concat_keeps_the_channels_of_the_skip_and_projects_only_its_size() -> None:
    assert Residual(layers.Dense(7), merge="concat")(normal(2, 4)).shape == (2, 11)
    assert Residual(layers.Dense(7), merge=layers.Concatenate())(normal(2, 4)).shape == (2, 11)
    assert Residual(conv(7, strides=2), merge="concat")(normal(2, 4, 4, 3)).shape == (2, 2, 2, 10)


def test_inner_layers_follow_the_dtype_policy_of_the_connection() -> None:
    layer = Residual(
        layers.Dense(4, dtype="mixed_bfloat16"),
        norm="layer_norm",
        merge="gru",
        branch_scale="layer_scale",
        drop_path_rate=0.1,
        dtype="mixed_bfloat16",
    )
    assert keras.backend.standardize_dtype(layer(normal(2, 6)).dtype) == "bfloat16"
    inner = (layer.merge_layer, layer.pre_norm, layer.shortcut_layer, layer.drop_path, layer.branch_scale_layer)
    assert {part.compute_dtype for part in inner} == {"bfloat16"}


@pytest.mark.parametrize("merge", ["add", "gru"])
def test_the_output_has_the_dtype_of_the_connection_whatever_the_paths_have(merge: str) -> None:
    paths = {"branch": layers.Dense(4, dtype="mixed_bfloat16"), "shortcut": layers.Dense(4, dtype="mixed_float16")}
    assert keras.backend.standardize_dtype(Residual(**paths, merge=merge)(normal(2, 6)).dtype) == "float32"


def test_a_frozen_connection_has_nothing_to_train() -> None:
    layer = Residual(layers.Dense(4), norm="batch_norm", branch_scale="layer_scale")
    layer.build((None, 6))
    assert layer.trainable_weights
    layer.trainable = False
    assert not layer.trainable_weights


def test_weights_keep_their_paths_through_a_file(tmp_path: Any) -> None:
    inputs = keras.Input((6,))
    inner = keras.Sequential([layers.Dense(6, name="inner")], name="sequential")
    branch = [layers.Dense(6, name="dense"), inner, Residual(layers.Dense(6, name="deep"), name="nested")]
    layer = Residual(branch, norm="layer_norm", branch_scale="layer_scale", name="block")
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    assert all(v.path.startswith("block/") for v in loaded.variables)


def test_a_mask_reaches_the_branch_and_what_follows() -> None:
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 8, mask_zero=True)(inputs)
    x = Residual([layers.LSTM(8, return_sequences=True)], norm="layer_norm")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    assert_close(model(np.array([[1, 2, 0, 0]])), model(np.array([[1, 2]])), 1e-5)


def test_a_mask_given_by_hand_reaches_the_branch() -> None:
    lstm = layers.LSTM(4, return_sequences=True)
    layer = Residual(lstm, merge=AddMerge())
    x, mask = normal(2, 5, 4), np.array([[True, True, True, False, False], [True] * 5])
    assert_close(layer(x, mask=mask), x + to_numpy(lstm(x, mask=mask)), 1e-6)


@pytest.mark.parametrize("activation", ["relu", layers.PReLU(shared_axes=[1])])
def test_a_mask_passes_the_activation(activation: Any) -> None:
    x = ops.convert_to_tensor(np.array([[[1.0], [2.0], [0.0]]]))
    layer = Residual(layers.Dense(1), activation=activation)
    probe = MaskProbe()
    probe(layer(layers.Masking()(x)))
    np.testing.assert_array_equal(to_numpy(probe.seen), [[True, True, False]])


def test_a_mask_ends_where_the_time_axis_changes() -> None:
    layer = Residual(layers.MaxPooling1D(2), shortcut="zero_pad")
    layer.build((None, 4, 3))
    mask = np.array([[True, True, True, False]])
    assert layer.compute_mask(keras.KerasTensor((1, 4, 3)), mask) is None
    kept = Residual(layers.Dense(3))
    kept.build((None, 4, 3))
    assert kept.compute_mask(keras.KerasTensor((1, 4, 3)), mask) is mask


@pytest.mark.filterwarnings("ignore:.*this layer does not support masking")
def test_a_mask_of_unknown_length_ends_where_the_time_axis_changes() -> None:
    inputs = keras.Input((None, 3))
    x = Residual(layers.MaxPooling1D(2, padding="same"), shortcut="zero_pad")(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.LSTM(2)(x))
    assert model.predict(normal(2, 6, 3), verbose=0).shape == (2, 2)


def test_attention_attends_to_its_own_input() -> None:
    attention = layers.MultiHeadAttention(2, 4)
    layer = Residual(attention)
    x = normal(2, 5, 8)
    assert layer.compute_output_shape((None, 5, 8)) == (None, 5, 8)
    assert_close(layer(x), x + to_numpy(attention(x, x)), 1e-6)


@pytest.mark.parametrize("when", ["constructor", "later"])
def test_freezing_reaches_every_part_and_survives_a_file(when: str, tmp_path: Any) -> None:
    layer = Residual(
        layers.Dense(12), norm="batch_norm", merge="highway", branch_scale="layer_scale", trainable=when == "later"
    )
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layer(inputs))
    layer.trainable = False
    assert model.trainable_weights == []
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.trainable_weights == []
    x = 3 + normal(8, 8)
    assert_close(loaded(x, training=True), model(x, training=True), 1e-6)
    assert keras.models.clone_model(model).trainable_weights == []


def test_one_norm_given_to_two_connections_is_a_pattern_for_both(tmp_path: Any) -> None:
    norm, inputs = layers.LayerNormalization(epsilon=0.1), keras.Input((8,))
    first, second = Residual(layers.Dense(8), norm=norm), Residual(layers.Dense(8), norm=norm)
    model = keras.Model(inputs, second(first(inputs)))
    assert first.pre_norm is not second.pre_norm
    assert second.pre_norm.epsilon == 0.1
    model.save(tmp_path / "model.keras")
    x = normal(4, 8)
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(x), model(x), 1e-6)


def test_preactivation_comes_before_both_paths() -> None:
    layer = Residual(layers.Dense(4, name="branch"), preactivation=[layers.ReLU()], shortcut="projection")
    x = normal(3, 6)
    y = layer(x)
    active = np.maximum(x, 0)
    assert_close(y, to_numpy(layer.branch[0](active)) + to_numpy(layer.shortcut_layer(active)), 1e-6)
