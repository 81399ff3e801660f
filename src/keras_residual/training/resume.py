"""Going on with a run: what has to be as it was, what may change, and the state from which it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._backend import BACKEND, VERSION
from keras_residual._errors import listed, printable, shown
from keras_residual.data import Dataset, Fingerprint
from keras_residual.training.checkpoint import Checkpoints
from keras_residual.training.config import HOW_IT_IS_READ, TrainConfig, settled
from keras_residual.training.config_file import read_run
from keras_residual.training.run_directory import RunDirectory

_FREE = ("out", "xray", "save_every", "max_minutes", "patience", *(f"data.{name}" for name in HOW_IT_IS_READ))
"""Settings that decide where and how long a run goes on, and nothing of what it computes."""
_FOUND_OUT = ("data.classes", "data.features", "data.image_size", "model.crop", "model.mean", "model.std")
"""What a run finds out about its data and its weights, where nobody says it."""


@dataclass(frozen=True)
class Earlier:
    """A run that is gone on with.

    Args:
        run: Its directory.
        was: Its configuration, as it was written.
        config: The one that it goes on with.
        notes: Lines about what has changed and what could not be read.
        state: What it goes on from; None where it begins anew.
    """

    run: RunDirectory
    was: TrainConfig
    config: TrainConfig
    notes: tuple[str, ...]
    state: Mapping[str, Any] | None


def earlier(path: str | Path, config: TrainConfig | None = None) -> Earlier:
    """Finds a run and its state.

    Args:
        path: The run directory.
        config: What it is to go on with: more epochs, and settings that change nothing of what is computed; None for
            what it began with. What is "auto" is what it was.

    Raises:
        FileNotFoundError: If it is no run directory.
        ValueError: If another setting differs, if the run is finished, was trained on another backend, or if none of
            its checkpoints can be read.
    """
    run, was = RunDirectory(Path(path)), read_run(path)
    config = _as_it_was(config, was)
    _check_settings(run, was, config)
    with run.alone():
        state, notes = Checkpoints(run).newest()
    if state is None:
        return Earlier(run, was, config, ("There is no checkpoint yet, so the run begins anew.",), None)
    _check_backend(run, state)
    if config.epochs != was.epochs or (state["ended"] == "early" and config.patience != was.patience):
        state["ended"] = ""
    _check_unfinished(run, was, state)
    if config.epochs != was.epochs:
        notes.append(
            f"Epochs {was.epochs} → {config.epochs}: from here on the learning rate follows its schedule, "
            f"{config.optimizer.schedule!r}, over the steps of all {config.epochs}."
        )
    versions = [f"{name} {state['versions'][name]} → {now}" for name, now in _versions().items()
                if state["versions"].get(name) != now]  # fmt: skip
    if versions:
        notes.append(f"Other versions than before, so the numbers may not go on exactly: {listed(versions)}.")
    return Earlier(run, was, config, tuple(notes), state)


def facts(dataset: Dataset) -> dict[str, Any]:
    """Returns what a state says of where it comes from."""
    test = Fingerprint.of(dataset.x_test, dataset.y_test)
    digest = hashlib.blake2b(test.digests.tobytes() + test.answers.tobytes(), digest_size=16).hexdigest()
    return {"backend": BACKEND, "versions": _versions(), "test": digest}


def check_data(earlier: Earlier, these: Fingerprint, now: Mapping[str, Any]) -> None:
    """Raises a ValueError where the data are not those that the run was trained on.

    Args:
        earlier: The run.
        these: Its training examples, as they are now.
        now: What `facts` returned.
    """
    run = earlier.run
    if not run.trained_on.exists():
        return
    before = Fingerprint.read(run.trained_on)
    parts = ("digests", "answers", "chose")
    what = ""
    if not all(np.array_equal(getattr(before, part), getattr(these, part)) for part in parts):
        new = len(these.digests) - int(before.find(these)[0].sum())
        what = f"{new} of {len(these.digests)} training examples are new" if new else (
            "there are others, or they come in another order"
        )  # fmt: skip
    elif earlier.state is not None and earlier.state["test"] != now["test"]:
        what = "the examples of the test are others"
    if what:
        raise ValueError(
            f"The data {shown(earlier.config.data.source)} have changed since {printable(run.path)} was trained on "
            f"them: {what}. Begin a new run: keras-residual train --config {printable(run.path)}"
        )


def _as_it_was(config: TrainConfig | None, was: TrainConfig) -> TrainConfig:
    if config is None:
        return was
    before = was.flat()
    same = {key: before[key] for key, value in config.flat().items() if value == "auto"}
    if config.loss.class_weights == ("balanced",):
        same["loss.class_weights"] = list(before["loss.class_weights"])
    same |= {key: before[key] for key in _FOUND_OUT if not config.flat()[key]}
    return config.updated(same)


def _check_settings(run: RunDirectory, was: TrainConfig, config: TrainConfig) -> None:
    before, now = was.flat(), config.flat()
    if config.out is not None and Path(config.out).resolve() != run.path.resolve() and config.out != was.out:
        raise ValueError(
            f"A run goes on in its own directory, {printable(run.path)}, but `out` is {shown(config.out)}. Leave it "
            "away."
        )
    others = [key for key in before if before[key] != now[key] and key not in (*_FREE, "epochs")]
    if now["epochs"] < before["epochs"]:
        others.append("epochs")
    if others:
        differences = listed([f"{key} is {shown(now[key])} and was {shown(before[key])}" for key in others])
        raise ValueError(
            f"The run {printable(run.path)} cannot go on with other settings than it began with, but {differences}. "
            f"Begin a new run: keras-residual train --config {printable(run.path)} --set KEY=VALUE"
        )


def _check_backend(run: RunDirectory, state: Mapping[str, Any]) -> None:
    if state["backend"] != BACKEND:
        raise ValueError(
            f"The run {printable(run.path)} was trained on {state['backend']}, whose random numbers and rounding "
            f"{BACKEND} does not have. Go on with: KERAS_BACKEND={state['backend']} {run.how_to_go_on()}"
        )


def _check_unfinished(run: RunDirectory, was: TrainConfig, state: Mapping[str, Any]) -> None:
    if state["ended"] not in ("epochs", "early") or not run.was_reported(state["step"]):
        return
    rows = len(state["record"]["rows"])
    ended, option = f"all {rows} epochs are done", f"--epochs {2 * rows}"
    if state["ended"] == "early":
        ended = f"it ended early, after {rows} of {was.epochs} epochs"
        option = f"--set patience={2 * was.patience}" if was.patience else f"--epochs {2 * settled(was.epochs)}"
    raise ValueError(f"The run {printable(run.path)} is finished: {ended}. To train it on: {run.how_to_go_on(option)}")


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("keras-residual", "keras", "numpy")} | {BACKEND: VERSION}
