"""Batch norms taken into the layers before them leave the answers as they were."""

import keras
import numpy as np
import pytest
from keras.layers import (
    Activation,
    Add,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    GlobalAveragePooling2D,
    ReLU,
)

import keras_residual as kr
from deploy.nets import convolutions, randomised

BOUND = 1e-5  # of the maximum


def answers(model):
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("float32")
    return np.asarray(model.predict(x, verbose=0))


def norms(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def folded(model, *, left, tmp_path):
    """Returns the folded model, whose answers, also from a file, are those of the model."""
    randomised(model)
    before, weights = answers(model), [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.weights]
    made = kr.fold_batch_norm(model, verbose=False)
    found = answers(made)
    assert np.abs(found - before).max() <= BOUND * np.abs(before).max()
    assert len(norms(made)) == left
    made.save(tmp_path / "folded.keras")
    np.testing.assert_array_equal(answers(keras.saving.load_model(tmp_path / "folded.keras")), found)
    for variable, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    return made


def test_dense_convolutions_and_depthwise_ones(tmp_path):
    layers = [
        Conv2D(6, 3, strides=2, use_bias=False), BatchNormalization(scale=False), ReLU(),
        DepthwiseConv2D(3, depth_multiplier=2), BatchNormalization(center=False), Activation("gelu"),
        GlobalAveragePooling2D(), Dense(4), BatchNormalization(), ReLU(), Dense(3),
    ]  # fmt: skip
    made = folded(keras.Sequential([keras.Input((12, 12, 3)), *layers]), left=0, tmp_path=tmp_path)
    assert isinstance(made, keras.Sequential)


def test_connections_and_their_shortcuts(tmp_path):
    folded(convolutions(), left=0, tmp_path=tmp_path)
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, kr.basic_block(6, strides=2)(inputs))
    made = folded(model, left=0, tmp_path=tmp_path)
    assert made.layers[1].shortcut_layer.projection_norm is None


def adapted(model, layer):
    layer.enable_lora(2, lora_alpha=6)
    return model


def dense(which):
    layers = [Dense(4), BatchNormalization(), Dense(3)]
    return adapted(keras.Sequential([keras.Input((5,)), *layers]), layers[which])


def convolution(_):
    layers = [Conv2D(4, 3), BatchNormalization(), Dense(2)]
    return adapted(keras.Sequential([keras.Input((6, 6, 3)), *layers]), layers[0])


def einsum(_):
    layers = [keras.layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d"), BatchNormalization(), Dense(2)]
    return adapted(keras.Sequential([keras.Input((6, 3)), *layers]), layers[0])


def branch(which):
    layers = [Dense(5), BatchNormalization(), ReLU(), Dense(5)]
    return adapted(keras.Sequential([keras.Input((5,)), kr.Residual(layers)]), layers[which])


def shortcut(_):
    block = kr.Residual([Dense(3), BatchNormalization()], shortcut=kr.ProjectionShortcut(norm="batch_norm"))
    return adapted(keras.Sequential([keras.Input((5,)), block]), block.shortcut_layer.projection)


def stacked(which):
    stack = kr.ResidualStack(kr.Residual([Dense(4), BatchNormalization()]), depth=2, execution="unrolled")
    model = keras.Sequential([keras.Input((4,)), stack])
    return adapted(model, stack._blocks.cells[which].connections[0].branch[0])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "which", "left", "adapters"),
    [
        (dense, 0, 0, 0), (dense, 2, 0, 1), (convolution, 0, 0, 0), (einsum, 0, 1, 1), (branch, 0, 0, 0),
        (branch, 3, 0, 1), (shortcut, 0, 1, 1), (stacked, 1, 2, 1),
    ],
)  # fmt: skip
def test_adapters_are_taken_in_with_the_norm_or_left_alone(make, which, left, adapters, tmp_path):
    model = randomised(make(which))
    before = answers(model)
    made = kr.fold_batch_norm(model, verbose=False)
    np.testing.assert_allclose(answers(made), before, atol=BOUND * np.abs(before).max())
    assert len(norms(made)) == left
    assert sum(bool(getattr(layer, "lora_rank", None)) for layer in made._flatten_layers()) == adapters


@pytest.mark.any_backend
def test_a_layer_that_its_configuration_does_not_make():
    inputs = keras.Input((5, 4))
    attention = keras.layers.MultiHeadAttention(2, 2, name="attention")
    model = keras.Model(inputs, BatchNormalization()(Dense(4)(attention(inputs, inputs))))
    attention._query_dense.enable_lora(2)
    said = (
        r"^fold_batch_norm: the copy of 'attention' \(MultiHeadAttention\) that its configuration makes has 8 weights"
    )
    with pytest.raises(ValueError, match=said):
        kr.fold_batch_norm(model)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["scan", "unrolled"])
def test_stacks(execution, tmp_path):
    inputs = keras.Input((8, 8, 4))
    branch = [Conv2D(4, 3, padding="same", use_bias=False), BatchNormalization(), ReLU(),
              DepthwiseConv2D(3, padding="same"), BatchNormalization()]  # fmt: skip
    stack = kr.ResidualStack(kr.Residual(branch), depth=3, execution=execution, drop_path_rate=0.1)
    folded(keras.Model(inputs, stack(inputs)), left=0, tmp_path=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left"),
    [("cifar_resnet20", 0), ("resnet18", 0), ("seresnext26d_32x4d", 0), ("cifar_preact_resnet110", 55)],
)
def test_the_zoo(name, left, tmp_path):
    size = 16 if name.startswith("cifar") else 32
    folded(kr.create_model(name, input_shape=(size, size, 3), num_classes=5), left=left, tmp_path=tmp_path)


@pytest.mark.any_backend
class TestWhatStays:
    def test_norms_behind_something_else(self, tmp_path):
        x = inputs = keras.Input((8, 4))
        x = BatchNormalization(name="first")(x)
        x = BatchNormalization(name="after_relu")(Conv1D(4, 3, padding="same", activation="relu")(x))
        shared = Conv1D(4, 1)
        x = BatchNormalization(name="after_shared")(shared(x)) + shared(x)
        forked = Conv1D(4, 1)(x)
        x = Add()([BatchNormalization(name="after_forked")(forked), forked])
        x = BatchNormalization(axis=1, name="other_axis")(Conv1D(4, 1)(x))
        x = BatchNormalization(name="folded")(Conv1D(4, 1)(x))
        outputs = BatchNormalization(name="returned")(Conv1D(4, 1)(ReLU()(x)))
        made = folded(keras.Model(inputs, outputs), left=6, tmp_path=tmp_path)
        assert {layer.name for layer in norms(made)} == {
            "first", "after_relu", "after_shared", "after_forked", "other_axis", "returned"
        }  # fmt: skip

    def test_it_says_how_many(self, capsys):
        kr.fold_batch_norm(randomised(keras.Sequential([keras.Input((4,)), BatchNormalization(), Dense(2)])))
        assert capsys.readouterr().out == "0 of 1 batch norms folded.\n"

    def test_a_model_that_is_no_graph(self):
        class Own(keras.Model):
            pass

        with pytest.raises(ValueError, match="fold_batch_norm: `model` must be a built Sequential or Functional model"):
            kr.fold_batch_norm(Own())
