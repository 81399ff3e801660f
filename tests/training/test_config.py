"""The configuration: unknown keys, overrides, the TOML round trip."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.training.config import AugmentConfig, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from keras_residual.training.config_errors import ConfigError
from keras_residual.training.config_file import MOST_BYTES, config_for_new_run, read_config, to_toml

pytestmark = pytest.mark.any_backend

WRONG = {
    "optimizer.learnig_rate=0.1": "Unknown key 'optimizer.learnig_rate'. Did you mean 'optimizer.learning_rate'?",
    "optimiser.learning_rate=0.1": "Unknown key 'optimiser.learning_rate'. Did you mean 'optimizer.learning_rate'?",
    "learning_rate=0.1": "Unknown key 'learning_rate'. Did you mean 'optimizer.learning_rate'?",
    "optimizer.lr=0.1": "Unknown key 'optimizer.lr'. Did you mean 'optimizer.learning_rate'?",
    "lr=0.1": "Unknown key 'lr'. Did you mean 'optimizer.learning_rate'?",
    "wd=0.1": "Unknown key 'wd'. Did you mean 'optimizer.weight_decay'?",
    "data.batchsize=8": "Unknown key 'data.batchsize'. Did you mean 'batch_size'?",
    "optimizer.epochs=8": "Unknown key 'optimizer.epochs'. Did you mean 'epochs'?",
    "Epoch=8": "Unknown key 'Epoch'. Did you mean 'epochs'?",
    "model_name=x": "Unknown key 'model_name'. Did you mean 'model.name'?",
    "size=8": "Unknown key 'size'. Did you mean 'data.image_size' or 'batch_size'?",
    "qqq=1": f"Unknown key 'qqq'. Known: {', '.join(TrainConfig.dotted_keys())}.",
    "a.b.c=1": f"Unknown key 'a.b.c'. Known: {', '.join(TrainConfig.dotted_keys())}.",
    "\x1b[2J=1": f"Unknown key '\\x1b[2J'. Known: {', '.join(TrainConfig.dotted_keys())}.",
    "epochs": "A setting must be written key=value, but received 'epochs'. Example: epochs=20",
    "epochs=0": "TrainConfig: `epochs` must be greater than or equal to 1 or 'auto', but received 0 (int).",
    "epochs=1000000000": (
        "TrainConfig: `epochs` must be less than or equal to 1000000 or 'auto', but received 1000000000 (int)."
    ),
    "epochs=1e9": "TrainConfig: `epochs` must be a valid integer or 'auto', but received 1000000000.0 (float).",
    "optimizer.learning_rate=1e39": (
        f"TrainConfig: `optimizer.learning_rate` must be less than or equal to {10**38} or 'auto', "
        "but received 1e+39 (float)."
    ),
    f"optimizer.weight_decay=1{'0' * 400}": (
        "TrainConfig: `optimizer.weight_decay` must be a valid number or 'auto', "
        "but received <a number of 1329 bits> (int)."
    ),
    "augment.shift=1000000": (
        "TrainConfig: `augment.shift` must be less than or equal to 4096 or 'auto', but received 1000000 (int)."
    ),
    "data.drop={a = 1}": "TrainConfig: `data.drop` must be a list, but received {'a': 1} (dict).",
    "data.classes=[1, 2]": "TrainConfig: `data.classes` must be a valid string, but received 1 (int).",
    "out=\udcff": "TrainConfig: `out` must be text without NUL that UTF-8 can hold, but received '\\udcff' (str).",
    'data.target="\\u0000"': (
        "TrainConfig: `data.target` must be text without NUL that UTF-8 can hold, but received '\\x00' (str)."
    ),
    "out=": "TrainConfig: `out` must be text that is not empty, but received '' (str).",
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
    message = f"{path}: Unknown key 'optimizer.learnig_rate'. Did you mean 'optimizer.learning_rate'?"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_config(path)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))} is not a TOML file: "):
        read_config(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    message = f"The configuration file {str(tmp_path / 'run.toml')!r} is not there."
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        read_config(tmp_path / "run.toml")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path):
        message = f"The configuration file {str(path)!r} is no file that can be read."
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            read_config(path)


BOMBS = {
    "brackets": f"epochs = {'[' * 100_000}",
    "tables": f"[{'.'.join(['a'] * 100_000)}]\nb = 1",
    "a table within": f"epochs = {{{'a . ' * 100_000}a = 1}}",
    "quotes": "'a'" + ".'a'" * 100_000 + " = 1",
    "a table below a value": f"epochs{'.a' * 100_000} = 1",
    "digits": f"seed = {'9' * 100_000}",
    "a number": f"seed = 0x{'f' * 100_000}",
    "text": f'epochs = "{"x" * 1_000_000}"',
    "keys": "\n".join(f"key{index} = 1" for index in range(100_000)),
    "size": "#" * (MOST_BYTES + 1),
    "bytes": "\udcff",
    "nothing": "\0",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_is_none_is_one_plain_line(bomb, tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(BOMBS[bomb].encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 1000


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 100_000, "{" + "a." * 50_000 + "a = 1}"])
def test_a_setting_that_is_none_names_its_key(text):
    with pytest.raises(ConfigError, match=r"^TrainConfig: `epochs` must be shorter than what came: ") as caught:
        TrainConfig().with_overrides([f"epochs={text}"])
    assert len(str(caught.value)) < 1000


text = st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text)
names = st.lists(text | st.just(""), max_size=3).map(tuple)
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


@pytest.mark.parametrize("config", [TrainConfig(), TrainConfig(data=DataConfig(target="y", image_size=32), out="here")])
def test_every_setting_is_shown_with_its_value_and_what_it_means(config):
    shown, section = {}, ""
    for block in to_toml(config).split("\n\n"):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("["):
            section = lines.pop(0)[1:-1] + "."
        if lines:
            meaning = [line for line in lines if line.startswith("# ")]
            name, _, value = lines[-1].removeprefix("# ").partition(" = ")
            shown[section + name] = (value, meaning[0])
    assert set(shown) == set(TrainConfig.dotted_keys())
    assert shown["out"] == (
        '"here"' if config.out else " (not set)",
        "# Run directory; left out, a fresh `runs/NAME-N`.",
    )
    assert all(len(meaning) > 15 for _, meaning in shown.values())


def run_of_before(folder, config):
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(config))
    (folder / "log.txt").write_text("Done\n")
    return folder


def test_the_settings_of_a_run_begin_another_one(tmp_path):
    out = tmp_path / "run"
    data = DataConfig(source="wine", task="classification", classes=("a", "b"), features=("c",), drop=("d",))
    config = TrainConfig(data=data, epochs=3, out=str(out))
    run_of_before(out, config)
    assert read_config(out / "config.toml") == config
    for named in (out, out / "config.toml"):
        assert config_for_new_run(named) == config.model_copy(update={"out": None})
        # With the very data it is the same run once more; other data have classes and columns of their own.
        assert config_for_new_run(named, source="wine").data == data
        assert config_for_new_run(named, source="digits").data == DataConfig(source="wine", drop=("d",))


def test_the_settings_of_a_file_are_taken_as_they_are(tmp_path):
    config = TrainConfig(data=DataConfig(classes=("a", "b")), out="mine")
    (tmp_path / "mine.toml").write_text(to_toml(config))
    assert config_for_new_run(tmp_path / "mine.toml", source="wine") == config
