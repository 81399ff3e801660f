"""Depth rules against the papers' numbers, and against what they are for: signals and gradients that arrive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack, depth_rules
from keras_residual.layers.value_attention import ValueResidualAttention
from keras_residual.layers.weight_standardization import ScaledWSConv2D
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.depth_rules.linear_maps import linear_maps, value_path

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def ffn(width: int = 6, **kwargs: Any) -> Residual:
    return Residual([layers.Dense(8, activation="relu", name="in"), layers.Dense(width, name="out")], **kwargs)


def attention(**kwargs: Any) -> Residual:
    return Residual(layers.MultiHeadAttention(2, 3, name="mha"), **kwargs)


def plan_of(rule: Any, depth: int, per_block: int = 1) -> depth_rules.DepthPlan:
    return depth_rules.get_rule(rule).plan(depth=depth, per_block=per_block)


def configured(rule: Any, connection: Residual, depth: int = 4, per_block: int = 1) -> Residual:
    """Returns the connection as the rule wants it, built for six channels: `(time, channels)` for attention."""
    made = depth_rules.get_rule(rule).configure(connection, depth=depth, per_block=per_block)
    made.build((None, 5, 6) if isinstance(connection.branch[0], layers.MultiHeadAttention) else (None, 6))
    return made


def gains_of(rule: Any, connection: Residual, depth: int = 4, per_block: int = 1) -> dict[str, np.ndarray]:
    """Returns the factors of a rule by what is left of the path behind the connection's name."""
    made = configured(rule, connection, depth, per_block)
    found = plan_of(rule, depth, per_block).gains(made)
    assert all(factors.shape == (depth,) for _, factors in found)
    return {variable.path.partition("/")[2]: factors for variable, factors in found}


# --- Numbers of the papers -------------------------------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.parametrize(("depth", "alpha", "beta"), [(12, 2.213, 0.319), (100, 3.761, 0.188), (1000, 6.687, 0.1057)])
def test_deepnorm_numbers(depth: int, alpha: float, beta: float) -> None:
    scales = depth_rules.deepnorm(depth)
    assert scales.skip_scale == pytest.approx(alpha, abs=1e-3)
    assert scales.init_gain == pytest.approx(beta, abs=1e-3)
    # A block of the stack is a layer of the paper, with its two connections.
    by_name = plan_of("deepnorm", depth, per_block=2)
    np.testing.assert_allclose(by_name.skip_scale, np.full((depth, 2), alpha), atol=1e-3)
    found = gains_of("deepnorm", ffn(norm="layer_norm", norm_position="post"), depth, per_block=2)
    np.testing.assert_allclose(found["in/kernel"], np.full(depth, beta), atol=1e-3)


@pytest.mark.any_backend
@pytest.mark.parametrize(("n", "m"), [(12, 6), (6, 6), (100, 12), (18, 1000)])
def test_deepnorm_of_an_encoder_and_a_decoder_bounds_the_update(n: int, m: int) -> None:
    encoder, decoder = (depth_rules.DeepNorm(n, m, part).scales(2 * n) for part in ("encoder", "decoder"))
    alpha_e, beta_e, alpha_d, beta_d = (v for s in (encoder, decoder) for v in (s.skip_scale, s.init_gain))
    assert 3 * m * 2 * beta_d**2 / alpha_d**2 == pytest.approx(1)
    passed_on = m * beta_d**2 / alpha_d
    assert passed_on * 2 * n * 2 * beta_e**2 / alpha_e**2 == pytest.approx(1, abs=0.02)
    assert alpha_e * beta_e == pytest.approx(2**-0.5, abs=0.003)
    assert alpha_d * beta_d == pytest.approx(2**-0.5)


@pytest.mark.any_backend
def test_deepnorm_numbers_of_twelve_and_six_layers() -> None:
    encoder, decoder = (depth_rules.DeepNorm(12, 6, part).scales(24) for part in ("encoder", "decoder"))
    assert (encoder.skip_scale, encoder.init_gain) == pytest.approx((1.6862, 0.41790), rel=1e-3)
    assert (decoder.skip_scale, decoder.init_gain) == pytest.approx((18**0.25, 72**-0.25))


@pytest.mark.any_backend
def test_keel_multiplies_the_skip_by_the_number_of_connections() -> None:
    assert depth_rules.keel(64) == depth_rules.DepthScales(skip_scale=64.0, init_gain=1.0)
    np.testing.assert_array_equal(plan_of("keel", 32, per_block=2).skip_scale, np.full((32, 2), 64))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("rule", "factor", "learning_rate"),
    [("inverse_sqrt_depth", 0.1, 1.0), ("inverse_depth", 0.01, 1.0), ("depth_mup", 0.1, 0.1)],
)
def test_branches_are_scaled_by_the_number_of_connections(rule: str, factor: float, learning_rate: float) -> None:
    plan = plan_of(rule, 50, per_block=2)
    np.testing.assert_allclose(plan.branch_scale, np.full((50, 2), factor), rtol=1e-6)
    assert plan.learning_rate == pytest.approx(learning_rate)
    assert plan.skip_scale is None
    assert plan.branch_input_scale is None
    assert plan.gains(ffn()) == []


@pytest.mark.any_backend
@pytest.mark.parametrize(("maps", "exponent"), [(2, -1 / 2), (3, -1 / 4), (4, -1 / 6)])
def test_fixup_numbers(maps: int, exponent: float) -> None:
    branch = [layers.Dense(6, name=f"d{i}") for i in range(maps)]
    found = gains_of("fixup", Residual(branch), depth=25, per_block=4)
    *inner, last = found.values()
    assert len(inner) == maps - 1
    np.testing.assert_allclose(inner, np.full((maps - 1, 25), 100**exponent), rtol=1e-6)
    np.testing.assert_array_equal(last, np.zeros(25))


@pytest.mark.any_backend
def test_fixup_of_a_branch_of_one_map_starts_it_at_zero() -> None:
    found = gains_of("fixup", Residual(layers.Dense(6, name="d")), depth=3)
    assert list(found) == ["d/kernel"]
    np.testing.assert_array_equal(found["d/kernel"], np.zeros(3))


@pytest.mark.any_backend
def test_t_fixup_numbers() -> None:
    found = gains_of("t_fixup", ffn(), depth=16, per_block=2)
    assert set(found) == {"in/kernel", "out/kernel"}
    np.testing.assert_allclose(found["in/kernel"], np.full(16, 0.67 / 2), rtol=1e-6)  # 16^(-1/4) = 1/2


@pytest.mark.any_backend
def test_gpt2_scales_the_last_map_of_each_branch() -> None:
    # The 48 layers of the largest: 1 / sqrt(2 * 48).
    for connection, name in ((ffn(norm="layer_norm"), "out/kernel"), (attention(), "mha/attention_output/kernel")):
        found = gains_of("gpt2", connection, depth=48, per_block=2)
        assert list(found) == [name]
        np.testing.assert_allclose(found[name], np.full(48, 96**-0.5), rtol=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize(("depth", "init"), [(1, 0.1), (18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6), (36, 1e-6)])
def test_layer_scale_steps(depth: int, init: float) -> None:
    made = configured("layer_scale", ffn(), depth, per_block=2)
    np.testing.assert_allclose(made.branch_scale_layer.get_weights()[0], np.full(6, init), rtol=1e-6)


@pytest.mark.any_backend
def test_layer_scale_has_a_factor_a_channel_also_with_channels_first() -> None:
    connection = Residual(layers.Conv2D(3, 3, padding="same", data_format="channels_first"))
    made = depth_rules.get_rule("layer_scale").configure(connection, depth=4, per_block=1)
    made.build((None, 3, 8, 8))
    assert made.branch_scale_layer.get_weights()[0].shape == (3,)


@pytest.mark.any_backend
def test_nf_resnet_numbers() -> None:
    plan = plan_of(depth_rules.NFResNet(alpha=0.5), 2, per_block=2)
    np.testing.assert_allclose(plan.branch_scale, np.full((2, 2), 0.5))
    beta, variance = [], 1.0
    for _ in range(4):
        beta.append(variance**0.5)
        variance += 0.5**2
    np.testing.assert_allclose(plan.branch_input_scale, 1 / np.reshape(beta, (2, 2)), rtol=1e-6)
    assert depth_rules.get_rule("nf_resnet").get_config() == {"alpha": 0.2}


@pytest.mark.any_backend
def test_layer_norm_scaling_numbers_go_by_blocks() -> None:
    found = gains_of("layer_norm_scaling", ffn(norm="layer_norm"), depth=4, per_block=2)
    assert list(found) == ["norm_scale/factor"]
    np.testing.assert_allclose(found["norm_scale/factor"], [1, 2**-0.5, 3**-0.5, 0.5], rtol=1e-6)


# --- Which weights a rule touches ------------------------------------------------------------------------------------

VALUE_PATH = {"mha/value/kernel", "mha/attention_output/kernel"}


@pytest.mark.any_backend
@pytest.mark.parametrize("rule", ["deepnorm", "t_fixup", "fixup"])
def test_queries_keys_biases_and_norms_are_left_alone(rule: str) -> None:
    kwargs = {"norm": "layer_norm", "norm_position": "post"} if rule == "deepnorm" else {}
    assert set(gains_of(rule, attention(**kwargs))) == VALUE_PATH
    assert set(gains_of(rule, ffn(**kwargs))) == {"in/kernel", "out/kernel"}


@pytest.mark.any_backend
def test_linear_maps_are_found_in_order_and_in_layers_within_layers() -> None:
    branch = [
        layers.Conv2D(4, 3, padding="same", name="conv"),
        keras.Sequential(
            [
                layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
                layers.BatchNormalization(),
                keras.Sequential([layers.SeparableConv2D(4, 3, padding="same", name="separable")], name="inner"),
            ],
            name="outer",
        ),
        layers.EinsumDense("bhwc,cd->bhwd", (8, 8, 6), name="einsum"),
        ScaledWSConv2D(6, 1, name="ws"),
        Residual([layers.Conv2DTranspose(6, 1, name="transpose")], norm="batch_norm", name="residual"),
    ]
    Residual(branch).build((None, 8, 8, 6))
    found = ["/".join(found.kernel.path.split("/")[-2:]) for found in linear_maps(branch)]
    assert found == [
        "conv/kernel",
        "depthwise/kernel",
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
        "einsum/kernel",
        "ws/gain",  # its kernel is standardised, so that no factor on it would show
        "transpose/kernel",
    ]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (layers.MultiHeadAttention(2, 3), "query key value attention_output"),
        (layers.GroupQueryAttention(3, 2, 1), "query key value attention_output"),
        (ValueResidualAttention(2, 3), "query key value output"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attention_has_roles(layer: keras.Layer, names: str) -> None:
    Residual(layer).build((None, 5, 6))
    maps = linear_maps([layer])
    assert [found.role for found in maps] == ["query", "key", "value", "output"]
    assert [found.kernel.path.split("/")[-2] for found in maps] == names.split()
    assert [found.role for found in value_path(maps)] == ["value", "output"]


@pytest.mark.any_backend
def test_a_plan_says_what_it_touches() -> None:
    post = {"norm": "layer_norm", "norm_position": "post", "name": "r"}
    described = plan_of("deepnorm", 8, per_block=2).describe(configured("deepnorm", attention(**post)))
    assert described.splitlines() == [
        "skip_scale: 2",
        "r/mha/value/kernel: initial values times 0.3536",
        "r/mha/attention_output/kernel: initial values times 0.3536",
    ]
    scaled = plan_of("layer_norm_scaling", 4).describe(configured("layer_norm_scaling", ffn(norm="rms_norm", name="r")))
    assert scaled == "r/norm_scale/factor: initial values times 0.5 … 1"
    assert "learning rate: times 0.1" in plan_of("depth_mup", 100).describe(ffn())
    assert plan_of("skip_init", 3).describe(ffn()) == "the plan changes nothing"


# --- What a rule puts into a connection ------------------------------------------------------------------------------


@pytest.mark.any_backend
def test_fixup_puts_a_shift_before_each_map_and_activation_and_a_scale_at_the_end() -> None:
    inner = keras.Sequential([layers.Activation("relu"), layers.DepthwiseConv2D(3, padding="same")])
    given = Residual([layers.Conv2D(6, 3, padding="same"), inner, layers.Dropout(0.1)], name="r")
    made = depth_rules.get_rule("fixup").configure(given, depth=4, per_block=1)
    kinds = [type(layer).__name__ for layer in made.branch]
    assert kinds == ["ScalarBias", "Conv2D", "ScalarBias", "Activation", "ScalarBias", "DepthwiseConv2D", "Dropout"]
    assert made.branch_scale == "fixup"
    assert made.name == "r"
    assert [type(layer).__name__ for layer in given.branch] == ["Conv2D", "Sequential", "Dropout"]


@pytest.mark.any_backend
@pytest.mark.parametrize("rule", ["fixup", "skip_init", "layer_scale", "admin", "layer_norm_scaling"])
def test_a_class_that_nobody_registered_can_be_in_the_branch(rule: str) -> None:
    class Twice(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    norm = {"admin": {"norm": "layer_norm", "norm_position": "post"}, "layer_norm_scaling": {"norm": "layer_norm"}}
    given = Residual([Twice(), layers.Dense(6)], activation=ops.tanh, **norm.get(rule, {}))
    stack = ResidualStack(given, 3, depth_rule=rule, execution="unrolled")
    stack.build((None, 6))
    blocks = [cell.connections[0] for cell in stack._blocks.cells]
    assert all("Twice" in [type(layer).__name__ for layer in block.branch] for block in blocks)
    # Each block has layers of its own, and the given one stays as it is.
    assert len({id(layer) for block in [given, *blocks] for layer in block.branch if isinstance(layer, Twice)}) == 4
    assert not given.built


# --- Invariants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize(
    ("rule", "learns"), [("fixup", ["out/kernel", "branch_scale/bias"]), ("skip_init", ["branch_scale/factor"])]
)
def test_the_stack_is_the_identity_at_first_and_learns(rule: str, learns: list[str], execution: str) -> None:
    branch = [layers.Dense(8, name="in"), layers.Activation("relu"), layers.Dense(6, name="out")]
    stack = ResidualStack(Residual(branch, name="r"), 5, depth_rule=rule, execution=execution)
    assert_close(stack(X), X, 0)
    _, found = gradients(lambda a: stack(a), [X], stack.trainable_variables)
    pairs = list(zip(stack.trainable_variables, found, strict=True))
    for name in learns:
        moved = [g for variable, g in pairs if variable.path.endswith(name)]
        assert len(moved) == (1 if execution == "scan" else 5)
        assert all(np.abs(g).max() > 1e-3 for g in moved), f"{name} does not learn"
    kernel = stack.get_stacked_weights()["r/in/kernel"]
    bound = (6 / (6 + 8)) ** 0.5 * (5**-0.5 if rule == "fixup" else 1)  # Glorot's, and Fixup's L^(-1/2)
    assert 0.9 * bound < np.abs(kernel).max() <= bound * 1.000001


class Rotation(layers.Layer):
    """A random orthogonal map: a branch of unit gain whatever it gets."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        init = keras.initializers.Orthogonal(seed=self.seed)
        self.kernel = self.add_weight(shape=(input_shape[-1],) * 2, initializer=init, name="kernel")

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, self.kernel)


def variances_by_depth(plan: depth_rules.DepthPlan, depth: int, width: int = 128) -> list[float]:
    """Returns the variance of the stream before and behind each of `depth` connections of unit gain."""
    x = np.random.default_rng(0).normal(size=(64, width)).astype("float32")
    found = [float(x.var())]
    names = ("branch_scale", "skip_scale", "branch_input_scale")
    for index in range(depth):
        given = {name: getattr(plan, name) for name in names}
        context = DepthContext(**{name: float(v[index, 0]) for name, v in given.items() if v is not None})
        connection = Residual(Rotation(index))
        connection.build((None, width))
        x = to_numpy(connection.call(x, depth_context=context))
        found.append(float(x.var()))
    return found


def test_the_variance_grows_by_no_more_than_e_with_the_inverse_root() -> None:
    found = variances_by_depth(plan_of("inverse_sqrt_depth", 100), 100)
    assert found[-1] / found[0] == pytest.approx((1 + 1 / 100) ** 100, rel=0.1)  # 2.70
    assert found[-1] / found[0] <= np.e * 1.1


def test_the_variance_stays_with_the_inverse_depth() -> None:
    found = variances_by_depth(plan_of("inverse_depth", 100), 100)
    assert found[-1] / found[0] == pytest.approx((1 + 1 / 100**2) ** 100, rel=0.05)


def test_nf_resnet_predicts_the_variance() -> None:
    found = variances_by_depth(plan_of("nf_resnet", 100), 100)
    np.testing.assert_allclose(np.divide(found, found[0]), 1 + 0.04 * np.arange(101), rtol=0.1)


def test_nf_resnet_of_standardised_convolutions_predicts_the_variance() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 8, 8, 64)).astype("float32")
    plan = plan_of(depth_rules.NFResNet(alpha=0.5), 8)
    for index in range(8):
        connection = Residual([layers.Activation("relu"), ScaledWSConv2D(64, 1)])
        connection.build(x.shape)
        context = DepthContext(branch_scale=0.5, branch_input_scale=float(plan.branch_input_scale[index, 0]))
        x = to_numpy(connection.call(x, depth_context=context))
    assert x.var() == pytest.approx(1 + 8 * 0.25, rel=0.15)


def gradient_gain(depth: int, rule: str | None, **kwargs: Any) -> float:
    """Returns how much larger the gradient is at the input of a stack than at its output; branches of unit gain."""
    width = 32

    def dense(factor: float, activation: str | None) -> keras.Layer:
        init = keras.initializers.RandomNormal(stddev=(factor / width) ** 0.5)
        return layers.Dense(width, activation=activation, kernel_initializer=init)

    block = Residual([dense(2.0, "relu"), dense(1.0, None)], **kwargs)
    stack = ResidualStack(block, depth, depth_rule=rule)

    # Random signs, for a norm swallows the part of a gradient that is equal on all features.
    x, signs = np.random.default_rng(0).normal(size=(2, 8, width)).astype("float32")
    arrived = gradients(lambda v: ops.multiply(stack(v), signs), [x])[0][0]
    sent = gradients(lambda v: ops.multiply(v, signs), [x])[0][0]
    return float(np.linalg.norm(arrived) / np.linalg.norm(sent))


def test_the_gradient_arrives_by_deepnorm_and_keel_and_explodes_without_a_norm() -> None:
    depth = 60
    assert gradient_gain(depth, None) > 1e6
    # Measured at depth 1000: 0.989 and 0.991.
    assert 0.5 < gradient_gain(depth, "deepnorm", norm="layer_norm", norm_position="post") < 2
    assert 0.5 < gradient_gain(depth, "keel", norm="layer_norm", norm_position=("pre", "post")) < 2


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_layer_norm_scaling_scales_what_comes_out_of_the_norm(execution: str) -> None:
    block = Residual(layers.Dense(6, activation="tanh", name="d"), norm="layer_norm", name="r")
    stack = ResidualStack(block, 3, depth_rule="layer_norm_scaling", execution=execution)
    expected = X
    actual = to_numpy(stack(X))
    kernels = stack.get_stacked_weights()["r/d/kernel"]
    for index, kernel in enumerate(kernels):
        centred = expected - expected.mean(axis=1, keepdims=True)
        normed = centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-3)
        expected = expected + np.tanh(normed @ kernel / np.sqrt(index + 1))
    assert_close(actual, expected, 1e-5)
    assert not [v for v in stack.trainable_variables if "norm_scale" in v.path]


# --- Admin -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_admin_weighs_the_skip_by_the_variance_before_it(execution: str) -> None:
    def post(scale: float, **kwargs: Any) -> Residual:
        init = keras.initializers.VarianceScaling(scale)
        inner = layers.Dense(64, kernel_initializer=init, **kwargs)
        return Residual([inner, layers.BatchNormalization()], norm="layer_norm", norm_position="post")

    x = 2 * np.random.default_rng(0).normal(size=(256, 64)).astype("float32") + 3
    block = [Residual([layers.Dense(64, name="first")], norm="layer_norm", norm_position="post"), post(1.0)]
    stack = ResidualStack(block, 4, depth_rule="admin", execution=execution)
    omegas = depth_rules.admin_profile(stack, x)
    assert omegas.shape == (8,)
    assert omegas[0] == 1
    weights = stack.get_stacked_weights()
    stored = np.stack([w for name, w in weights.items() if "omega" in name], axis=1)  # (depth, per_block, channels)
    assert_close(stored.reshape(8, 64), np.repeat(omegas[:, None], 64, axis=1), 1e-6)
    kernel = next(w for name, w in weights.items() if name.endswith("first/kernel"))[0]
    assert omegas[1] ** 2 == pytest.approx(x.var() + (x @ kernel).var(), rel=1e-4)
    # The second of each block ends with a norm, so that it adds 1.
    np.testing.assert_allclose(omegas[2::2] ** 2 - omegas[1:-1:2] ** 2, np.ones(3), rtol=0.02)
    assert (np.diff(omegas) > 0).all()
    assert not np.any([w for name, w in weights.items() if name.endswith("moving_mean")]), "the pass left its traces"
    np.testing.assert_allclose(depth_rules.admin_profile(stack, x), omegas, rtol=1e-5, err_msg="it is not from scratch")


def test_admin_profile_needs_the_rule() -> None:
    with pytest.raises(ValueError, match="`stack` must be a ResidualStack with depth_rule='admin'"):
        depth_rules.admin_profile(ResidualStack(ffn(), 2), X)


# --- Errors and configuration ----------------------------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.parametrize("rule", [depth_rules.deepnorm, depth_rules.keel])
def test_depth_must_be_a_positive_whole_number(rule: Any) -> None:
    message = f"{rule.__name__}: `depth` must be a whole number of at least 1, but received 0 (int)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        rule(0)


POST = {"norm": "layer_norm", "norm_position": "post"}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("rule", "arguments", "message"),
    [
        ("deepnorm", {"norm": "layer_norm"}, "`norm_position` must be 'post' with a norm, for depth_rule='deepnorm'"),
        ("deepnorm", {}, "`norm_position` must be 'post' with a norm"),
        ("deepnorm", {**POST, "skip_scale": 2.0}, "`skip_scale` must be None, since depth_rule='deepnorm' sets it"),
        ("deepnorm", {**POST, "merge": "highway"}, "`merge` must be 'add', for depth_rule='deepnorm'"),
        ("keel", POST, "`norm_position` must be ('pre', 'post') with a norm, for depth_rule='keel'"),
        ("layer_norm_scaling", POST, "`norm_position` must be 'pre' with a norm"),
        ("admin", {"norm": "layer_norm"}, "`norm_position` must be 'post' with a norm"),
        ("skip_init", {"branch_scale": 0.5}, "`branch_scale` must be None, since depth_rule='skip_init' sets it"),
        ("layer_scale", {"branch_scale": "skip_init"}, "`branch_scale` must be None"),
        ("fixup", {"branch_scale": 0.5}, "`branch_scale` must be None"),
        ("fixup", {"norm": "batch_norm"}, "`norm` must be None, for depth_rule='fixup'"),
        ("t_fixup", {"norm": "layer_norm"}, "`norm` must be None, for depth_rule='t_fixup'"),
        ("nf_resnet", {"norm": "batch_norm"}, "`norm` must be None, for depth_rule='nf_resnet'"),
        ("nf_resnet", {"activation": "relu"}, "`activation` must be None, for depth_rule='nf_resnet'"),
        ("nf_resnet", {"skip_scale": 0.5}, "`skip_scale` must be None, for depth_rule='nf_resnet'"),
    ],
)
def test_a_connection_that_contradicts_the_rule_is_refused(rule: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        depth_rules.get_rule(rule).configure(ffn(**arguments), depth=4, per_block=1)


@pytest.mark.any_backend
@pytest.mark.parametrize("rule", ["fixup", "t_fixup", "nf_resnet"])
def test_a_norm_among_the_layers_is_found(rule: str) -> None:
    branch = [layers.Dense(6), keras.Sequential([layers.LayerNormalization(name="ln"), layers.Dense(6)])]
    message = f"`branch` must be without norms for depth_rule='{rule}', but received \"'ln' (LayerNormalization)\""
    with pytest.raises(ValueError, match=re.escape(message)):
        depth_rules.get_rule(rule).configure(Residual(branch), depth=4, per_block=1)


@pytest.mark.any_backend
def test_a_rule_by_a_wrong_name_or_type() -> None:
    with pytest.raises(ValueError, match=r"unknown name for `depth_rule`: 'fix_up'\. Did you mean 'fixup'\?"):
        depth_rules.get_rule("fix_up")
    with pytest.raises(TypeError, match="`depth_rule` must be a DepthRule or one of inverse_sqrt_depth, "):
        depth_rules.get_rule(3)
    with pytest.raises(ValueError, match="`alpha` must be a number above 0"):
        depth_rules.NFResNet(alpha=0)
    with pytest.raises(ValueError, match="`decoder_layers` must be given together with `encoder_layers`"):
        depth_rules.DeepNorm(encoder_layers=3)
    with pytest.raises(ValueError, match="Did you mean 'decoder'"):
        depth_rules.DeepNorm(3, 3, part="decode")


@pytest.mark.any_backend
def test_the_page_has_every_rule() -> None:
    page = Path(__file__).parents[2] / "docs" / "api" / "depth_rules.md"
    rows = re.findall(r'^\| `"(\w+)"`', page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows == list(depth_rules.RULES)


RULES = [
    *(rule() for rule in depth_rules.RULES.values()),
    depth_rules.NFResNet(alpha=0.3),
    depth_rules.DeepNorm(encoder_layers=2, decoder_layers=3, part="decoder"),
]


@pytest.mark.any_backend
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name} {rule.get_config()}")
def test_a_rule_comes_back_from_its_configuration(rule: depth_rules.DepthRule) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    assert type(again) is type(rule)
    assert again.get_config() == rule.get_config()
    assert depth_rules.get_rule(rule) is rule
    assert type(depth_rules.get_rule(rule.name)) is type(rule)


@pytest.mark.parametrize("rule", depth_rules.RULES)
def test_a_model_with_a_rule_saves_and_loads(rule: str, tmp_path: Any) -> None:
    position = {"deepnorm": "post", "admin": "post", "keel": ("pre", "post"), "layer_norm_scaling": "pre"}.get(rule)
    block = ffn() if position is None else ffn(norm="layer_norm", norm_position=position)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, ResidualStack(block, 3, depth_rule=rule, name="stack")(inputs))
    model.get_layer("stack").set_weights([w + 0.1 for w in model.get_layer("stack").get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(X), model(X), 1e-6)
