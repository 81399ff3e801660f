"""The X-ray during `fit`: what it finds over the steps of a training, in memory, in files, and in TensorBoard."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._errors import bad_argument, printable
from keras_residual._keras import print_msg
from keras_residual.xray.cadence import Clock, cadence_of
from keras_residual.xray.log_files import EventFiles, JsonLines
from keras_residual.xray.measure.batch import batch_of
from keras_residual.xray.quantities import QUANTITIES
from keras_residual.xray.report import XrayReport
from keras_residual.xray.xray import Xray

ENTRIES = 256
"""Entries of each weight, and of its gradient, that TensorBoard's histograms are made of."""

MOST_REPORTS = 128
"""Reports kept in memory: where there are more, each second one is dropped, and the first and the last stay."""


def _harmless(hook: Callable[..., None]) -> Callable[..., None]:
    """Returns a hook of the callback whose errors end the X-rays of this training, and not the training."""

    @functools.wraps(hook)
    def guarded(self: XrayCallback, *args: Any, **kwargs: Any) -> None:
        if self._given_up:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self._given_up, self._watched = True, None
            self._warn("no more X-rays are taken in this training", error)

    return guarded


class XrayCallback(keras.callbacks.Callback):
    """Takes an X-ray of the model in training: before the first step, at the end, and in between as `every` says.

    Each is that of `kr.xray` for the same batch with the weights of that moment, by a program that is compiled once.
    Training goes on as it would without: the same weights to the last bit. Beside what `kr.xray` measures, each block's
    `update_ratio` is how far the step (with `steps_per_execution`, the steps) right before has moved its weights, as a
    part of them. Where no step was watched, as before training and at an end that `every` did not foresee, it is the
    estimate of `kr.xray`, and `update_steps` is 0.

    A training is never ended by it: where an X-ray cannot be taken, or a file cannot be written, it warns once and goes
    on. Of more than 128 reports each second one is dropped from memory, so that their number is bounded; files get all.

    Args:
        x: A batch of inputs, as the model takes them, always the same; some of the validation data, for example.
        y: Its targets. Without them the gradient is that of a random direction of the output.
        every: `"auto"` takes as many as cost `most_cost` of the time, and in a long training fewer: at least 5 % more
            steps lie behind one than behind the one before. `"epoch"` takes one after each epoch, a number one after
            every so many steps.
        loss: As of `kr.xray`; by default that of `compile`.
        sample_weight: As of `kr.xray`.
        most_cost: Seconds that X-rays may take for each second of training with `every="auto"`, above 0. What compiles
            the first one counts too, so that in a training of less than some minutes only the first and the last fit.
        log_dir: A folder for `xray.jsonl` and the event files of TensorBoard, which go to its folder `xray`; None
            writes nothing. Lines and event files that are there stay, and new ones are added. It is made when the first
            line is written.
        tensorboard: Whether event files are written. They need the extra `tensorboard`.
        training: Whether the layers act as in training.
        verbose: 1 prints the advice of each rule when the rule first speaks; 0 prints nothing.

    Attributes:
        reports: The reports so far, of type `XrayReport`. Their `.model` has `step`, `epoch` (from 0), and
            `update_steps`, the number of steps over which `update_ratio` was measured.
        history: Lists over the reports: `step`, `epoch`, `loss`, `gradient_ratio`, `signal_ratio`; and by block, a
            list with one number a block, `gradient_norm`, `weight_gradient_norm`, `update_ratio`, `variance`,
            `branch_ratio`, `dead_units`.

    Raises:
        ValueError: For a batch that is empty, or a value out of its range.
        ImportError: For event files without tensorboardX.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), kr.Residual(keras.layers.Dense(8), norm="layer_norm")])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.default_rng(0).normal(size=(64, 8))
        >>> xray = kr.XrayCallback(x[:32], x[:32], every=2)
        >>> _ = model.fit(x, x, batch_size=16, epochs=2, callbacks=[xray], verbose=0)
        >>> xray.history["step"]
        [0, 2, 4, 6, 8]
        >>> xray.reports[-1].model["update_steps"]
        1
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        every: int | str = "auto",
        *,
        loss: Any = None,
        sample_weight: Any = None,
        most_cost: float = 0.04,
        log_dir: str | Path | None = None,
        tensorboard: bool = True,
        training: bool = True,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        self.x, self.y, self.sample_weight = batch_of("XrayCallback", x, y, sample_weight)
        if y is None and loss is not None:
            raise bad_argument("XrayCallback", "y", "the targets that the loss needs", y)
        self.loss = loss
        self.training = training
        self.verbose = verbose
        self.reports: list[XrayReport] = []
        kept = (quantity.key for quantity in QUANTITIES if quantity.history)
        self.history: dict[str, list[Any]] = {key: [] for key in ("step", "epoch", *kept)}
        self._cadence = cadence_of(every, most_cost)
        self._clock = Clock()
        self._lines = None if log_dir is None else JsonLines(Path(log_dir) / "xray.jsonl")
        self._events = None if log_dir is None or not tensorboard else EventFiles(Path(log_dir) / "xray")
        self._xray: Xray | None = None
        self._trained: Any = None
        self._watched: _Watched | None = None
        self._spoken: set[str] = set()
        self._warned: set[str] = set()
        self._given_up = False
        self._epoch = 0
        self._before_epoch = 0
        self._ended = (0, 0)
        self._done_in_epoch = 0
        self._steps_in_epoch: int | None = None
        self._steps_at_once = 1

    # --- What Keras calls --------------------------------------------------------------------------------------------
    # At the end of a batch a number is noted, in whatever thread: else JAX would wait for the results of each step.

    async_safe = True

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes the first X-ray, unless the fit before has ended with one."""
        self._given_up = False
        self._begin()

    @_harmless
    def _begin(self) -> None:
        model: Any = self.model
        self._clock = Clock(usual=self._clock.usual)
        self._watched = None
        self._done_in_epoch = 0
        known = model is self._trained
        self._before_epoch = self._steps_so_far(model, known)
        self._trained = model
        self._steps_at_once = int(getattr(model, "steps_per_execution", 1) or 1)
        self._steps_in_epoch = (self.params or {}).get("steps")
        if not known or self._last_step() != self._before_epoch:
            self._take(self._before_epoch)

    @_harmless
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes where the epoch begins."""
        self._epoch = epoch
        self._done_in_epoch = 0

    @_harmless
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Takes the X-ray of the step before, if it was watched, and watches the next one, if that is wanted."""
        step = self._before_epoch + batch
        if self._watched is not None:
            self._take(step)
        after = self._before_epoch + self._behind(batch)
        last_of_epoch = self._behind(batch) == self._steps_in_epoch
        wanted = self._cadence.wanted(step, after, self._last_step(), self._clock)
        if wanted or (self._cadence.by_epoch and last_of_epoch):
            self._watch(step)

    @_harmless
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes how many steps of the epoch are done."""
        done = min(batch + 1, self._steps_in_epoch or batch + 1)  # the last execution may have fewer than the others
        self._done_in_epoch = max(self._done_in_epoch, done)

    @_harmless
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the X-ray of the epoch, or that of its last step, if one is wanted."""
        self._before_epoch += self._done_in_epoch
        self._steps_in_epoch = self._steps_in_epoch or self._done_in_epoch
        if self._watched is not None and self._watched.step == self._before_epoch:
            self._watched = None  # the data ended where a step was to come
        if self._watched is not None or self._cadence.by_epoch:
            self._take(self._before_epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Takes the last X-ray."""
        self._end()
        if self._events is not None:
            self._events.close()

    @_harmless
    def _end(self) -> None:
        if self._last_step() != self._before_epoch:
            self._take(self._before_epoch)
        self._ended = (self._before_epoch, _iterations(self.model))

    # --- An X-ray ----------------------------------------------------------------------------------------------------

    def _watch(self, step: int) -> None:
        """Keeps the weights as they are, so that the X-ray behind the step can tell how far they have moved."""
        started = self._clock.now()
        self._look().watch()
        self._watched = _Watched(step, self._clock.now() - started)
        self._clock.spent += self._watched.seconds

    def _take(self, step: int) -> None:
        watched, self._watched = self._watched, None
        _iterations(self.model)  # the steps that are on their way are none of the X-ray's time
        started, look = self._clock.now(), self._look()
        known = look.compiled
        if watched is None:
            look.watch()  # by the same program
        moved = step - watched.step if watched else 0
        report = look.report(update_steps=moved, facts={"step": step, "epoch": self._epoch})
        self._keep(report, look, step)
        seconds = self._clock.now() - started
        self._clock.spent += seconds
        # The first one compiles; what the later ones take is not known from it.
        self._clock.usual = seconds + (watched.seconds if watched else 0.0) if known else 0.0

    def _look(self) -> Xray:
        """Returns what looks at the model; another model is looked at anew."""
        model: Any = self.model
        if self._xray is None or self._xray.model is not model:
            arguments = {"sample_weight": self.sample_weight, "training": self.training}
            entries = ENTRIES if self._events else 0
            self._xray = Xray(model, self.x, self.y, self.loss, **arguments, entries=entries)
        return self._xray

    def _keep(self, report: XrayReport, look: Xray, step: int) -> None:
        self.reports.append(report)
        of_whole = {quantity.key for quantity in QUANTITIES if quantity.history and quantity.of_whole}
        for key, column in self.history.items():
            known = key in ("step", "epoch") or key in of_whole
            column.append(report.model.get(key) if known else [block.get(key) for block in report.blocks])
        if len(self.reports) > MOST_REPORTS:
            for kept in (self.reports, *self.history.values()):
                kept[:] = [*kept[:-1:2], kept[-1]]
        self._tell("the X-rays are not written to xray.jsonl", self._write_line, report, step)
        self._tell("TensorBoard's event files are not written", self._write_events, report, look, step)
        self._tell("advice is not printed", self._speak, report, step)

    def _tell(self, what: str, tell: Callable[..., None], *args: Any) -> None:
        """Tells of a report; where that fails, a warning says what is missing, and the next one is tried again."""
        try:
            tell(*args)
        except Exception as error:
            self._warn(what, error)

    def _warn(self, what: str, error: Exception) -> None:
        if what in self._warned:
            return
        self._warned.add(what)
        message = f"XrayCallback: {what}, and training goes on. {type(error).__name__}: {printable(error, 500)}"
        try:
            warnings.warn(message, stacklevel=2)
        except Warning:  # where warnings are errors
            print_msg(message)

    def _write_line(self, report: XrayReport, step: int) -> None:
        if self._lines is not None:
            self._lines.add({"step": step, "epoch": self._epoch, "time": round(time.time(), 3), **report.to_dict()})

    def _write_events(self, report: XrayReport, look: Xray, step: int) -> None:
        if self._events is not None:
            self._events.add(report, look.entries(), step)

    def _speak(self, report: XrayReport, step: int) -> None:
        if not self.verbose:
            return
        advice = [entry for entry in report.advice if entry.rule not in self._spoken]
        self._spoken |= {entry.rule for entry in advice}
        for entry in advice:
            print_msg(f"\nXrayCallback, step {step}: {entry}")

    def _steps_so_far(self, model: Any, known: bool) -> int:
        """Returns the number of steps at the start of a fit.

        The optimizer counts no step whose gradient overflowed, and from 0 where the model was compiled anew. So, of a
        model that was seen before, only what it has counted since then is taken from it.
        """
        done = _iterations(model)
        if not known:
            return done
        steps, then = self._ended
        return steps + (done - then if done >= then else done)

    def _behind(self, batch: int) -> int:
        """Returns the number of steps of the epoch once those that begin with a batch are done."""
        steps = batch + self._steps_at_once
        # The last execution of an epoch may have fewer than the others.
        return min(steps, self._steps_in_epoch or steps)

    def _last_step(self) -> int:
        return self.history["step"][-1] if self.reports else 0


@dataclass(frozen=True, slots=True)
class _Watched:
    """The step whose weights are kept, and what it took to keep them."""

    step: int
    seconds: float


def _iterations(model: Any) -> int:
    """Returns how many steps the optimizer has done, once they are done; 0 where it counts none."""
    iterations = getattr(getattr(model, "optimizer", None), "iterations", None)
    return 0 if iterations is None else int(np.asarray(ops.convert_to_numpy(iterations)))
