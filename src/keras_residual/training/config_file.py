"""A configuration as a TOML file: errors name the file, and what is written reloads to an equal object."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from keras_residual._errors import printable, shown
from keras_residual._optional import require
from keras_residual.training.config import HOW_IT_IS_READ, Section, TrainConfig, parse_toml
from keras_residual.training.config_errors import ConfigError
from keras_residual.training.run_directory import RunDirectory

MOST_BYTES = 10_000_000
"""The largest file that is read: 100,000 names of classes need less."""

_WIDTH = 100


def read_config(path: str | Path) -> TrainConfig:
    """Reads a configuration.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If the file is no TOML, or names an unknown key or a value that breaks a rule.
    """
    path = Path(path)
    if not path.is_file():
        what = "is no file that can be read" if path.exists() else "is not there"
        raise FileNotFoundError(f"The configuration file {shown(str(path))} {what}.")
    if path.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{printable(path)} has more than {MOST_BYTES // 10**6} MB, so it is no configuration.")
    try:
        return TrainConfig.parse(parse_toml(path.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{printable(path)}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{printable(path)} is not a TOML file: {error}.") from None


def read_run(path: str | Path) -> TrainConfig:
    """Reads the configuration of a run.

    Raises:
        FileNotFoundError: If it is no run directory.
        ConfigError: See `read_config`.
    """
    run = RunDirectory(Path(path))
    if not run.config.is_file():
        raise FileNotFoundError(f"There is no run to go on with in {shown(str(path))}: it has no config.toml.")
    return read_config(run.config)


def config_for_new_run(path: str | Path, *, source: str | None = None) -> TrainConfig:
    """Reads a configuration to begin a new run with.

    In that of an earlier run the run directory is that run's, and so is what it found out about its data.

    Args:
        path: A file, or the directory of an earlier run.
        source: The data of the new run; None for those that the file names.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: See `read_config`.
    """
    path = Path(path)
    file = path / "config.toml" if path.is_dir() else path
    config = read_config(file)
    run = RunDirectory(file.parent)
    if file.name != run.config.name or not run.log_file.exists():
        return config
    kept = config.to_dict()
    kept.pop("out", None)
    if source is not None and source != config.data.source:
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in ("classes", "features", "task")}
    return TrainConfig.parse(kept)


def digest_of_data(config: TrainConfig) -> int:
    """Returns what tells apart configurations that choose other examples or read them in another way.

    Of a file or folder it is the name that counts, since data may be moved.

    Args:
        config: A configuration without "auto".
    """
    read = {key: value for key, value in config.to_dict()["data"].items() if key not in HOW_IT_IS_READ}
    told = read | {"source": Path(config.data.source).name, "seed": config.seed}
    text = json.dumps(told, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest(), "little")


def to_toml(config: TrainConfig) -> str:
    """Returns the configuration as TOML: every setting, with what it means. Those that are `None` are comments."""
    lines: list[str] = []
    # What stands below the header of a section belongs to it, so the sections come last.
    for name, value in sorted(config, key=lambda pair: isinstance(pair[1], Section)):
        if isinstance(value, Section):
            lines += [f"[{name}]", *_settings(value)]
        else:
            lines += _setting(type(config), name, value)
    return "\n".join(lines)


def _settings(section: Section) -> list[str]:
    return [line for name, value in section for line in _setting(type(section), name, value)]


def _setting(section: type[Section], name: str, value: Any) -> list[str]:
    tomli_w = require("tomli_w", extra="train")
    meaning = textwrap.wrap(_meanings(section).get(name, ""), _WIDTH, initial_indent="# ", subsequent_indent="# ")
    line = f"# {name} =  (not set)" if value is None else tomli_w.dumps({name: _plain(value)}).rstrip()
    return [*meaning, line, ""]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _meanings(section: type[Section]) -> dict[str, str]:
    """Returns what the docstring says of each argument."""
    arguments = inspect.cleandoc(section.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", arguments, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
