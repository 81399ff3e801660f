"""A training that can be left after any step and gone on with: where it is, what it holds, when that is written."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_residual import _backend
from keras_residual._atomic import is_disk_full
from keras_residual._errors import listed, printable
from keras_residual._keras import print_msg
from keras_residual.training.callback_state import changed, frozen
from keras_residual.training.checkpoint import Checkpoints
from keras_residual.training.random_states import random_states, set_random_states
from keras_residual.training.record import Record
from keras_residual.training.stopped import Heeding

if TYPE_CHECKING:
    from keras_residual.training.prepare import Prepared

_COPY_SECONDS, _COPY_SHARE = 0.25, 0.01
"""A copy of the state is taken in memory no more often than this, and for no more than this share of the time."""


class OtherRunError(ValueError):
    """A checkpoint is not that of this network, or not with these callbacks."""

    explained = True


class Session(keras.callbacks.CallbackList):
    """The callbacks of a run, which it goes on with as if it had never been left, and its place.

    Keras's `fit` gets this list as a whole, so that a run that goes on within an epoch, which takes two calls of
    `fit`, begins and ends once for its callbacks and counts its batches on.

    Args:
        prepared: The run, with the state that it goes on from.
        record: The record of its epochs.
        callbacks: Those of the user. Of each the attributes that change in training are part of the state, if they are
            plain values and arrays.
        stop: What asks it to stop; heeded when a step, or an epoch with its validation, is complete.
        anew: Epochs after which an optimizer begins anew, so that a state from there has none.
    """

    def __init__(
        self,
        prepared: Prepared,
        record: Record,
        callbacks: Sequence[keras.callbacks.Callback],
        stop: Heeding,
        *,
        shown: Sequence[keras.callbacks.Callback] = (),
        anew: Sequence[int] = (),
    ) -> None:
        model, config = prepared.assembled.network, prepared.config
        every = [record, *shown, *callbacks]
        super().__init__(every, add_history=True, model=model, epochs=prepared.epochs, steps=prepared.steps, verbose=0)
        self.epochs, self._steps = prepared.epochs, prepared.steps
        self._anew = frozenset(epochs * self._steps for epochs in anew)
        self._learner, self._record, self._users, self._stop = model, record, list(callbacks), stop
        self._run, self._facts, self._checkpoints = record.run, prepared.facts, Checkpoints(record.run)
        self._every_steps, self._every_seconds = config.checkpoint_every
        self._most_seconds = (config.max_minutes or float("inf")) * 60
        self._begun: float | None = None
        self._before: list[dict[str, tuple[Any, Any]]] = []
        self._state = state = prepared.state
        self.step = prepared.step
        self.ended = state["ended"] if state and state["ended"] != "time" else ""
        self._earlier: float = state["seconds"] if state else 0.0
        self._offset, self._random, self._out_of_time = 0, None, False
        self._saving, self._saved = threading.Lock(), self.step
        self._tried, self._tried_at = self.step, 0.0
        self._copy: dict[str, Any] | None = None
        self._begin: dict[str, Any] | None = None
        self._copied_at, self._copy_took = 0.0, 0.0
        self._warned: set[str] = set()
        if state:
            self._check_callbacks(state)
            record.restore(state["record"])
        stop.rescue = self.rescue

    @property
    def seconds(self) -> float:
        """How long the run has trained, in all its processes."""
        return self._earlier + self._now

    @property
    def _now(self) -> float:
        """Seconds since it began in this process."""
        return 0.0 if self._begun is None else time.perf_counter() - self._begun

    def build(self, held_back: keras.utils.PyDataset) -> None:
        """Makes what a backend may make as late as in the first step, if there is a state that goes into it.

        Raises:
            OtherRunError: If the state is not that of this network.
        """
        self._begin = None
        self._learner.optimizer.build(self._learner.trainable_variables)
        if self._state is None or self.ended:
            return
        self._learner.test_on_batch(*held_back[0])
        for variables, values in self._pairs(self._state):
            shapes = [tuple(variable.shape) for variable in variables], [value.shape for value in values]
            if values and shapes[0] != shapes[1]:
                raise OtherRunError(
                    f"The checkpoint in {printable(self._run.last)} is that of another network or optimizer than this "
                    "version makes of the configuration."
                )

    def back(self) -> int:
        """Goes back to the newest state in memory whose weights are finite, and returns its step.

        Raises:
            LookupError: If there is none.
        """
        state = next((it for it in (self._copy, self._begin) if it is not None and not self._not_finite(it)), None)
        if state is None:
            raise LookupError
        self._restore(state)
        if self._random is not None:
            set_random_states(self._random)
        return state["step"]

    def begin_again(self) -> None:
        """Gives the network the weights, and the generators the states, that they had at the beginning."""
        if self._begin is not None:
            for variable, value in zip(self._learner.variables, self._begin["variables"], strict=False):
                variable.assign(value)
            set_random_states(self._begin["random"])

    def rescue(self) -> None:
        """Writes the newest copy in memory, if the disk has none as new, or waits for what is being written.

        For any thread.
        """
        with self._saving:
            state = self._copy
        if state is not None:
            self._write(state)

    # --- What Keras calls --------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins, the first time."""
        if self._begun is None:
            self._begun = time.perf_counter()
            super().on_train_begin(logs)
            self._before = [frozen(callback) for callback in self._users]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Goes on from the state: before the epoch begins, or within it, where Keras has begun it anew."""
        state, self._state, self._offset = self._state, None, self.step % self._steps
        if state and not self._offset:
            self._restore(state)
        super().on_epoch_begin(epoch, logs)
        if state and self._offset:
            self._restore(state)
        if self._begin is None:  # once for each optimizer
            self._begin = self._taken() | {"random": self._random or random_states()}

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the random states, from which Keras may have drawn when it began to read the data."""
        if self._random is not None:
            set_random_states(self._random)
            self._random = None
        super().on_train_batch_begin(batch + self._offset, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the step, writes the state if it is time to, and stops if it is asked to.

        Not so for the last step of an epoch: its state is that after the validation.
        """
        super().on_train_batch_end(batch + self._offset, logs)
        self.step += 1
        self._stop.waits = True
        if self.step % self._steps == 0:
            return
        self._out_of_time = self._now > self._most_seconds
        if self._stop.asked or self._out_of_time or self._is_due():
            self._write(self._taken())
        else:
            self._copy_in_time()
        self._stop.check()
        if self._out_of_time:
            self._learner.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Counts the epoch, writes the state if it is time to, and stops if it is asked to."""
        super().on_epoch_end(epoch, logs)
        if self._out_of_time:  # within the epoch, from where the run goes on
            self.ended = "time"
            return
        self.step = (epoch + 1) * self._steps
        if self._offset or self.step in self._anew:  # the next call of `fit` reads the data anew
            self._random = random_states()
        if self.step >= self.epochs * self._steps:
            self.ended = "epochs"
        elif self._learner.stop_training:
            self.ended = "early"
        elif self._now > self._most_seconds:
            self.ended = "time"
            self._learner.stop_training = True
        if self.ended or self._stop.asked or self._is_due():
            self._write(self._taken())
        elif self._record.best_epoch == epoch + 1:  # a copy must not be older than the best model beside it
            self._copy = self._taken()
        self._stop.check()

    def on_train_end(self, logs: Any = None) -> None:
        """Ends, the last time."""
        if self.ended:
            self._stop.waits = False
            super().on_train_end(logs)

    # --- The state ---------------------------------------------------------------------------------------------------

    def _taken(self) -> dict[str, Any]:
        """Returns the state as it is, which nothing changes any more."""
        _backend.update_variables(self._learner)
        within = bool(self.step % self._steps)
        return {
            **self._facts,
            "step": self.step,
            "ended": self.ended,
            "seconds": round(self.seconds, 3),
            "record": copy.deepcopy(self._record.state()),
            "callbacks": [
                (type(callback).__name__, attributes)
                for callback, before in zip(self._users, self._before, strict=True)
                if (attributes := changed(callback, before))
            ],
            "random": random_states(),
            "variables": _values(self._variables(self.step)),
            # Keras begins an epoch with new ones.
            "metrics": _values(self._learner.metrics_variables) if within else [],
        }

    def _check_callbacks(self, state: Mapping[str, Any]) -> None:
        left = [type(callback).__name__ for callback in self._users]
        missing = [name for name, _ in state["callbacks"] if name not in left or left.remove(name)]
        if missing:
            raise OtherRunError(
                f"The run was trained with callbacks whose state it has kept and that are missing: {listed(missing)}. "
                "Pass them again: train(resume=..., callbacks=[...])."
            )

    def _pairs(self, state: Mapping[str, Any]) -> list[tuple[list[Any], list[np.ndarray]]]:
        return [
            (self._variables(state["step"]), state["variables"]),
            (self._learner.metrics_variables, state["metrics"]),
        ]

    def _variables(self, step: int) -> list[Any]:
        """Returns what a state after that step holds: the weights, and the optimizer's variables if it goes on."""
        return [*self._learner.variables, *([] if step in self._anew else self._learner.optimizer.variables)]

    def _restore(self, state: Mapping[str, Any]) -> None:
        for variables, values in self._pairs(state):
            for variable, value in zip(variables, values, strict=False):
                variable.assign(value)
        users = list(self._users)
        for name, attributes in state["callbacks"]:
            callback = next(user for user in users if type(user).__name__ == name)
            users.remove(callback)
            vars(callback).update(attributes)
        self._random = state["random"]

    # --- When it is written ------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        if self._every_steps is not None:
            return self.step - self._tried >= self._every_steps
        return self._now - self._tried_at >= self._every_seconds

    def _copy_in_time(self) -> None:
        """Takes a copy that can be written when the process is ended within a step, or within a long validation."""
        now = self._now
        if now - self._copied_at > max(_COPY_SECONDS, self._copy_took / _COPY_SHARE):
            self._copy = self._taken()
            self._copied_at = self._now
            self._copy_took = self._copied_at - now

    def _write(self, state: dict[str, Any]) -> None:
        with self._saving:
            if state["step"] <= self._saved and not state["ended"]:
                return
            self._tried, self._tried_at = state["step"], self._now
            wrong = self._not_finite(state)
            if wrong:
                self._warn(f"No checkpoint after step {state['step']}: {wrong} holds numbers that are not finite.")
                return
            try:
                self._checkpoints.write(state, state["step"])
            except Exception as error:
                if not isinstance(error, OSError) and not is_disk_full(error):
                    raise
                reason = "the disk is full" if is_disk_full(error) else printable(error)
                self._warn(f"No checkpoint could be written ({reason}). The training goes on, with the one before it.")
            else:
                self._saved = state["step"]

    def _not_finite(self, state: Mapping[str, Any]) -> str | None:
        """Returns the path of the first weight that is not finite: of a state that is no good to go on from."""
        pairs = zip(self._learner.variables, state["variables"], strict=False)
        return next((it.path for it, value in pairs if it.trainable and not np.isfinite(value).all()), None)

    def _warn(self, text: str) -> None:
        reason = text.partition(": ")[2] or text
        if reason not in self._warned:
            self._warned.add(reason)
            self._run.try_to_log(text)
            print_msg(text)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    # Of some backends an array shares its memory with the variable.
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]
