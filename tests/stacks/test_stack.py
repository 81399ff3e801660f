"""A stack as a Keras layer: the same numbers however it is executed, and everything Keras expects of a layer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
from keras import layers, ops

from backend_helpers import double_precision, gradients
from contract import MaskProbe, assert_close, assert_layer_contract, to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.stacks.variables import rank_in_block

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
MAPS = np.random.default_rng(1).normal(size=(2, 5, 5, 4)).astype("float32")


def full_block() -> Residual:
    """Everything at once: norms with statistics, dropout, a regulariser, a learnable scale."""
    branch = [
        layers.Dense(8, activation="tanh", kernel_regularizer="l2", name="in"),
        layers.BatchNormalization(name="norm"),
        layers.Dropout(0.3, name="dropout"),
        layers.Dense(6, name="out"),
    ]
    return Residual(branch, norm="layer_norm", branch_scale=0.5, name="residual")


def conv_block() -> Residual:
    branch = [layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv"), layers.BatchNormalization(name="norm")]
    return Residual(branch, activation="relu", branch_scale=0.5, name="residual")


BLOCKS = {"dense": (full_block, X), "conv": (conv_block, MAPS)}
WAYS = [("scan", False), ("scan", "full"), ("scan", "sqrt"), ("unrolled", "full"), ("unrolled", "sqrt")]


def made(block: Any, depth: int = 5, seed: int = 3, **kwargs: Any) -> ResidualStack:
    """Returns a stack whose initial values depend on the seed alone."""
    keras.utils.set_random_seed(seed)
    return ResidualStack(block(), depth, name="stack", **kwargs)


def state_after(stack: ResidualStack, x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns outputs, gradients, weights and random state after one call in training, by name."""
    found = {"inference": to_numpy(stack(x)), "training": to_numpy(stack(x, training=True))}
    found |= {f"weight {name}": value for name, value in stack.get_stacked_weights().items()}
    by_x, by_variable = gradients(lambda a: stack(a, training=True), [x], stack.trainable_variables, compiled=True)
    found["gradient x"] = by_x[0]
    scanned = stack.execution == "scan"
    named: dict[str, list[np.ndarray]] = {}
    for variable, g in zip(stack.trainable_variables, by_variable, strict=True):
        named.setdefault(variable.path.split("/", 2)[2], []).append(g)  # behind the stack and the block
    # Those of a layer together: before a norm the gradient of a bias is a small difference of large sums, and its
    # rounding is that of the gradient of the kernel.
    of_layers: dict[str, list[np.ndarray]] = {}
    for name, g in named.items():
        of_blocks = g[0] if scanned else np.stack(g)
        of_layers.setdefault(name.rpartition("/")[0], []).append(of_blocks.reshape(stack.depth, -1))
    found |= {f"gradient {layer}": np.concatenate(parts, axis=1) for layer, parts in of_layers.items()}
    found |= {f"seed {i}": value for i, value in enumerate(stack._blocks.non_float_values())}
    return found


@pytest.mark.parametrize("topology", ["single", "reversible", "momentum"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_every_execution_gives_the_same_numbers(kind: str, topology: str) -> None:
    block, x = BLOCKS[kind]
    if topology != "single":
        block = (lambda inner: lambda: without_activation(inner()))(block)
    rates = [0.1, 0.2, 0.2, 0.3, 0.4]
    expected = state_after(made(block, drop_path_rate=rates, topology=topology, execution="unrolled"), x)
    assert not np.allclose(expected["inference"], expected["training"]), "the block does nothing in training"
    for execution, remat in WAYS:
        if topology != "single" and remat:
            continue
        stack = made(block, drop_path_rate=rates, topology=topology, execution=execution, remat=remat)
        found = state_after(stack, x)
        assert set(found) == set(expected)
        for name, value in expected.items():
            if name.startswith("seed"):
                np.testing.assert_array_equal(found[name], value, err_msg=f"{execution} {remat} {name}")
            else:
                assert_close(found[name], value, 1e-6)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the others compile nothing")
def test_what_the_scan_of_convolutions_differs_by_is_rounding() -> None:
    def block() -> Residual:  # without batch norm and tanh, which round to single precision in double, too
        branch = [
            layers.Conv2D(8, 3, padding="same", activation="relu", name="in"),
            layers.Conv2D(4, 3, padding="same", name="out"),
        ]
        return Residual(branch, activation="relu", branch_scale=0.5, name="residual")

    with double_precision():
        x = MAPS.astype("float64")
        expected = state_after(made(block, execution="unrolled"), x)
        found = state_after(made(block, execution="scan"), x)
        assert expected["gradient x"].dtype == np.float64
        for name, value in expected.items():
            assert_close(found[name], value, 1e-12)


def without_activation(block: Residual) -> Residual:
    return Residual.from_config({**block.get_config(), "activation": None})


def test_blocks_have_initial_values_of_their_own_and_keep_the_initializer() -> None:
    stack = made(full_block, depth=8)
    stack.build((None, 6))
    kernel = stack.get_stacked_weights()["residual/in/kernel"]
    assert kernel.shape == (8, 6, 8)
    assert len({float(each[0, 0]) for each in kernel}) == 8, "blocks start with equal weights"
    limit = np.sqrt(6 / (6 + 8))  # Glorot's, whose fans are those of one block
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() > 0.9 * limit


@pytest.mark.every
@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize("remat", [False, "sqrt"])
def test_contract(execution: str, remat: Any) -> None:
    def make() -> ResidualStack:
        block = Residual(
            [layers.Dense(4, activation="tanh"), layers.LayerNormalization()],
            branch_scale=0.5,
            name="residual",
        )
        return ResidualStack(block, 5, execution=execution, remat=remat)

    assert_layer_contract(make, (3, 5, 4), output_shape=(3, 5, 4))


def train_once(stack: ResidualStack, path: Path, **compile_arguments: Any) -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(stack(inputs)))
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.MeanSquaredError(), **compile_arguments)
    y = np.stack([X[:, 0], X[:, 1] * X[:, 2]], axis=1)
    history = model.fit(X, y, epochs=8, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.evaluate(X, y, verbose=0)
    before = model.predict(X, verbose=0)
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), before, rtol=1e-6, atol=1e-6)
    assert loaded.get_layer("stack").execution == stack.execution


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize("topology", ["single", "reversible"])
def test_a_model_with_a_stack_trains_saves_and_loads(execution: str, topology: str, tmp_path: Path) -> None:
    stack = made(full_block, topology=topology, execution=execution, drop_path_rate=0.2)
    train_once(stack, tmp_path / "model.keras")
    moving = stack.get_stacked_weights()["residual/norm/moving_mean"]
    assert (np.abs(moving).max(axis=1) > 0).all(), "the statistics of some blocks have not moved"


def test_a_scanned_stack_trains_compiled_by_xla(tmp_path: Path) -> None:
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch has no XLA here")
    train_once(made(full_block, execution="scan", remat="full"), tmp_path / "model.keras", jit_compile=True)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("topology", ["single", "reversible"])
def test_mixed_precision(policy: str, topology: str) -> None:
    keras.config.set_dtype_policy(policy)
    stacks = [made(full_block, topology=topology, execution=execution) for execution in ("unrolled", "scan")]
    outputs = [stack(X, training=True) for stack in stacks]
    assert {keras.backend.standardize_dtype(y.dtype) for y in outputs} == {policy.removeprefix("mixed_")}
    assert_close(ops.cast(outputs[1], "float32"), ops.cast(outputs[0], "float32"), 0.02)
    assert {keras.backend.standardize_dtype(v.value.dtype) for v in stacks[1].trainable_variables} == {"float32"}


@pytest.mark.parametrize(("saved", "loaded"), [("unrolled", "scan"), ("scan", "unrolled")])
def test_weights_of_one_execution_load_into_the_other(saved: str, loaded: str, tmp_path: Path) -> None:
    def model(execution: str, seed: int) -> keras.Model:
        inputs = keras.Input((6,))
        return keras.Model(inputs, made(full_block, seed=seed, execution=execution)(inputs))

    one, other = model(saved, 1), model(loaded, 2)
    one.layers[1](X, training=True)  # moves the statistics
    assert np.abs(one.predict(X, verbose=0) - other.predict(X, verbose=0)).max() > 0.1
    one.save_weights(tmp_path / "some.weights.h5")
    other.load_weights(tmp_path / "some.weights.h5")
    assert_close(other.predict(X, verbose=0), one.predict(X, verbose=0), 1e-6)


@pytest.mark.parametrize(("before", "after"), [("unrolled", "scan"), ("scan", "unrolled")])
def test_a_live_stack_changes_its_execution(before: str, after: str) -> None:
    stack = made(full_block, execution=before, drop_path_rate=0.3)
    stack(X, training=True)
    other = stack.with_execution(after, remat="full")
    assert (other.execution, other.remat) == (after, "full")
    assert_close(other(X, training=True), stack(X, training=True), 3e-6)  # the same draws
    for name, value in stack.get_stacked_weights().items():
        assert_close(other.get_stacked_weights()[name], value, 3e-6)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_layer_that_a_block_has_twice_is_one_in_each_block(execution: str) -> None:
    def block(connections: int) -> list[keras.Layer]:
        dense = layers.Dense(6)
        return [Residual([dense, layers.ReLU(), dense]) for _ in range(connections)]

    for connections in (1, 2):
        stack = ResidualStack(block(connections), 4, depth_rule="inverse_sqrt_depth", execution=execution)
        stack.build((None, 6))
        assert stack.count_params() == 4 * (6 * 6 + 6)


def test_a_stack_whose_blocks_were_changed_one_by_one_stays_unrolled() -> None:
    stack = made(full_block, execution="unrolled")
    stack.build((None, 6))
    assert stack.with_execution("scan").execution == "scan"
    stack._blocks.cells[1].connections[0].branch[0].trainable = False
    rule = "must be 'unrolled' or 'auto' here, since the blocks differ in what was changed in them or frozen"
    with pytest.raises(ValueError, match=rf"`execution` {re.escape(rule)}, but received 'scan'"):
        stack.with_execution("scan")
    other = stack.with_execution("auto")
    assert (other.execution, other.execution_reason) == ("unrolled", rule.partition("since ")[2])
    assert [cell.connections[0].branch[0].trainable for cell in other._blocks.cells[:3]] == [True, False, True]


def test_what_is_changed_in_a_block_before_the_stack_is_built_is_saved() -> None:
    stack = made(full_block, execution="unrolled", drop_path_rate=0.1)
    stack._blocks.cells[0].connections[0].drop_path.rate = 0.5
    stack.build((None, 6))
    copy = ResidualStack.from_config(stack.get_config())
    copy.build((None, 6))
    for which in (stack, copy):
        assert [cell.connections[0].drop_path.rate for cell in which._blocks.cells] == [0.5, 0.1, 0.1, 0.1, 0.1]


def test_weights_that_do_not_fit_are_refused_and_change_nothing() -> None:
    stack = made(full_block)
    stack.build((None, 6))
    before = stack.get_stacked_weights()
    good = {name: value + 1 for name, value in before.items()}
    with pytest.raises(ValueError, match=r"Did you mean 'residual/in/kernel'"):
        stack.set_stacked_weights({**good, "residual/in/kernal": good["residual/in/kernel"]})
    with pytest.raises(
        ValueError, match=re.escape("weight 'residual/in/kernel' must have shape (5, 6, 8), but has (4, 6, 8)")
    ):
        stack.set_stacked_weights({**good, "residual/in/kernel": np.zeros((4, 6, 8))})
    for name, value in stack.get_stacked_weights().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_frozen_and_thawed(execution: str) -> None:
    stack = made(full_block, execution=execution)
    stack.build((None, 6))
    count = len(stack.trainable_variables)
    stack.trainable = False
    assert stack.trainable_variables == []
    before = stack.get_stacked_weights()
    frozen = to_numpy(stack(X, training=True))
    after = stack.get_stacked_weights()
    np.testing.assert_array_equal(after["residual/norm/moving_mean"], before["residual/norm/moving_mean"])
    assert frozen.shape == X.shape
    stack.trainable = True
    assert len(stack.trainable_variables) == count
    stack(X, training=True)
    after = stack.get_stacked_weights()
    assert np.abs(after["residual/norm/moving_mean"] - before["residual/norm/moving_mean"]).max() > 0


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_stack_frozen_before_it_is_built_stays_frozen(execution: str) -> None:
    stack = made(full_block, execution=execution, trainable=False)
    stack(X)
    assert stack.trainable_variables == []


class Penalised(layers.Layer):
    """Adds a loss of its own in the call."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(ops.mean(ops.square(inputs)))
        return inputs


@pytest.mark.parametrize(("execution", "remat"), [("unrolled", False), *WAYS])
@pytest.mark.parametrize("topology", ["single", "reversible"])
def test_losses_of_the_blocks(execution: str, remat: Any, topology: str) -> None:
    block = Residual([layers.Dense(6, kernel_regularizer=keras.regularizers.L2(0.1), name="d"), Penalised()])
    keras.utils.set_random_seed(0)
    stack = ResidualStack(block, 4, execution=execution, remat=remat, topology=topology)
    stack(X)
    expected = stack.with_execution("unrolled", remat=False)

    def total(owner: ResidualStack, x: Any) -> Any:
        with keras.StatelessScope([(v, v.value) for v in owner.variables], collect_losses=True):
            y = owner(x)
            losses = owner.losses
        return ops.sum(y) * 0 + ops.sum(ops.stack([ops.sum(loss) for loss in losses]))

    assert len(stack.losses) > 0
    assert_close(total(stack, X), total(expected, X), 1e-5)
    found, wanted = (gradients(lambda a, s=s: total(s, a), [X])[0][0] for s in (stack, expected))
    assert np.abs(wanted).max() > 0
    assert_close(found, wanted, 1e-5)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_every_block_gets_the_mask(execution: str) -> None:
    attention = Residual(layers.MultiHeadAttention(2, 3), norm="layer_norm")
    keras.utils.set_random_seed(0)
    stack = ResidualStack(attention, 3, execution=execution)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    x[:, 3:] = 0
    changed = x.copy()
    probe = MaskProbe()
    masked = layers.Masking()(x)
    outputs = to_numpy(probe(stack(masked)))
    np.testing.assert_array_equal(to_numpy(probe.seen), [[True] * 3 + [False] * 2] * 2)
    changed[:, 3:] = 7
    mask = np.array([[True] * 3 + [False] * 2] * 2)
    assert_close(to_numpy(stack(changed, mask=mask))[:, :3], outputs[:, :3], 1e-5)
    assert np.abs(to_numpy(stack(changed))[:, :3] - outputs[:, :3]).max() > 0.01, "the mask does nothing"


def test_the_summary_says_how_many_blocks_of_what(capsys: pytest.CaptureFixture[str]) -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, ResidualStack(Residual(layers.Dense(6)), 100, execution="scan")(inputs))
    model.summary(line_length=76)
    printed = capsys.readouterr().out
    assert "4,200" in printed
    assert "100 × 42" in printed
    assert "scan" in printed
    assert model.count_params() == 4200


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_bias_of_a_block_counts_as_a_vector(execution: str) -> None:
    nested = ResidualStack(Residual(layers.Dense(6), branch_scale="skip_init"), 3, execution=execution)
    stack = ResidualStack(nested, 2, execution=execution)
    stack.build((None, 6))
    ranks = {variable.path.split("/")[-1]: rank_in_block(variable) for variable in stack.trainable_variables}
    assert ranks == {"kernel": 2, "bias": 1, "factor": 0}


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_sequence_may_have_another_length_than_the_first(execution: str) -> None:
    stack = ResidualStack(Residual(layers.Dense(6)), 3, execution=execution)
    for time in (5, 7):
        assert stack(np.zeros((2, time, 6), "float32")).shape == (2, time, 6)
    with pytest.raises(ValueError, match="5"):
        stack(np.zeros((2, 5, 5), "float32"))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the operations of a program are JAX's to tell")
def test_blocks_are_numbered_by_a_constant() -> None:
    import jax

    stack = made(lambda: Residual(layers.Dense(6), drop_path_rate=0.1), execution="scan", topology="momentum")
    stack.build((None, 6))
    assert "iota" not in str(jax.make_jaxpr(lambda x: stack(x))(X))  # which exporters of single operations lack


def test_dropout_states_are_no_weights() -> None:
    stack = made(full_block, execution="scan")
    stack.build((None, 6))
    assert stack.count_params() == sum(w.size for w in stack.get_stacked_weights().values())


def test_blocks_by_a_function_of_the_index() -> None:
    stack = ResidualStack(lambda i: Residual([layers.Dense(4 + i), layers.Dense(6)]), 3)
    assert stack.execution == "unrolled"
    assert "function" in stack.execution_reason
    y = stack(X)
    again = ResidualStack.from_config(stack.get_config())
    again.build((None, 6))
    assert [w.shape for w in again.weights] == [w.shape for w in stack.weights]
    assert y.shape == X.shape
    with pytest.raises(ValueError, match="`execution` must be 'unrolled' or 'auto' here"):
        ResidualStack(lambda i: Residual(layers.Dense(6)), 3, execution="scan")


def test_a_layer_that_all_blocks_share_gets_the_gradient_of_all() -> None:
    shared = layers.Dense(6, name="shared")
    gradient = {}
    for remat in (False, "full"):
        stack = ResidualStack(lambda i: Residual([shared], branch_scale=0.1 * (i + 1)), 3, remat=remat)
        stack(X)
        assert len(stack.trainable_variables) == 2
        gradient[remat] = gradients(lambda a, s=stack: s(a), [X], stack.trainable_variables)[1][0]
    assert_close(gradient["full"], gradient[False], 1e-5)


class Borrowing(layers.Layer):
    """Multiplies by a variable that belongs to somebody else."""

    def __init__(self, variable: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.borrowed = [lambda: variable]  # not tracked

    def call(self, inputs: Any) -> Any:
        return inputs * self.borrowed[0]()


@pytest.mark.parametrize("remat", [False, "full"])
def test_a_variable_from_outside_gets_its_gradient(remat: Any) -> None:
    variable = keras.Variable(np.full((6,), 0.5, "float32"))
    stack = ResidualStack(lambda i: Residual(Borrowing(variable)), 3, remat=remat)
    (by_x,), (by_variable,) = gradients(lambda a: stack(a), [X], [variable])
    # y = x (1 + v)^3
    weights = np.random.default_rng(99).uniform(0.5, 1.5, size=X.shape)
    assert_close(by_variable, (weights * X * 3 * 1.5**2).sum(axis=0).astype("float32"), 1e-4)
    assert_close(by_x, (weights * 1.5**3).astype("float32"), 1e-4)


@pytest.mark.parametrize("inner", ["unrolled", "scan"])
@pytest.mark.parametrize("outer", ["unrolled", "scan"])
def test_a_stack_in_a_stack(outer: str, inner: str) -> None:
    def nested(outer: str, inner: str) -> ResidualStack:
        keras.utils.set_random_seed(5)
        block = Residual([layers.Dense(6, name="d"), layers.BatchNormalization(name="n")], branch_scale=0.3, name="r")
        return ResidualStack(ResidualStack(block, 3, execution=inner, name="inner"), 2, execution=outer, name="outer")

    expected, stack = nested("unrolled", "unrolled"), nested(outer, inner)
    expected.build((None, 6))
    stack.build((None, 6))
    assert sum(w.size for w in stack.get_weights()) == sum(w.size for w in expected.get_weights())
    kernel = {
        tuple(np.round(k, 4))
        for v in stack.trainable_variables
        if v.path.endswith("kernel")
        for k in ops.convert_to_numpy(v).reshape(-1, 36)
    }
    assert len(kernel) == 6, "blocks start with equal weights"
    _copy_nested(stack, expected)
    assert_close(stack(X, training=True), expected(X, training=True), 3e-6)
    (found,), by_variable = gradients(lambda a: stack(a, training=True), [X], stack.trainable_variables)
    (wanted,), _ = gradients(lambda a: expected(a, training=True), [X])
    assert_close(found, wanted, 1e-5)
    assert all(
        np.abs(g).max() > 0 for v, g in zip(stack.trainable_variables, by_variable, strict=True) if "kernel" in v.path
    )


def test_a_stack_in_a_stack_is_executed_as_it_was_when_it_is_made_again() -> None:
    inner = ResidualStack(Residual(layers.Dense(6)), 30, name="inner")
    stack = ResidualStack(inner, 2, name="outer")
    (config,) = [stack.get_config()["block"][0]["config"]]
    assert config["execution"] == inner.execution
    again = ResidualStack.from_config(stack.get_config())
    (first, *_) = (part for part in again._flatten_layers(include_self=False) if isinstance(part, ResidualStack))
    assert first.execution_reason == "asked for"


def _copy_nested(stack: ResidualStack, target: ResidualStack) -> None:
    """Copies the weights by kind and order: all kernels, block by block, and so on."""
    for kind in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"):
        values = [ops.convert_to_numpy(w) for w in stack.weights if w.path.endswith(kind)]
        places = [w for w in target.weights if w.path.endswith(kind)]
        shape = tuple(places[0].shape)
        if len(values) == 3:  # outer scanned, inner unrolled: (outer, …) for each inner block
            flat = np.stack(values, axis=1).reshape(-1, *shape)
        else:
            flat = np.concatenate([value.reshape(-1, *shape) for value in values])
        for place, value in zip(places, flat, strict=True):
            place.assign(value)


class NotCopyable(layers.Layer):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, None, 10**6 + 1, 10**9])
def test_depth_must_be_a_positive_whole_number(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="`depth` must be a whole number from 1 to 1,000,000"):
        ResidualStack(Residual(layers.Dense(6)), wrong)
    config = ResidualStack(Residual(layers.Dense(6)), cast(Any, np.int64(3))).get_config()
    assert type(config["depth"]) is int


@pytest.mark.parametrize("wrong", [lambda: layers.Dense(6), lambda index, width: layers.Dense(width)])
def test_a_function_of_something_else_than_an_index(wrong: Any) -> None:
    with pytest.raises(TypeError, match="`block` must be a function of one argument, the block's index"):
        ResidualStack(wrong, 2)


def test_a_layer_that_does_not_say_its_sizes() -> None:
    # As KerasHub writes them: Keras says None of the axis, whatever its input has there.
    def dense() -> keras.Layer:
        return layers.EinsumDense("abc,cd->abd", output_shape=(None, 8), bias_axes="d")

    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    for stack in (ResidualStack(Residual(dense()), 3), ResidualStack(dense(), 3)):
        assert stack(x).shape == (2, 5, 8)
        assert stack(keras.Input((None, 8))).shape == (None, None, 8)
    connection = Residual(dense())
    assert_close(connection(x), x + to_numpy(connection.branch[0](x)), 1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Failing(keras.initializers.Initializer):
    """An initializer that cannot draw."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        raise RuntimeError("no values")


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_values_that_cannot_be_drawn_are_no_concern_of_later_layers(execution: str) -> None:
    with pytest.raises(RuntimeError, match="no values"):
        ResidualStack(layers.Dense(6, bias_initializer=Failing()), 3, execution=execution).build((None, 6))
    assert ResidualStack(layers.Dense(6), 3, execution=execution)(np.ones((2, 6))).shape == (2, 6)
    with keras.StatelessScope():
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"execution": "scam"}, "`execution` must be one of auto, unrolled, scan"),
        ({"remat": "half"}, "`remat` must be False, True, 'full' or 'sqrt', but received 'half'"),
        ({"remat": 1}, "`remat` must be False, True, 'full' or 'sqrt', but received 1"),
        ({"remat": 0}, "`remat` must be False, True, 'full' or 'sqrt', but received 0"),
        ({"remat": np.ones(2)}, "`remat` must be False, True, 'full' or 'sqrt'"),
        ({"topology": "revers"}, "Did you mean 'reversible'"),
        ({"topology": 3}, "`topology` must be a Topology or one of"),
        ({"depth_rule": "deepnrm"}, "Did you mean 'deepnorm'"),
        ({"drop_path_rate": 1.0}, "`drop_path_rate` must be a number in [0, 1)"),
        (
            {"drop_path_rate": [0.1, 0.2, 0.3]},
            "`drop_path_rate` must be one rate, a pair (first, last), or one for each",
        ),
        ({"topology": "momentum", "depth": 2000}, "`momentum` must be a number whose power"),
        ({"block": layers.Dense(6), "topology": "reversible"}, "Wrap it: Residual(layer)."),
        ({"block": layers.Dense(6), "drop_path_rate": 0.1}, "blocks that are keras_residual.Residual"),
        (
            {"block": Residual(layers.Dense(6), activation="relu"), "topology": "reversible"},
            "`activation` must be left",
        ),
        ({"block": Residual(layers.Dense(5), shortcut="projection")}, "a block must keep the shape of its input"),
        ({"block": NotCopyable(ops.tanh)}, "layers that can be copied from their configuration"),
        ({"block": "dense"}, "`block` must be a Keras layer, a list of layers, or a function"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(call: dict[str, Any], message: str) -> None:
    call = {"block": Residual(layers.Dense(6)), "depth": 4, **call}
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        ResidualStack(**call).build((None, 6))


def test_a_block_that_has_weights_is_refused() -> None:
    block = Residual(layers.Dense(6))
    block(X)
    with pytest.raises(ValueError, match="each depth gets a copy with weights of its own"):
        ResidualStack(block, 3)


def test_the_block_itself_stays_as_it_is() -> None:
    block = Residual(layers.Dense(6))
    for depth in (2, 3):
        assert ResidualStack(block, depth)(X).shape == X.shape
    assert not block.built


def test_a_class_that_nobody_registered_can_be_a_branch() -> None:
    class Doubled(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    for rate in (0.0, 0.1):
        stack = ResidualStack(Residual(Doubled()), 3, drop_path_rate=rate, execution="unrolled")
        assert_close(stack(X), X * 27, 1e-6)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize("shape", [(), (2,), (5,), (16, 1), (16, 4), (16, 3, 1)])
def test_a_mask_of_another_number_of_blocks_is_refused(execution: str, shape: tuple[int, ...]) -> None:
    stack = ResidualStack(Residual(layers.Dense(6)), 3, execution=execution)
    with pytest.raises(
        ValueError, match=rf"`block_mask` must be of shape \(3,\) or \(batch, 3\), .*{re.escape(str(shape))}"
    ):
        stack(X, block_mask=np.ones(shape))


def unequal_block(index: int) -> Residual:
    return Residual([layers.Dense(6), *([layers.Dropout(0.2)] * (index % 2))], drop_path_rate=index / 10)


def test_blocks_with_unequal_numbers_of_seeds_keep_their_random_state() -> None:
    stack = ResidualStack(unequal_block, 4, name="stack")
    stack(X, training=True)
    seeds = [[to_numpy(v.value) for v in cell.non_trainable_variables] for cell in stack._blocks.cells]
    assert len({len(of_cell) for of_cell in seeds}) == 3
    for other, kept in ((stack.with_execution("unrolled"), range(4)), (stack.with_blocks([1, 3]), (1, 3))):
        for index, cell in zip(kept, other._blocks.cells, strict=True):
            for variable, expected in zip(cell.non_trainable_variables, seeds[index], strict=True):
                np.testing.assert_array_equal(to_numpy(variable.value), expected)
    assert_close(stack.with_execution("auto")(X, training=True), stack(X, training=True), 1e-6)


@pytest.mark.any_backend
def test_the_number_of_weights_is_a_number_in_any_format() -> None:
    stack = ResidualStack(Residual(layers.Dense(64)), 3)
    stack.build((None, 64))
    assert (f"{stack.count_params():,}", f"{stack.count_params():>8,}", f"{stack.count_params()}") == (
        "12,480",
        "  12,480",
        "12480",
    )


def dense_block() -> Residual:
    return Residual(layers.Dense(6))


def one_more(index: int) -> Residual:
    return Residual([layers.Dense(6) for _ in range(index + 1)])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ((full_block, 5), (dense_block, 5), "the file holds 10 weights, but this stack has 2."),
        ((one_more, 2), (one_more, 3), "the file holds 6 weights, but this stack has 12."),
        ((dense_block, 3), (one_more, 3), "the file holds 2 weights, but this stack has 12."),
    ],
)
def test_a_file_of_other_blocks_is_refused_by_its_number_of_weights(source: Any, target: Any, message: str) -> None:
    stored: dict[str, Any] = {}
    for (block, depth), use in ((source, "save_own_variables"), (target, "load_own_variables")):
        stack = ResidualStack(block if block is one_more else block(), depth, name="stack")
        stack.build((None, 6))
        if use == "save_own_variables":
            stack.save_own_variables(stored)
            continue
        with pytest.raises(ValueError, match=re.escape(f"ResidualStack 'stack': {message} Load weights saved from")):
            stack.load_own_variables(stored)
