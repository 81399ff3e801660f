"""The configuration: unknown keys, overrides, the TOML round trip."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.training.config import AugmentConfig, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from keras_residual.training.config_errors import ConfigError
from keras_residual.training.config_file import read_config, to_toml

pytestmark = pytest.mark.any_backend

WRONG = {
    "optimizer.learnig_rate=0.1": "Unknown key 'learnig_rate' in [optimizer]. Did you mean 'learning_rate'?",
    "optimiser.learning_rate=0.1": "Unknown key 'optimiser'. Did you mean 'optimizer'?",
    "learning_rate=0.1": "Unknown key 'learning_rate'. Did you mean 'optimizer.learning_rate'?",
    "qqq=1": "Unknown key 'qqq'. Known: data, model, optimizer, augment, epochs, batch_size, seed, out, xray.",
    "epochs": "A setting must be written key=value, but received 'epochs'. Example: epochs=20",
    "epochs=0": "TrainConfig: `epochs` must be greater than or equal to 1 or 'auto', but received 0 (int).",
    "epochs=abc": "TrainConfig: `epochs` must be a valid integer or 'auto', but received 'abc' (str).",
    "epochs.more=1": "'epochs' is a value, not a section, so there is no 'epochs.more'.",
    "seed=true": "TrainConfig: `seed` must be a valid integer, but received True (bool).",
    "data.test_fraction=1": "TrainConfig: `data.test_fraction` must be less than 1, but received 1 (int).",
    "data.task=guess": (
        "TrainConfig: `data.task` must be 'auto', 'classification' or 'regression', but received 'guess' (str)."
    ),
    "optimizer.learning_rate=nan": (
        "TrainConfig: `optimizer.learning_rate` must be a finite number or 'auto', but received nan (float)."
    ),
    "model=small_resnet": ("'model' is a section, not a value. Set one of its keys: model.name, model.drop_path_rate."),
}


@pytest.mark.parametrize("assignment", WRONG)
def test_a_wrong_setting_says_what_is_wrong(assignment):
    with pytest.raises(ConfigError, match=f"^{re.escape(WRONG[assignment])}$"):
        TrainConfig().with_overrides([assignment])


def test_overrides_are_toml_and_fall_back_to_bare_text():
    config = TrainConfig().with_overrides(
        [
            "optimizer.learning_rate=5e-2",
            "augment.flip=true",
            "model.name=small_resnet",
            'data.drop=["a", "b"]',
            "epochs = 7",
        ]
    )
    assert config.optimizer.learning_rate == 0.05
    assert config.augment.flip is True
    assert config.model.name == "small_resnet"
    assert config.data.drop == ("a", "b")
    assert config.epochs == 7


def test_a_later_override_wins():
    assert TrainConfig().with_overrides(["seed=1", "seed=2"]).seed == 2


def test_a_column_whose_name_is_a_number_stays_a_name():
    assert TrainConfig().with_overrides(["data.target=2020"]).data.target == "2020"
    assert TrainConfig().with_overrides(['data.target="2020"']).data.target == "2020"


def test_one_name_needs_no_brackets():
    assert TrainConfig().with_overrides(["data.drop=id"]).data.drop == ("id",)


def test_it_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().epochs = 3


def test_a_file_with_a_wrong_key_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[optimizer]\nlearnig_rate = 0.1\n")
    message = f"{path}: Unknown key 'learnig_rate' in [optimizer]. Did you mean 'learning_rate'?"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_config(path)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))} is not a TOML file: "):
        read_config(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    message = f"There is no configuration file {str(tmp_path / 'run.toml')!r}."
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        read_config(tmp_path / "run.toml")


text = st.text(min_size=1, max_size=12)
names = st.lists(text, max_size=3).map(tuple)
fraction = st.floats(0.01, 0.99)
auto = st.just("auto")
configs = st.builds(
    TrainConfig,
    data=st.builds(
        DataConfig,
        source=text,
        target=st.none() | text,
        task=st.sampled_from(["auto", "classification", "regression"]),
        image_size=st.none() | st.integers(4, 4096),
        test_fraction=fraction,
        validation_fraction=fraction,
        drop=names,
        classes=names,
        features=names,
    ),
    model=st.builds(ModelConfig, name=text, drop_path_rate=auto | st.floats(0, 0.99)),
    optimizer=st.builds(
        OptimizerConfig, learning_rate=auto | st.floats(1e-9, 1e3), weight_decay=auto | st.floats(0, 1), warmup=fraction
    ),
    augment=st.builds(AugmentConfig, shift=auto | st.integers(0, 9), flip=auto | st.booleans()),
    epochs=auto | st.integers(1, 10**6),
    batch_size=auto | st.integers(1, 10**6),
    seed=st.integers(0, 2**32 - 1),
    out=st.none() | text,
)


@given(configs)
def test_the_toml_reloads_to_an_equal_object(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_bytes(to_toml(config).encode())
    assert read_config(path) == config
