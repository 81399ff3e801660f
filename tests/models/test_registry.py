"""Names to models: the known parameter counts, what is refused, and that each one learns and can be saved."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest

import keras_residual as kr
from contract import assert_close
from keras_residual.models.catalog import CATALOG
from keras_residual.models.config import ResNetConfig, SeriesResNetConfig, TabularResNetConfig

# Trainable parameters on 32×32×3 and ten classes, as the widespread PyTorch implementation of the paper has them.
PUBLISHED = {
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    "cifar_resnet302": 4_838_874,
    "cifar_resnet1202": 19_421_274,
    "cifar_preact_resnet164": 1_703_258,
}
SHAPES = {"tabular_resnet": (7,), "series_resnet": (20, 2), "small_resnet": (8, 8, 1)}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name: str) -> None:
    model = kr.create_model(name, input_shape=(32, 32, 3), num_classes=10)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == PUBLISHED[name]


@pytest.mark.any_backend
def test_names_are_in_natural_order() -> None:
    depths = (20, 32, 44, 56, 110, 302, 1202)
    assert kr.list_models("cifar_resnet*[0-9]") == [f"cifar_resnet{n}" for n in depths]
    assert sorted(kr.list_models()) == sorted(CATALOG)


@pytest.mark.parametrize("name", ["small_resnet", "cifar_resnet20", "series_resnet", "tabular_resnet"])
def test_each_family_learns_and_survives_a_file(name: str, tmp_path: Any) -> None:
    shape = SHAPES.get(name, (16, 16, 3))
    model = kr.create_model(name, input_shape=shape, num_classes=3, drop_path_rate=0.1)
    assert model.output_shape == (None, 3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, *shape)).astype("float32"), rng.integers(0, 3, 16)
    losses = [model.train_on_batch(x, y) for _ in range(8)]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))


@pytest.mark.any_backend
def test_drop_path_rises_from_zero_at_the_first_block_to_the_rate_at_the_last() -> None:
    model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10, drop_path_rate=0.4)
    rates: list[float] = []
    for layer in model.layers:
        if isinstance(layer, kr.Residual):
            rates.append(layer.drop_path_rate)
        elif isinstance(layer, kr.ResidualStack):
            rates.extend(layer.drop_path_rate)
    np.testing.assert_allclose(rates, np.linspace(0, 0.4, 9))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "cifar_resnet2O"},
            "create_model: unknown name for `name`: 'cifar_resnet2O'. Did you mean 'cifar_resnet20'?",
        ),
        (
            {"input_shape": (32, 32)},
            "create_model: `input_shape` must be (height, width, channels), but received (32, 32) (tuple).",
        ),
        *(
            (
                {"input_shape": shape},
                f"create_model: `input_shape` must be (height, width, channels), but received {shown} ({kind}).",
            )
            for shape, shown, kind in [
                (224, "224", "int"),
                ("224", "'224'", "str"),
                (b"abc", "b'abc'", "bytes"),
                ((0, 32, 3), "(0, 32, 3)", "tuple"),
                ((2.5, 32, 3), "(2.5, 32, 3)", "tuple"),
                (("32", 32, 3), "('32', 32, 3)", "tuple"),
                ((True, 32, 3), "(True, 32, 3)", "tuple"),
                ({32: 32}, "{32: 32}", "dict"),
            ]
        ),
        (
            {"input_shape": (32, 32, None)},
            "create_model: `input_shape` must be (height, width, channels) with a known number of channels, "
            "but received (32, 32, None) (tuple).",
        ),
        (
            {"name": "tabular_resnet", "input_shape": 13},
            "create_model: `input_shape` must be (features,) for 'tabular_resnet', but received 13 (int).",
        ),
        (
            {"num_classes": 0},
            "create_model: `num_classes` must be a positive whole number, but received 0 (int). Without a head: "
            "include_top=False.",
        ),
        (
            {"drop_path_rate": 1},
            "create_model: `drop_path_rate` must be a number in [0, 1), but received 1 (int).",
        ),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"name": "cifar_resnet20", "input_shape": (32, 32, 3), "num_classes": 10, **arguments}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        kr.create_model(call.pop("name"), **call)


@pytest.mark.any_backend
def test_a_shape_may_be_a_list_and_have_numbers_of_numpy() -> None:
    model = kr.create_model("cifar_resnet20", input_shape=[np.int64(32), None, 3], num_classes=10)
    assert model.input_shape == (None, 32, None, 3)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ResNetConfig(block="basik", depths=(1,), widths=(8,)),
            "ResNetConfig: unknown name for `block`: 'basik'. Did you mean 'basic'? Known: basic, bottleneck, "
            "res2net, resnest, sk_basic, sk_bottleneck.",
        ),
        (
            lambda: ResNetConfig(block="basic", depths=(1, 0), widths=(8, 8)),
            "ResNetConfig: `depths` must be at least one stage of at least one block, but received (1, 0) (tuple).",
        ),
        (
            lambda: ResNetConfig(block="basic", depths=(1, 1, 1, 1, 1), widths=(8,)),
            "ResNetConfig: `widths` must be one positive number a stage, 5 in all, but received (8,) (tuple).",
        ),
        (
            lambda: SeriesResNetConfig(filters=()),
            "SeriesResNetConfig: `filters` must be at least one number, each at least 1, but received () (tuple).",
        ),
        (
            lambda: TabularResNetConfig(hidden_dropout=1.0),
            "TabularResNetConfig: `hidden_dropout` must be a rate in [0, 1), but received 1.0 (float).",
        ),
    ],
)
def test_a_config_that_exists_can_be_built(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
