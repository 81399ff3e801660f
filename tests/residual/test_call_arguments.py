"""Arguments of a call reach the layers of the branch that take them, built for their shapes, saved with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_residual as kr
from contract import assert_close, to_numpy

RNG = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


X, MEMORY, TIME = normal(2, 5, 8), normal(2, 7, 6), normal(2, 3)


@keras.saving.register_keras_serializable(package="tests")
class Shift(layers.Layer):
    """Adds a projection of a time embedding, as the blocks of diffusion models do."""

    supports_masking = True

    def build(self, inputs_shape: Any, time_shape: Any = None) -> None:
        self.dense = layers.Dense(inputs_shape[-1])
        self.dense.build(time_shape)

    def call(self, inputs: Any, time: Any = None) -> Any:
        return inputs if time is None else inputs + ops.expand_dims(self.dense(time), 1)

    def compute_output_shape(self, inputs_shape: Any, time_shape: Any = None) -> Any:
        return inputs_shape


def attention(**arguments: Any) -> keras.Layer:
    return layers.MultiHeadAttention(2, 4, **arguments)


def test_a_second_input_is_attended_to() -> None:
    layer = kr.Residual(attention(), norm="layer_norm")
    y = layer(X, value=MEMORY)
    expected = X + to_numpy(layer.branch[0](layer.pre_norm(X), MEMORY))
    assert_close(y, expected, 1e-6)
    assert_close(layer(X, value=2 * MEMORY), X + to_numpy(layer.branch[0](layer.pre_norm(X), 2 * MEMORY)), 1e-6)


@pytest.mark.parametrize(
    ("branch", "arguments"),
    [
        (lambda: attention(), {"use_causal_mask": True}),
        (lambda: attention(), {"attention_mask": np.tril(np.ones((2, 5, 5), bool))}),
        (lambda: layers.GroupQueryAttention(4, 2, 1), {"use_causal_mask": True}),
        (lambda: layers.Attention(), {"use_causal_mask": True}),
        (lambda: layers.AdditiveAttention(), {"use_causal_mask": True}),
    ],
)
def test_masks_of_attention(branch: Any, arguments: dict[str, Any]) -> None:
    layer = kr.Residual(branch())
    before = to_numpy(layer(X, **arguments))
    changed = X.copy()
    changed[:, -1] += 1
    after = to_numpy(layer(changed, **arguments))
    assert_close(after[:, :-1], before[:, :-1], 1e-6)  # nothing before the last step sees it
    assert np.abs(to_numpy(layer(changed))[:, :-1] - to_numpy(layer(X))[:, :-1]).max() > 1e-4


@pytest.mark.parametrize("kind", [layers.Attention, layers.AdditiveAttention])
def test_attention_called_with_a_list(kind: Any) -> None:
    layer, memory = kr.Residual(kind()), normal(2, 7, 8)
    assert_close(layer(X), X + to_numpy(layer.branch[0]([X, X])), 1e-6)
    assert_close(layer(X, value=memory), X + to_numpy(layer.branch[0]([X, memory])), 1e-6)
    assert_close(layer(X, value=memory, key=-memory), X + to_numpy(layer.branch[0]([X, memory, -memory])), 1e-6)
    mask = np.array([[True] * 3 + [False] * 2, [True] * 5])
    assert_close(layer(X, mask=mask), X + to_numpy(layer.branch[0]([X, X], mask=[mask, mask])), 1e-6)


def test_every_part_gets_what_it_takes_and_a_nested_connection_too() -> None:
    inner = kr.Residual([Shift(), layers.Dense(8)])
    layer = kr.Residual([inner, Shift()], norm=Shift(), norm_position="out", branch_scale=Shift())
    y = to_numpy(layer(X, time=TIME))
    shifted = X + to_numpy(inner.branch[1](inner.branch[0](X, time=TIME)))
    for part in (layer.branch[1], layer.out_norm, layer.branch_scale_layer):
        shifted = part(shifted, time=TIME)
    assert_close(y, X + to_numpy(shifted), 1e-6)


def test_initial_states_of_a_recurrent_layer() -> None:
    layer = kr.Residual(layers.LSTM(8, return_sequences=True))
    states = [normal(2, 8), normal(2, 8)]
    assert_close(layer(X, initial_state=states), X + to_numpy(layer.branch[0](X, initial_state=states)), 1e-6)


def decoder() -> keras.Model:
    x, memory, time = keras.Input((5, 8)), keras.Input((7, 6)), keras.Input((3,))
    y = kr.Residual(attention(), norm="layer_norm")(x, use_causal_mask=True)
    y = kr.Residual(attention(), norm="layer_norm", name="cross")(y, value=memory)
    y = kr.Residual([Shift(), layers.Dense(8)], norm="layer_norm")(y, time=time)
    model = keras.Model([x, memory, time], y)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_in_a_functional_model_trained_saved_and_cloned(tmp_path: Path) -> None:
    model = decoder()
    model.fit([X, MEMORY, TIME], normal(2, 5, 8), verbose=0)
    expected = model.predict([X, MEMORY, TIME], verbose=0)
    model.save(tmp_path / "m.keras")
    assert_close(keras.saving.load_model(tmp_path / "m.keras").predict([X, MEMORY, TIME], verbose=0), expected, 1e-6)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone.predict([X, MEMORY, TIME], verbose=0), expected, 1e-6)
    assert model.get_layer("cross").branch[0].value_dense.kernel.shape[0] == 6


def test_a_mask_that_a_tensor_carries_is_seen_beside_a_second_input() -> None:
    layer = kr.Residual([layers.LSTM(8, return_sequences=True), Shift()])
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]])
    embedding = layers.Embedding(9, 8, mask_zero=True)
    x = embedding(tokens)
    mask = embedding.compute_mask(tokens)
    assert_close(layer(x, time=TIME), to_numpy(layer(to_numpy(x), time=TIME, mask=mask)), 1e-6)
    assert np.abs(to_numpy(layer(to_numpy(x), time=TIME)) - to_numpy(layer(x, time=TIME))).max() > 1e-4


def test_an_argument_that_no_layer_takes() -> None:
    with pytest.raises(TypeError, match=r"Residual 'r': its call takes no argument 'time'.*: inputs, training, mask\."):
        kr.Residual(layers.Dense(8), name="r")(X, time=TIME)
    for layer in (kr.Residual(Shift()), kr.ResidualStack(Shift(), 2), kr.ResidualStack(kr.Residual(Shift()), 2)):
        with pytest.raises(TypeError, match=r"takes no argument 'tme', nor does a layer in it\. Did you mean 'time'\?"):
            layer(X, tme=TIME)


@keras.saving.register_keras_serializable(package="tests")
class NeedsTime(Shift):
    def call(self, inputs: Any, time: Any) -> Any:
        return super().call(inputs, time)


@pytest.mark.parametrize("inputs", [X, keras.Input((5, 8))], ids=["array", "symbol"])
def test_an_argument_that_a_layer_needs(inputs: Any) -> None:
    made = [
        kr.Residual(NeedsTime(name="n")),
        kr.ResidualStack(NeedsTime(name="n"), 2),
        kr.ResidualStack(kr.Residual(kr.Residual(NeedsTime(name="n"))), 2),
    ]
    for layer in made:
        with pytest.raises(
            ValueError, match=r"has a layer, 'n' \(NeedsTime\), that needs the call argument 'time'"
        ) as e:
            layer(inputs)
        assert "layer(inputs, time=…)" in str(e.value)
        assert str(e.value).count("has a layer") == 1


def test_a_layer_with_a_state_for_each_sample() -> None:
    inputs = keras.Input(batch_shape=(2, 5, 8))
    layer = kr.Residual(layers.LSTM(8, return_sequences=True, stateful=True))
    model = keras.Model(inputs, layer(inputs))
    alone = keras.Model(inputs, layer.branch[0](inputs))
    # Keras's `predict` on JAX keeps no such state, of no layer.
    first, second = to_numpy(model(X)), to_numpy(model(X))
    assert np.abs(second - first).max() > 1e-4
    layer.branch[0].reset_state()
    assert_close(alone(X), first - X, 1e-5)
    assert_close(alone(X), second - X, 1e-5)
    for block in (layer.branch[0], kr.Residual(layers.Bidirectional(layers.GRU(4, stateful=True), name="both"))):
        with pytest.raises(
            ValueError, match=r"`block` must be layers that keep nothing of a sample.*keras\.Sequential"
        ):
            kr.ResidualStack(type(block).from_config(block.get_config()), 3)


# --- Through stacks --------------------------------------------------------------------------------------------------

STACKS = [
    {"execution": execution, "remat": remat} for execution in ("unrolled", "scan") for remat in (False, "full", "sqrt")
]


def blocks() -> list[keras.Layer]:
    return [
        kr.Residual([layers.LayerNormalization(), attention()]),
        kr.Residual([layers.LayerNormalization(), Shift(), layers.Dense(8)]),
    ]


def stack_model(**arguments: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = [keras.Input(array.shape[1:]) for array in (X, MEMORY, TIME)]
    # With a weight before it, so that the gradient of what the blocks share is seen too.
    value, time = layers.Dense(6)(inputs[1]), layers.Dense(3)(inputs[2])
    y = kr.ResidualStack(blocks(), 5, name="stack", **arguments)(inputs[0], value=value, time=time)
    model = keras.Model(inputs, y)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def shared(model: keras.Model) -> list[Any]:
    return [weight for layer in model.layers if layer.name != "stack" for weight in layer.weights]


def stack_by_hand(stack: Any) -> np.ndarray:
    x = ops.convert_to_tensor(X)
    for cell in stack._blocks.cells:
        attends, shifts = cell.connections
        norm, attend = attends.branch
        x = x + attend(norm(x), MEMORY)
        norm, shift, dense = shifts.branch
        x = x + dense(shift(norm(x), time=TIME))
    return to_numpy(x)


def test_every_block_of_a_stack_gets_them() -> None:
    stack = kr.ResidualStack(blocks(), 3, execution="unrolled")
    assert_close(stack(X, value=MEMORY, time=TIME), stack_by_hand(stack), 1e-5)
    scanned = stack.with_execution("scan")
    assert_close(scanned(X, value=MEMORY, time=TIME), stack_by_hand(stack), 1e-5)
    causal = stack(X, value=MEMORY, use_causal_mask=True)
    assert_close(scanned(X, value=MEMORY, use_causal_mask=True), causal, 1e-5)
    assert np.abs(to_numpy(causal) - to_numpy(stack(X, value=MEMORY))).max() > 1e-3


def test_stacks_learn_the_same_however_they_are_executed() -> None:
    found = []
    for arguments in STACKS:
        model = stack_model(**arguments)
        model.fit([X, MEMORY, TIME], np.zeros_like(X), epochs=2, batch_size=2, verbose=0)
        stack = model.get_layer("stack")
        found.append({**stack.get_stacked_weights(), **{f"{i}": to_numpy(w) for i, w in enumerate(shared(model))}})
    for arguments, weights in zip(STACKS[1:], found[1:], strict=True):
        for (path, expected), actual in zip(found[0].items(), weights.values(), strict=True):
            np.testing.assert_allclose(actual, expected, atol=2e-6, err_msg=f"{arguments} {path}")


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_stack_is_saved_with_the_shapes_of_its_arguments(tmp_path: Path, execution: str) -> None:
    model = stack_model(execution=execution)
    model.save(tmp_path / "m.keras")
    with keras.saving.custom_object_scope({"Shift": Shift}):
        again = keras.saving.load_model(tmp_path / "m.keras")
    inputs = [X, MEMORY, TIME]
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_a_reversible_stack_takes_what_has_no_gradient() -> None:
    rule = r"`value` must be without floats.*received \(2, 7, 6\) of \S*float32 .*Make the stack with remat='full'\."
    with pytest.raises(ValueError, match=rule):
        kr.ResidualStack(kr.Residual(attention()), 3, topology="reversible")(X, value=MEMORY)
    stack = kr.ResidualStack(kr.Residual(attention()), 3, topology="reversible")
    mask = np.tril(np.ones((2, 5, 5), bool))
    y = stack(X, attention_mask=mask)
    again = stack.with_execution("unrolled", remat="full")
    assert_close(y, again(X, attention_mask=mask), 1e-5)
    assert np.abs(to_numpy(y) - to_numpy(stack(X))).max() > 1e-3
    kept = kr.ResidualStack(kr.Residual(attention()), 3, topology="reversible", remat="full")
    assert kept(X, value=MEMORY).shape == X.shape
