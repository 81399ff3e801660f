"""A configuration as a TOML file: errors name the file, and what is written reloads to an equal object."""

from __future__ import annotations

import tomllib
from pathlib import Path

from keras_residual._optional import require
from keras_residual.training.config import TrainConfig
from keras_residual.training.config_errors import ConfigError


def read_config(path: str | Path) -> TrainConfig:
    """Reads a configuration.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If the file is no TOML, or names an unknown key or a value that breaks a rule.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {str(path)!r}.")
    try:
        return TrainConfig.parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}.") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def to_toml(config: TrainConfig) -> str:
    """Returns the configuration as TOML, without the settings that are `None`."""
    tomli_w = require("tomli_w", extra="train")
    return tomli_w.dumps(config.to_dict())
