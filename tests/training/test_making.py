"""What decays, what lowers the rate, what is computed in which precision, and at which size."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from keras_residual.training import making
from keras_residual.training.config import OptimizerConfig, TrainConfig
from keras_residual.training.making import is_norm, make_augmentation, watch_plateau, without_decay
from keras_residual.training.saved import load_saved, raw_outputs
from keras_residual.training.train import prepare, train

# --- Decay -----------------------------------------------------------------------------------------------------------

NORMS = {
    "BatchNormalization", "EvoNormS0", "FilterResponseNorm", "GroupNormalization", "LayerNormalization",
    "Normalization", "RMSNormalization", "UnitNormalization",
}  # fmt: skip


@pytest.mark.any_backend
def test_the_rule_finds_every_norm_among_the_public_layers_and_nothing_else():
    found = {
        name
        for module in (layers, kr, kr.layers)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, keras.Layer) and any(making._NORM.search(each.__name__) for each in kind.mro())
    }
    assert found == NORMS | {"SpectralNormalization"}
    # That one is about the layer inside it, and a network may be called as it likes.
    assert not is_norm(layers.SpectralNormalization(layers.Dense(2)))

    class NormFree(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

    assert not is_norm(NormFree())

    class MyNorm(keras.Layer):
        pass

    assert is_norm(MyNorm())


def model_of(execution="unrolled"):
    inputs = keras.Input((6, 4))
    block = kr.Residual(
        [layers.LayerNormalization(axis=(1, 2), name="ln"), layers.Dense(4, name="dense"), kr.LayerScale(name="scale")],
        shortcut="identity",
    )
    x = kr.ResidualStack(block, 3, execution=execution)(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.RMSNormalization(name="rms")(x)
    x = layers.GRU(4, return_sequences=True, name="gru")(x)
    x = layers.Reshape((2, 3, 4))(x)
    x = layers.Conv2D(4, 1, name="conv")(x)
    for norm in (
        kr.layers.EvoNormS0(groups=2, name="evo"),
        kr.layers.FilterResponseNorm(name="frn"),
        layers.BatchNormalization(),
    ):
        x = norm(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_what_does_not_decay_is_chosen_by_layer_and_rank(execution):
    model = model_of(execution)

    def names(rule):
        chosen = {id(variable) for variable in without_decay(model, rule)}
        return [v.path for v in model.trainable_variables if id(v) in chosen], [
            v.path for v in model.trainable_variables if id(v) not in chosen
        ]

    norms, rest = names("but_norms")
    words = ("ln/", "rms/", "evo/", "frn/", "batch_normalization")
    assert norms
    assert all(any(word in path for word in words) for path in norms)
    assert not any(any(word in path for word in words) for path in rest)
    _, decayed = names("kernels")
    # Kernels of dense layers, convolutions, recurrent layers and attention; no bias, however many axes it has.
    assert all(path.endswith("kernel") for path in decayed)
    assert {path.split("/")[-1] for path in decayed} == {"kernel", "recurrent_kernel"}
    assert sum(path.endswith("kernel") for path in (v.path for v in model.trainable_variables)) == len(decayed)
    assert names("all")[0] == []


# --- A run -----------------------------------------------------------------------------------------------------------


def config_of(tmp_path, *settings, name="run"):
    quick = ["model.name=small_resnet", "epochs=2", "batch_size=64", "xray=false", "data.test_fraction=0.7"]
    return TrainConfig(out=str(tmp_path / name)).with_overrides([*quick, *settings])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_half_precision_learns_and_keeps_32_bit_weights(tmp_path, precision):
    result = train(config_of(tmp_path, f"model.precision={precision}", "epochs=6", "optimizer.average=0.9"))
    assert result.metrics["test_accuracy"] > 0.6
    model = result.load_model()
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert f"mixed_{precision}" in {layer.dtype_policy.name for layer in model._flatten_layers()}
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.any_backend
@pytest.mark.parametrize(("precision", "scaled"), [("float32", False), ("bfloat16", False), ("float16", True)])
def test_the_loss_of_half_floats_is_scaled(tmp_path, precision, scaled):
    config = config_of(tmp_path, f"model.precision={precision}")
    learner = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    making.compile_learner(
        learner, config.updated({"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.0}), classes=2, epochs=1,
        steps_per_epoch=1,
    )  # fmt: skip
    assert isinstance(learner.optimizer, keras.optimizers.LossScaleOptimizer) == scaled


@pytest.mark.any_backend
def test_a_plateau_lowers_the_rate_of_any_optimizer(tmp_path):
    settings = {"schedule": "plateau", "factor": 0.5, "plateau_epochs": 2, "lowest_rate": 0.02, "learning_rate": 0.1}
    (watching,) = watch_plateau(OptimizerConfig(weight_decay=0.0, name="adam", **settings))
    optimizer = making.make_optimizer(OptimizerConfig(weight_decay=0.0, average=0.9, name="adam", **settings), steps=9)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    model.compile(optimizer)
    watching.set_model(model)
    watching.on_train_begin()
    rates = []
    for epoch, loss in enumerate([1.0, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]):
        watching.on_epoch_end(epoch, {"loss": loss})
        rates.append(round(float(keras.ops.convert_to_numpy(optimizer.learning_rate)), 3))
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.02, 0.02, 0.02, 0.02]
    assert watch_plateau(OptimizerConfig()) == []


@pytest.mark.any_backend
def test_length_and_batch_follow_from_the_number_of_examples(tmp_path):
    settings = ["steps=100", "batch_share=0.01", "data.test_fraction=0.5"]
    prepared = prepare(config_of(tmp_path, *settings))
    assert prepared.config.batch_size == int(0.01 * len(prepared.learn)) == 8
    assert prepared.config.epochs == round(100 / (len(prepared.learn) // 8))


@pytest.mark.any_backend
def test_sizes_are_told_in_shares_of_the_epochs():
    config = TrainConfig(augment={"sizes": [[0.0, 160], [0.75, 192]], "shift": 0, "flip": True}).augment
    assert make_augmentation(config, classes=2, epochs=16).sizes == ((0, 160), (12, 192))
    assert make_augmentation(config, classes=2, epochs=1).sizes == ((0, 160), (1, 192))


@pytest.mark.any_backend
def test_a_net_trains_at_other_sizes_than_it_is_tested_at(tmp_path):
    trained_at_other_sizes(tmp_path)


@pytest.mark.slow
def test_so_it_does_where_each_size_is_compiled(tmp_path):
    trained_at_other_sizes(tmp_path)


def trained_at_other_sizes(tmp_path):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(epoch)

    settings = ["augment.sizes=[[0.0,6],[0.5,10]]", "augment.crop=0.5", "augment.test_flip=true"]
    settings += ["data.test_fraction=0.85", "batch_size=32"]
    result = train(config_of(tmp_path, *settings), callbacks=[Watch()])
    assert seen == [0, 1]
    saved = load_saved(tmp_path / "run")
    assert saved.shape == (8, 8, 1)
    assert saved.mirrored
    x = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 1)).astype("uint8")
    both = (raw_outputs(saved.model, x) + raw_outputs(saved.model, x[:, :, ::-1])) / 2
    np.testing.assert_allclose(raw_outputs(saved.model, x, mirrored=True), both, rtol=1e-5, atol=1e-5)
    assert not np.allclose(both, raw_outputs(saved.model, x))
    assert 0 <= result.metrics["test_accuracy"] <= 1
