"""`train`: from a configuration to a run directory with the best model, its history, metrics and report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_residual import _atomic
from keras_residual._backend import BACKEND, VERSION
from keras_residual._errors import bad_argument
from keras_residual._keras import print_msg
from keras_residual._notebook import html_table, in_notebook
from keras_residual.data import (
    Dataset,
    PaddedBatches,
)
from keras_residual.models.keras_file import load_keras_model
from keras_residual.training.checkpoint import Checkpoints
from keras_residual.training.config import OWN, TrainConfig, settled
from keras_residual.training.config_file import to_toml
from keras_residual.training.finetune import (
    Phase,
    phases,
    thaw,
)
from keras_residual.training.fit import fit
from keras_residual.training.look_through import EXAMPLES, LookThrough
from keras_residual.training.making import compile_learner, make_optimizer, together, watch_plateau
from keras_residual.training.not_finite import where_it_broke
from keras_residual.training.optimizers import EvaluateAverages
from keras_residual.training.own import Own, Plain
from keras_residual.training.prepare import Prepared, prepare
from keras_residual.training.progress import NotebookProgress
from keras_residual.training.record import NotFiniteError, Record
from keras_residual.training.report import write_report
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.saved import raw_outputs
from keras_residual.training.scores import SHARES, percent, score
from keras_residual.training.session import Session
from keras_residual.training.stopped import Heeding, is_out_of_memory, keeping

_TESTED = 256
"""Examples of the test at a time."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left.

    Args:
        run_directory: Where everything is.
        metrics: What `metrics.json` holds.
        history: A row an epoch, as in `history.csv`.
        best_epoch: The epoch whose model was kept.
        go_on: The command that goes on with a run that its time limit has ended; None for a finished one.
    """

    run_directory: Path
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    best_epoch: int
    go_on: str | None = None

    def _repr_html_(self) -> str:
        """Returns the numbers as a table for a notebook."""
        rows = [
            (key, percent(value) if key in SHARES else value)
            for key, value in self.metrics.items()
            if key != "versions"
        ]
        title = (
            f"{self.metrics['model']} on {self.metrics['data']}, epoch {self.best_epoch} kept in {self.run_directory}"
        )
        return html_table(title, rows)

    def load_model(self) -> keras.Model:
        """Returns the best model: raw inputs to logits, or to the target in its own units."""
        return load_keras_model(self.run_directory / "model.keras")


def train(
    config: TrainConfig | Prepared | None = None,
    *,
    model: keras.Model | str | None = None,
    data: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    optimizer: Any = None,
    class_weights: Mapping[str, float] | Literal["balanced"] | None = None,
    recipe: str | None = None,
    resume: str | Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult:
    """Trains, and leaves a run directory that is complete after every epoch. In a notebook a bar shows how far it is.

    A run that has ended before its time goes on with `resume`, on the same backend, versions and machine to the very
    numbers of an unbroken one: weights, optimizer, metrics, random numbers and the order of the data are what they
    were. Ctrl-C stops when the step is complete, a second one at once.

    Args:
        config: What to train, or what `prepare` made of it; None for the default, or for what the run has that is
            gone on with.
        model: A Keras model of the caller's own: functional, sequential, or a class that can be saved. It is trained
            as it is, on data as they are, and has the best weights afterwards. Or the name of a model.
        data: What to learn from, instead of `config.data.source`: arrays `(x, y)` or
            `((x_train, y_train), (x_test, y_test))`, or what `keras_residual.data.load_dataset` takes or returns, such
            as a place, or an object with `len()` and examples by `[index]`. A model of the caller's own gets arrays as
            they are.
        loss: For a model of the caller's own, as `compile` takes it. Where there is none, that with which the model is
            compiled; else for whole numbers the cross-entropy of what the model gives, or the mean squared error.
        metrics: Likewise; else the accuracy of classes.
        optimizer: Likewise; else the one that `config` and its recipe describe.
        class_weights: What the loss of an example is multiplied by, by the name of its class, or `"balanced"`; see
            `LossConfig`. Not for a model of the caller's own, whose loss is its own too.
        recipe: A name of `keras_residual.recipes`, whose settings hold for all that `config` does not set.
        resume: Directory of a run that is gone on with. `config` may then give it more epochs, and a `patience`,
            `save_every`, `max_minutes` and `xray` of its own; any other difference is refused.
        callbacks: Keras callbacks; they run after the epoch is on the disk. Their attributes that change in training
            are kept for `resume` where they are plain values and arrays, as those of `EarlyStopping` and
            `ReduceLROnPlateau` are.

    Raises:
        ValueError: If the run cannot be gone on with, or something is wrong with the configuration or the data.
        TrainingStopped: If it ended before its time; the text says what was kept.
        KeyboardInterrupt: On Ctrl-C, with a note about what was kept.

    Example:
        >>> train(TrainConfig()).metrics["test_accuracy"]                               # doctest: +SKIP
        0.9861
    """
    if isinstance(config, Prepared):
        for name, value in {"recipe": recipe, "model": model, "data": data, "resume": resume}.items():
            if value is not None:
                raise bad_argument("train", name, "left out where `config` is prepared already", value)
        prepared = config
    else:
        if class_weights is not None and (resume is None or config is not None):
            pairs = (
                [class_weights] if isinstance(class_weights, str) else [f"{k}={v}" for k, v in class_weights.items()]
            )
            config = (config or TrainConfig()).updated({"loss.class_weights": pairs})
        prepared = _prepared_from_call(config, model, data, loss, metrics, optimizer, recipe, resume)
    callbacks = (*watch_plateau(prepared.config.optimizer), *callbacks)
    config, dataset, examples = prepared.config, prepared.dataset, len(prepared.learn)
    keras.utils.set_random_seed(config.seed)
    before = prepared.earlier
    run = before.run if before else RunDirectory.create(config.out, name=dataset.name)
    run.by_call = OWN in (config.model.name, config.data.source)
    with keeping(run) as heeding:
        Checkpoints(run).restore_best(prepared.step)
        _atomic.write_bytes(run.trained_on, prepared.trained_on.to_bytes())
        what = "Training" if before is None else "Going on with"
        run.log(f"{what} {config.model.name} on {dataset.name}: {examples} examples, backend {BACKEND}")
        for note in prepared.notes:
            run.log(note)
        if dataset.skipped:
            dataset.skipped.tell(run.log)
        look = _look_through(run, prepared)
        untrained = look.now() if look else None
        config, record, session = _trained(prepared, run, heeding, callbacks)
        seconds = session.seconds
        # Where a training batch was too large, a larger one of the test may be too.
        size = settled(config.batch_size) // config.split_batch if config.split_batch > 1 else _TESTED
        best, dataset, found, outputs = _tested(prepared, run, size)
        trained = look.now(best.get_weights()) if look else None
        name = best.name if prepared.own else config.model.name
        numbers = {
            "data": dataset.name,
            "model": name,
            "params": best.count_params(),
            "epochs": len(record.rows),
            "steps": session.step,
            "train_seconds": round(seconds, 3),
            **record.speed(settled(config.batch_size) // config.split_batch),
            **found,
            "backend": BACKEND,
            "versions": _versions(),
            "seed": config.seed,
        }
        write_report(
            run, dataset, outputs, record.rows, numbers, best_epoch=record.best_epoch, xrays=(untrained, trained)
        )
        run.save_metrics(numbers)
        run.log(f"Done; the model of epoch {record.best_epoch} is kept.")
    go_on = run.how_to_go_on() if session.ended == "time" else None
    return TrainResult(run.path, numbers, record.rows, record.best_epoch, go_on)


def _trained(
    prepared: Prepared, run: RunDirectory, heeding: Heeding, callbacks: Sequence[keras.callbacks.Callback]
) -> tuple[TrainConfig, Record, Session]:
    """Trains; with not enough memory for a batch in the first epoch again from its beginning, in smaller parts."""
    while True:
        config = prepared.config
        _atomic.write_text(run.config, to_toml(config))
        record = Record(run, prepared.assembled, _what_decides_a_step(config), patience=config.patience)
        shown = [NotebookProgress(prepared.epochs, prepared.steps, prepared.step)] if in_notebook() else []
        parts_of_run = _phases(prepared)
        session = Session(
            prepared, record, callbacks, heeding, shown=[EvaluateAverages(), *shown],
            anew=[phase.until for phase in parts_of_run[:-1]],
        )  # fmt: skip
        try:
            _fit(prepared, session, parts_of_run)
        except Exception as error:
            parts = _more_parts(prepared, session) if is_out_of_memory(error) else None
            if parts is None:
                raise
        else:
            return config, record, session
        size = settled(config.batch_size) // parts
        told = (
            f"Not enough memory for {settled(config.batch_size) // config.split_batch} examples at a time. The run "
            f"begins anew with each batch in {parts} parts of {size} (split_batch={parts}): the steps are those of the "
            f"whole batch of {config.batch_size}, but batch norms take their statistics from {size} examples."
        )
        run.try_to_log(told)
        print_msg(told)
        session.begin_again()
        prepared = replace(prepared, config=config.updated({"split_batch": parts}))


def _more_parts(prepared: Prepared, session: Session) -> int | None:
    """Returns into how many parts a batch is to be cut next; None where it cannot be, or much would be lost.

    An optimizer of the caller's own sums no gradients up.
    """
    config = prepared.config
    if prepared.step or session.step >= prepared.steps or (prepared.own and not prepared.own.takes_optimizer):
        return None
    size = settled(config.batch_size)
    return next((parts for parts in range(2 * config.split_batch, size + 1) if size % parts == 0), None)


def _prepared_from_call(
    config: TrainConfig | None,
    model: Any,
    data: Any,
    loss: Any,
    metrics: Sequence[Any] | None,
    optimizer: Any,
    recipe: str | None,
    resume: str | Path | None,
) -> Prepared:
    settings: dict[str, Any] = {} if recipe is None else {"recipe": recipe}
    if isinstance(model, str):
        settings, model = settings | {"model.name": model}, None
    if isinstance(data, (str, Path)):
        settings, data = settings | {"data.source": str(data)}, None
    own = Own(model, data, loss, metrics, optimizer)
    settings |= own.settings()
    if settings and (config is not None or resume is None):
        config = (config or TrainConfig()).updated(settings)
    return prepare(config, resume=resume, own=own)


def _tested(
    prepared: Prepared, run: RunDirectory, batch_size: int
) -> tuple[keras.Model, Dataset, dict[str, float], np.ndarray | None]:
    """Returns the best model, the data that could be read, the numbers on its test part, and the answers there.

    Answers of a model of the caller's own only if they are logits or numbers.
    """
    dataset = prepared.dataset
    if prepared.own is not None:
        prepared.assembled.raw.load_weights(run.model)
        return (prepared.assembled.raw, dataset, *prepared.own.tested(dataset, batch_size))
    model, mirrored = load_keras_model(run.model), prepared.config.augment.test_flip
    outputs = raw_outputs(model, dataset.x_test, batch_size=batch_size, mirrored=mirrored)
    dataset, outputs = dataset.without_gone(outputs)
    return model, dataset, score(outputs, dataset.y_test, classes=len(dataset.classes)), outputs


def _phases(prepared: Prepared) -> tuple[Phase, ...]:
    classes, learner = len(prepared.dataset.classes), prepared.assembled.network

    def compiled(config: TrainConfig, epochs: int, shares: Sequence[float] | None) -> None:
        if prepared.own is not None:
            steps = {"steps": epochs * prepared.steps, "steps_per_epoch": prepared.steps}
            prepared.own.compile(
                config, prepared.dataset, lambda: make_optimizer(together(config), **steps, shares=shares)
            )
            return
        compile_learner(learner, config, classes=classes, epochs=epochs, steps_per_epoch=prepared.steps, shares=shares)

    return phases(prepared.assembled.body if prepared.tunes else None, prepared.config, compiled)


def _fit(prepared: Prepared, session: Session, parts_of_run: Sequence[Phase]) -> None:
    config, dataset, assembled = prepared.config, prepared.dataset, prepared.assembled
    x, y = assembled.inputs(dataset.x_train), assembled.targets(dataset.y_train)
    batches = prepared.batches(x, y)
    held_back = (Plain if prepared.own else PaddedBatches)(
        x, y, settled(config.batch_size) // config.split_batch, rows=prepared.choose
    )
    try:
        resized = [epoch for epoch, _ in prepared.augmentation.sizes] if prepared.augmentation else ()
        fit(assembled.network, batches, held_back, session, parts_of_run, resized)
    except NotFiniteError as error:
        where = where_it_broke(assembled.network, batches, session)
        raise NotFiniteError(f"{error} {where}".rstrip()) from error
    if prepared.tunes and assembled.body is not None:
        thaw(assembled.body, config)  # whichever part was trained last


def _what_decides_a_step(config: TrainConfig) -> str:
    optimizer = config.optimizer
    return (
        f"What decides the size of a step: optimizer.learning_rate {optimizer.learning_rate:g}, optimizer.weight_decay "
        f"{optimizer.weight_decay:g}, batch_size {config.batch_size}. Change it with --set KEY=VALUE."
    )


def _look_through(run: RunDirectory, prepared: Prepared) -> LookThrough | None:
    if not prepared.config.xray:
        return None
    dataset, rows = prepared.dataset, prepared.learn[:EXAMPLES]
    x, y = dataset.x_train[rows], dataset.y_train[rows]
    name = prepared.assembled.network.name if prepared.own else prepared.config.model.name
    loss = None if prepared.own is None else prepared.own.loss_for(dataset)
    return LookThrough(run, name, prepared.assembled, x, y, classes=len(dataset.classes), loss=loss)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("keras-residual", "keras", "numpy")} | {
        BACKEND: VERSION,
        "python": platform.python_version(),
    }
