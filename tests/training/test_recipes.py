"""Each hyper-parameter of each recipe, typed here from its source; recipes in configurations, runs and the command."""

import dataclasses
import itertools
import json
import re

import keras
import numpy as np
import pytest

from keras_residual.models.registry import list_models
from keras_residual.training import train as training
from keras_residual.training.config import OptimizerConfig, TrainConfig
from keras_residual.training.config_errors import ConfigError
from keras_residual.training.config_file import read_config
from keras_residual.training.defaults import by_number_of_examples
from keras_residual.training.making import make_augmentation, make_optimizer
from keras_residual.training.recipes import RECIPES
from keras_residual_cli.app import run

pytestmark = pytest.mark.any_backend

# Of a source: the optimizer, rate, momentum, Nesterov, decay, epochs, batch, (share of the steps, rate from there on)
# and what is done to pictures.
FACTS = {
    "he2015_cifar": {
        "optimizer": ("sgd", 0.1, 0.9, False, 1e-4, "all"),
        "length": (182, 128),  # 64,000 steps of 128 of 45,000 pictures
        "rates": [(0.0, 0.1), (0.49, 0.1), (0.51, 0.01), (0.74, 0.01), (0.76, 0.001), (0.99, 0.001)],
        "augment": {"shift": 4, "border": "zero", "flip": True},
        "label_smoothing": 0.0,
        "model": "cifar_resnet20",
        "image_size": None,
    },
    "he2016_preact": {
        "optimizer": ("sgd", 0.1, 0.9, True, 1e-4, "all"),
        "length": (200, 64),
        # Epochs 81 and 122, counted from 1, are the first at the lower rate.
        "rates": [(79.5 / 200, 0.1), (80.5 / 200, 0.01), (120.5 / 200, 0.01), (121.5 / 200, 0.001)],
        "augment": {"shift": 4, "border": "zero", "flip": True},
        "label_smoothing": 0.0,
        "model": "cifar_preact_resnet1001",
        "image_size": None,
    },
    "wrn": {
        "optimizer": ("sgd", 0.1, 0.9, True, 5e-4, "all"),
        "length": (200, 128),
        "rates": [(59.5 / 200, 0.1), (60.5 / 200, 0.02), (120.5 / 200, 0.004), (160.5 / 200, 0.0008)],
        "augment": {"shift": 4, "border": "reflect", "flip": True},
        "label_smoothing": 0.0,
        "model": "cifar_wrn_28_10",
        "image_size": None,
    },
    "airbench96_schedule": {
        # 9 for 1,024 examples, less what Nesterov momentum makes of it; the decay is taken off apart from the rate.
        "optimizer": ("sgd", 9 / (1 + 1 / 0.15), 0.85, True, 0.012 / 9, "all"),
        "length": (37, 1024),
        "rates": [(0.0, 0.2 * 1.173913), (0.1, 1.173913), (0.55, 0.5 * 1.173913)],
        "augment": {"shift": 4, "border": "reflect", "flip": "alternating", "cutout": 12},
        "label_smoothing": 0.2,
        "model": "auto",
        "image_size": None,
    },
    "torchvision_v1": {
        "optimizer": ("sgd", 0.1, 0.9, False, 1e-4, "all"),
        "length": (90, 256),  # 8 × 32
        "rates": [(0.0, 0.1), (29.5 / 90, 0.1), (30.5 / 90, 0.01), (60.5 / 90, 0.001)],
        "augment": {"crop": 0.08, "shift": 0, "flip": True},
        "label_smoothing": 0.0,
        "model": "resnet50",
        "image_size": 224,
    },
    "torchvision_v2": {
        "optimizer": ("sgd", 0.5, 0.9, False, 2e-5, "but_norms"),
        "length": (600, 1024),  # 8 × 128
        # Five epochs from a hundredth, then a cosine to 0.
        "rates": [(0.0, 0.005), (2.5 / 600, 0.2525), (5 / 600, 0.5), (0.5, 0.2533), (302.5 / 600, 0.25)],
        "augment": {
            "crop": 0.08, "shift": 0, "flip": True, "policy": "trivialaugment", "erase": 0.1, "mixup": 0.2,
            "cutmix": 1.0, "repeats": 4, "sizes": ((0.0, 176),),
        },
        "label_smoothing": 0.1,
        "model": "resnet50",
        "image_size": 224,
        # The mean of weights: (1 - 0.99998) · 1024 · 32 / 600 of them is new, every 32 steps.
        "also": {"optimizer.by_epoch": True, "optimizer.average": 0.998907733, "optimizer.average_every": 32},
    },
    **{
        f"rsb_a{number}": {
            "optimizer": ("lamb", rate, 0.9, False, decay, "kernels"),
            "length": (epochs, 2048),
            "rates": [(2.5 / epochs, 0.5 * rate), (5 / epochs, rate), ((epochs + 5) / 2 / epochs, rate / 2)],
            "augment": {
                "crop": 0.08, "shift": 0, "flip": True, "policy": "randaugment", "operations": 2,
                "magnitude": magnitude, "magnitude_spread": 0.5, "mixup": mixup, "cutmix": 1.0, "repeats": repeats,
                "sizes": sizes,
            },
            "label_smoothing": smoothing,
            "model": "resnet50",
            "image_size": 224,
            "also": {
                "optimizer.clipnorm": 1.0, "loss.name": "binary_crossentropy", "model.drop_path_rate": drop_path,
                "optimizer.warmup_start": 1e-4,
            },
        }
        for number, epochs, rate, decay, smoothing, mixup, magnitude, repeats, drop_path, sizes in (
            (1, 600, 5e-3, 0.01, 0.1, 0.2, 7, 3, 0.05, ()),
            (2, 300, 5e-3, 0.02, 0.0, 0.1, 7, 3, 0.05, ()),
            (3, 100, 8e-3, 0.02, 0.0, 0.1, 6, 1, 0.0, ((0.0, 160),)),
        )
    },
    "bit_hyperrule": {
        "optimizer": ("sgd", 0.003, 0.9, False, 0.0, "all"),
        "length": ("auto", 512),
        "rates": [],  # below
        "augment": {"shift": 0, "flip": True},
        "label_smoothing": 0.0,
        "model": "resnetv2_50x1_bit",
        "image_size": 480,
    },
    "ffcv_rn18_16": {
        "optimizer": ("sgd", 0.5, 0.9, False, 5e-5, "but_norms"),
        "length": (16, 1024),
        "rates": [(0.0, 5e-5), (1 / 16, 0.25), (2 / 16, 0.5), (9 / 16, 0.25), (15 / 16, 0.5 / 14)],
        "augment": {
            "crop": 0.08, "shift": 0, "flip": True, "test_flip": True, "sizes": ((0.0, 160), (0.75, 192)),
        },
        "label_smoothing": 0.1,
        "model": "resnetblur18",
        "image_size": 256,
    },
    "resnet_rs": {
        "optimizer": ("sgd", 1.6, 0.9, False, 4e-5, "kernels"),
        "length": (350, 4096),
        "rates": [(2.5 / 350, 0.8), (5 / 350, 1.6), (177.5 / 350, 0.8)],
        "augment": {
            "crop": 0.08, "shift": 0, "flip": True, "policy": "randaugment", "operations": 2, "magnitude": 10,
            "magnitude_spread": 0,
        },
        "label_smoothing": 0.1,
        "model": "resnetrs50",
        "image_size": 160,
        "also": {"optimizer.average": 0.9999, "model.dropout_rate": 0.25, "model.drop_path_rate": 0.0},
    },
    "tabular_resnet": {
        "optimizer": ("adamw", 3.5e-3, 0.9, False, 0.0, "kernels"),
        "length": (1000, 256),
        "rates": [(0.0, 3.5e-3), (0.99, 3.5e-3)],
        "augment": {},
        "label_smoothing": 0.0,
        "model": "tabular_resnet",
        "image_size": None,
        "also": {"patience": 16},
    },
    "wang2017_series": {
        "optimizer": ("adam", 1e-3, 0.9, False, 0.0, "kernels"),
        "length": (1500, 64),
        "rates": [],  # they depend on the loss
        "augment": {},
        "label_smoothing": 0.0,
        "model": "series_resnet",
        "image_size": None,
        "also": {
            "optimizer.schedule": "plateau", "optimizer.factor": 0.5, "optimizer.plateau_epochs": 50,
            "optimizer.lowest_rate": 1e-4, "batch_share": 0.1,
        },
    },
    "scratch_small": {
        "optimizer": ("sgd", 0.05, 0.9, True, 5e-4, "kernels"),
        "length": ("auto", 32),
        "rates": [(0.05, 0.025), (0.1, 0.05), (0.55, 0.025)],
        "augment": {"policy": "trivialaugment"},
        "label_smoothing": 0.1,
        "model": "small_resnet",
        "image_size": None,
        "also": {"steps": 3000, "batch_share": 0.1},
    },
    "finetune": {
        # fastai's fine_tune: base_lr 2e-3, half of it after the thaw, pct_start 0.3, div 5; Adam with decay 0.01.
        "optimizer": ("adamw", 2e-3, 0.9, False, 0.01, "kernels"),
        "length": ("auto", "auto"),
        "rates": [(0.0, 2e-3 / 5), (0.15, 2e-3 * (0.2 + 1) / 2), (0.3, 2e-3), (0.65, 1e-3)],
        "augment": {"crop": 0.75, "shift": 0, "flip": True},
        "label_smoothing": 0.0,
        "model": "auto",
        "image_size": None,
        # One epoch of the head of 1 + 4; ULMFiT: 2.6 from layer to layer.
        "finetune": {"head_epochs": "auto", "thawed_rate": 0.5, "stage_rate": 1 / 2.6, "batch_norm": "auto"},
    },
}  # fmt: skip


@pytest.mark.every
@pytest.mark.parametrize("name", RECIPES)
def test_the_settings_are_those_of_the_source(name):
    facts, config = FACTS[name], TrainConfig(recipe=name)
    optimizer = config.optimizer
    decay, decayed = optimizer.weight_decay, optimizer.decayed
    found = (optimizer.name, optimizer.learning_rate, optimizer.momentum, optimizer.nesterov, decay, decayed)
    assert found == pytest.approx(facts["optimizer"])
    assert (config.epochs, config.batch_size) == facts["length"]
    assert (config.model.name, config.data.image_size) == (facts["model"], facts["image_size"])
    assert config.loss.label_smoothing == facts["label_smoothing"]
    assert config.finetune.model_dump() == facts.get("finetune", TrainConfig().finetune.model_dump())
    plain = TrainConfig().augment.model_dump()
    assert config.augment.model_dump() == plain | facts["augment"]
    schedule = make_optimizer(optimizer.model_copy(update={"average": 0.0}), steps=10**6)._learning_rate
    for share, rate in facts["rates"]:
        assert float(schedule(round(share * 10**6))) == pytest.approx(rate, rel=1e-3)
    # What a recipe says nothing of is as the papers of the time have it: not clipped, not averaged, one batch a step.
    silent = {
        "optimizer.clipnorm": 0.0, "optimizer.average": 0.0, "optimizer.accumulate": 1, "optimizer.by_epoch": False,
        "loss.name": "crossentropy", "model.drop_path_rate": "auto", "model.dropout_rate": 0.0, "patience": None,
        "batch_share": None, "steps": None, "model.precision": "float32",
    }  # fmt: skip
    flat = config.flat()
    for key, value in (silent | facts.get("also", {})).items():
        assert flat[key] == (pytest.approx(value) if isinstance(value, float) else value), key


@pytest.mark.parametrize(
    ("examples", "steps", "drops", "warmup", "mixup"),
    [
        (19_999, 500, (200, 300, 400), 100, 0.0),
        (20_000, 10_000, (3_000, 6_000, 9_000), 500, 0.1),
        (499_999, 10_000, (3_000, 6_000, 9_000), 500, 0.1),
        (500_000, 20_000, (6_000, 12_000, 18_000), 500, 0.1),
    ],
)
def test_the_rule_of_big_transfer_goes_by_the_number_of_examples(examples, steps, drops, warmup, mixup):
    config = by_number_of_examples(TrainConfig(recipe="bit_hyperrule"), examples)
    assert (config.steps, config.augment.mixup) == (steps, mixup)
    schedule = make_optimizer(config.optimizer, steps=steps)._learning_rate
    assert float(schedule(warmup // 2)) == pytest.approx(0.0015)
    for number, step in enumerate(drops):
        before, after = (float(schedule(place)) for place in (step - 1, step))
        assert (before, after) == pytest.approx((0.003 * 0.1**number, 0.0003 * 0.1**number))


def test_what_is_set_overrides_a_rule_by_examples_too():
    config = TrainConfig(recipe="bit_hyperrule").with_overrides(["augment.mixup=0.0", "steps=7"])
    config = by_number_of_examples(config, 10**6)
    assert (config.steps, config.augment.mixup, config.optimizer.milestones) == (7, 0.0, (0.3, 0.6, 0.9))


@pytest.mark.every
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_its_source_a_result_and_a_network_that_there_is(name):
    recipe = RECIPES[name]
    assert re.search(r"https://\S+|torchvision", recipe.source)
    assert re.search(r"\d", recipe.result) or (name, recipe.result) == ("scratch_small", "None published.")
    assert recipe.settings.get("model.name", "small_resnet") in list_models()
    assert set(recipe.settings) <= set(TrainConfig.dotted_keys())


# --- In a configuration ----------------------------------------------------------------------------------------------


def test_what_is_set_overrides_the_recipe_in_any_order_and_form():
    expected = TrainConfig(recipe="wrn").updated({"epochs": 8, "optimizer.learning_rate": 0.05})
    assert (expected.epochs, expected.optimizer.learning_rate, expected.optimizer.nesterov) == (8, 0.05, True)
    forms = [
        TrainConfig().with_overrides(["epochs=8", "recipe=wrn", "optimizer.learning_rate=0.05"]),
        TrainConfig(epochs=8).updated({"optimizer.learning_rate": 0.05}).updated({"recipe": "wrn"}),
        TrainConfig(recipe="wrn", epochs=8, optimizer=OptimizerConfig(learning_rate=0.05)),
        TrainConfig.parse({"optimizer": {"learning_rate": 0.05}, "epochs": 8, "recipe": "wrn"}),
    ]
    assert all(form == expected for form in forms)


def test_a_value_that_is_set_to_the_default_is_set():
    assert TrainConfig().with_overrides(["optimizer.name=adamw", "recipe=wrn"]).optimizer.name == "adamw"


def test_the_table_stays_as_it_is():
    TrainConfig(recipe="he2015_cifar").updated({"optimizer.milestones": [0.1]})
    assert RECIPES["he2015_cifar"].settings["optimizer.milestones"] == [0.5, 0.75]


def test_an_unknown_recipe_is_refused():
    message = "TrainConfig: unknown name for `recipe`: 'he2015_cifr'. Did you mean 'he2015_cifar'?"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        TrainConfig().with_overrides(["recipe=he2015_cifr"])


def test_a_second_recipe_is_refused_since_the_first_one_would_stay():
    message = "TrainConfig: `recipe` is 'wrn' already, and its settings would stay. Begin with another configuration."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        TrainConfig(recipe="wrn").updated({"recipe": "he2015_cifar"})


# --- In a run --------------------------------------------------------------------------------------------------------

SMALL = ["model.name=small_resnet", "epochs=1", "batch_size=64", "xray=false", "data.test_fraction=0.7"]


@pytest.mark.parametrize("name", ["he2015_cifar", "airbench96_schedule"])
def test_a_run_by_recipe_records_it_and_reloads(tmp_path, name):
    config = TrainConfig(out=str(tmp_path / "run")).with_overrides([*SMALL, "augment.cutout=2", "augment.shift=1"])
    result = training.train(config, recipe=name)
    kept = read_config(tmp_path / "run" / "config.toml")
    assert kept.recipe == name
    assert kept.optimizer == TrainConfig(recipe=name).optimizer
    assert 0 <= result.metrics["test_accuracy"] <= 1
    message = f"train: `recipe` must be left out where `config` is prepared already, but received {name!r} (str)."
    prepared = training.Prepared(kept, *[None] * (len(dataclasses.fields(training.Prepared)) - 1))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.train(prepared, recipe=name)


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.name=lamb", "optimizer.clipnorm=1.0", "optimizer.average=0.9", "loss.name=binary_crossentropy"],
        ["optimizer.name=lars", "optimizer.schedule=one_cycle", "optimizer.accumulate=2", "augment.crop=0.5"],
        ["optimizer.name=sgdw", "optimizer.schedule=constant", "optimizer.by_epoch=true", "optimizer.average=0.99"],
    ],
)
def test_a_run_takes_every_kind_of_setting(tmp_path, settings):
    mixed = ["augment.mixup=0.2", "augment.cutmix=1.0", "augment.erase=0.2", "loss.label_smoothing=0.1"]
    config = TrainConfig(out=str(tmp_path / "run")).with_overrides([*SMALL, *mixed, *settings])
    metrics = training.train(config).metrics
    assert np.isfinite(metrics["test_loss"])
    assert read_config(tmp_path / "run" / "config.toml").loss.label_smoothing == 0.1


def test_a_run_with_means_and_mixed_pictures_goes_on_exactly(tmp_path):
    def config(name):
        settings = ["optimizer.average=0.9", "optimizer.accumulate=2", "augment.mixup=0.2", "augment.cutmix=1.0"]
        return TrainConfig(out=str(tmp_path / name), recipe="wrn").with_overrides([*SMALL, "epochs=2", *settings])

    steps = itertools.count()

    def interrupt(batch, logs=None):
        if next(steps) == 4:
            raise KeyboardInterrupt

    whole = training.train(config("whole"))
    with pytest.raises(KeyboardInterrupt):
        training.train(config("cut"), callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)])
    rest = training.train(resume=tmp_path / "cut", callbacks=[keras.callbacks.LambdaCallback()])
    assert rest.metrics["test_loss"] == whole.metrics["test_loss"]
    for one, other in zip(rest.load_model().get_weights(), whole.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tables_take_an_optimizer_by_recipe_and_no_augmentation(tmp_path):
    config = TrainConfig(recipe="wrn").with_overrides(["data.source=wine", "batch_size=16", "model.name=auto"])
    prepared = training.prepare(config)
    assert prepared.config.optimizer.name == "sgd"
    assert make_augmentation(prepared.config.augment, classes=3) is None


# --- On the command line ---------------------------------------------------------------------------------------------


def test_the_command_lists_and_shows_recipes(capfd):
    assert run(["recipes"]) == 0
    shown = capfd.readouterr().out
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == list(RECIPES)
    assert RECIPES["wrn"].source in shown
    assert run(["recipes", "wrn", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["recipes"]
    assert (found["name"], found["settings"]) == ("wrn", dict(RECIPES["wrn"].settings))


def test_the_command_prints_what_a_recipe_sets(capfd):
    call = [
        "train",
        "digits",
        "--recipe",
        "wrn",
        "--model",
        "small_resnet",
        "--epochs",
        "3",
        "--print-config",
        "--json",
    ]
    assert run(call) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["recipe"], found["epochs"], found["optimizer"]["milestones"]) == ("wrn", 3, [0.3, 0.6, 0.8])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["recipes", "wrm"], "No recipe has the name 'wrm'. Did you mean 'wrn'?"),
        (["train", "--recipe", "wrm"], "TrainConfig: unknown name for `recipe`: 'wrm'. Did you mean 'wrn'?"),
        (
            ["train", "--recipe", "wrn", "--config", "runs/a"],
            "--recipe cannot go with --config, whose settings leave nothing to it. Drop one of them.",
        ),
    ],
)
def test_the_command_refuses_in_one_line(capfd, call, message):
    assert run(call) == 2
    assert message in capfd.readouterr().err
