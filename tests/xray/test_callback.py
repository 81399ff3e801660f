"""The X-ray during `fit`: it sees each step as it is, and training does not notice, whatever befalls the X-ray."""

from __future__ import annotations

import errno
import gc
import json
import re
import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from contract import to_numpy
from keras_residual import Residual, ResidualStack, XrayCallback, xray
from keras_residual.xray import callback as callback_module
from keras_residual.xray.log_files import EventFiles
from keras_residual.xray.measure.program import MeasuringProgram
from keras_residual.xray.report import XrayReport

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = RNG.normal(size=(40, 2)).astype("float32")
FIT: dict[str, Any] = {"batch_size": 8, "verbose": 0}
STEPS = 5  # in an epoch


def branch() -> list[keras.Layer]:
    return [layers.Dense(8, activation="tanh"), layers.Dense(6)]


def small(optimizer: Any = None, **compiled: Any) -> keras.Model:
    """Returns a net whose first weights and random numbers are the same each time."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = Residual([*branch(), layers.Dropout(0.3)], norm="batch_norm", name="one")(inputs)
    x = Residual(branch(), drop_path_rate=0.2, name="two")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", **compiled)
    return model


class Weights(keras.callbacks.Callback):
    """Keeps what the weights are before and after each step."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen: list[tuple[list[np.ndarray], list[np.ndarray]]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.before = self._now()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append((self.before, self._now()))

    def _now(self) -> list[np.ndarray]:
        return [np.array(to_numpy(v.value)) for v in self.model.trainable_variables]


def state(model: Any) -> list[np.ndarray]:
    return [to_numpy(v.value) for v in [*model.variables, *model.optimizer.variables]]


def test_training_is_the_same_to_the_last_bit(tmp_path) -> None:
    alone = small()
    history = alone.fit(X, Y, epochs=2, validation_split=0.2, **FIT).history
    watched = small()
    callback = XrayCallback(X[:8], Y[:8], every=2, log_dir=tmp_path, verbose=0)
    seen = watched.fit(X, Y, epochs=2, validation_split=0.2, callbacks=[callback], **FIT).history
    assert callback.history["step"] == [0, 2, 4, 6, 8]
    assert seen == history
    assert len(state(alone)) > 20
    for one, other in zip(state(alone), state(watched), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_update_is_how_far_the_step_has_moved_each_block() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = Residual(branch(), name="one")(inputs)
    model = keras.Model(
        inputs, layers.Dense(2)(ResidualStack(Residual(branch()), 3, execution="scan", name="stack")(x))
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    callback, weights = XrayCallback(X[:8], Y[:8], every=3), Weights()
    model.fit(X, Y, epochs=1, callbacks=[callback, weights], **FIT)
    variables = model.trainable_variables

    def moved(step: int, path: str, depth: int | None = None) -> float:
        """Returns the ratio by hand, of the step that ends as the `step`-th."""
        before, after = weights.seen[step - 1]
        by = of = 0.0
        for variable, old, new in zip(variables, before, after, strict=True):
            if path in variable.path.split("/"):
                old, new = (old, new) if depth is None else (old[depth], new[depth])
                by, of = by + ((new - old) ** 2).sum(), of + (old**2).sum()
        return (by / of) ** 0.5

    assert [report.model["update_steps"] for report in callback.reports] == [0, 1, 0]
    found = callback.reports[1]
    assert found.model["step"] == 3
    expected = [moved(3, "one"), *(moved(3, "stack", depth) for depth in range(3))]
    assert [block["update_ratio"] for block in found.blocks] == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) == 4
    assert callback.history["update_ratio"][1] == [block["update_ratio"] for block in found.blocks]
    # Not watched, and so estimated, as `kr.xray` does it.
    assert callback.reports[2].blocks == xray(model, X[:8], Y[:8]).blocks


class Counting(layers.Layer):
    """Counts how often Python runs it; compiled programs do not."""

    calls = 0

    def call(self, inputs: Any) -> Any:
        self.calls += 1
        return inputs


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="which compiles nothing")
def test_the_program_is_made_once_and_that_of_the_training_step_stays() -> None:
    inputs, counting = keras.Input((6,)), Counting()
    model = keras.Model(inputs, layers.Dense(2)(Residual(branch())(counting(inputs))))
    model.compile("sgd", "mse")
    callback = XrayCallback(X[:8], Y[:8], every=2)
    counts = []
    note = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: counts.append(counting.calls))
    model.fit(X, Y, epochs=3, callbacks=[callback, note], **FIT)
    model.fit(X, Y, epochs=1, callbacks=[callback, note], **FIT)
    assert len(callback.reports) == 12
    assert counts[0] > 0, "the first X-ray is taken before the first step"
    assert counting.calls == counts[1], "no trace after those of the first X-ray and of the first step"


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX, which writes the new weights over the old ones")
def test_the_training_step_still_gets_the_memory_of_the_weights() -> None:
    """As without a callback: what the step was given is gone once it is done."""
    given, gone = [], []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            gone.append([value.is_deleted() for value in given])
            given[:] = [v.value for v in self.model.trainable_variables]

    model = small()
    model.fit(X, Y, epochs=1, callbacks=[Watch()], **FIT)
    without = list(gone)
    gone.clear()
    model.fit(X, Y, epochs=1, callbacks=[XrayCallback(X[:8], Y[:8], every=1, verbose=0), Watch()], **FIT)
    assert all(all(step) and step for step in without[1:])
    assert gone[1:] == without[1:]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="which Keras runs one step at a time")
def test_steps_of_several_at_once_and_epochs_of_uneven_length() -> None:
    callback = XrayCallback(X[:8], Y[:8], every=3, verbose=0)
    small(steps_per_execution=2).fit(X, Y, epochs=2, callbacks=[callback], **FIT)
    assert callback.history["step"] == [0, 4, 7, 9, 10]
    assert [report.model["update_steps"] for report in callback.reports] == [0, 2, 2, 2, 0]
    assert callback.history["epoch"] == [0, 0, 1, 1, 1]


def test_every_epoch_with_validation_and_fits_one_after_another() -> None:
    def batches() -> Any:
        for start in range(0, 40, 8):
            yield X[start : start + 8], Y[start : start + 8]

    model, callback = small(), XrayCallback(X[:8], Y[:8], every="epoch", verbose=0)
    with pytest.warns(UserWarning, match="ran out of data"):  # nobody knows how many there are
        model.fit(batches(), shuffle=False, callbacks=[callback], verbose=0)
    assert callback.history["step"] == [0, 5]
    model.fit(X, Y, initial_epoch=1, epochs=2, validation_data=(X[:8], Y[:8]), callbacks=[callback], **FIT)
    assert callback.history["step"] == [0, 5, 10]
    assert [report.model["update_steps"] for report in callback.reports] == [0, 0, 1], (
        "of data that ended no step was foreseen as the last"
    )
    model.get_layer("two").trainable = False
    model.compile("sgd", "mse")
    model.fit(X, Y, initial_epoch=2, epochs=3, callbacks=[callback], **FIT)
    assert callback.history["step"] == [0, 5, 10, 15], "counted on, though the new optimizer has none"
    assert callback.history["epoch"] == [0, 0, 1, 2]
    assert callback.reports[2].blocks[1]["update_ratio"] > 0
    assert callback.reports[3].blocks[1]["update_ratio"] is None, "a frozen block is not moved"
    assert callback.reports[3].blocks[1]["frozen"]


def test_half_precision_with_a_scaled_loss() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = small(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=2.0**24))
    callback = XrayCallback(X[:8], Y[:8], every=4, verbose=0)
    model.fit(X, Y, epochs=3, callbacks=[callback], **FIT)
    assert model.optimizer.iterations < 15, "the first steps overflow and are left out"
    assert callback.history["step"] == [0, 4, 8, 12, 15], "and count all the same"
    moved = [block["update_ratio"] for block in callback.reports[1].blocks]
    assert moved == [0, 0]
    last = callback.reports[-1]
    assert last.model["dtype"] == "float16"
    assert last.blocks[0]["gradient_norm"] == xray(model, X[:8], Y[:8]).blocks[0]["gradient_norm"] > 0


def test_files_hold_what_is_in_memory_and_a_later_run_adds(tmp_path) -> None:
    callback = XrayCallback(X[:8], Y[:8], every=4, log_dir=tmp_path, verbose=0)
    model = small()
    model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    lines = [json.loads(line) for line in (tmp_path / "xray.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == callback.history["step"] == [0, 4, 5]
    for line, report in zip(lines, callback.reports, strict=True):
        told = report.to_dict()
        assert (line["epoch"], line["blocks"], line["model"], line["advice"]) == (0, *told.values())

    entries = callback._xray.entries()  # pyright: ignore
    own = [to_numpy(v.value) for v in model.get_layer("one").trainable_variables]
    assert set(entries[0][0].tolist()) == {float(value) for weight in own for value in weight.flat}
    assert np.linalg.norm(entries[1][1]) == pytest.approx(callback.reports[-1].blocks[1]["weight_gradient_norm"])

    again = XrayCallback(X[:8], Y[:8], log_dir=tmp_path, verbose=0)
    model.fit(X, Y, epochs=1, callbacks=[again], **FIT)
    lines = [json.loads(line) for line in (tmp_path / "xray.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 4, 5, 5, 10]
    assert len(list((tmp_path / "xray").iterdir())) == 2


def test_advice_is_printed_when_its_rule_first_speaks(capsys) -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(Residual(branch(), skip_scale=0.5, name="weak")(inputs)))
    model.compile("sgd", "mse")
    for verbose in (1, 0):
        callback = XrayCallback(X[:8], Y[:8], every=2, verbose=verbose)
        model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
        assert all([entry.rule for entry in report.advice] == ["skip_scaled"] for report in callback.reports)
        printed = capsys.readouterr().out
        assert printed.count("XrayCallback, step ") == verbose
        assert ("step 0: weak: its shortcut is multiplied by 0.5" in printed) == bool(verbose)


def test_bad_input_is_refused_before_training() -> None:
    message = "XrayCallback: `y` must be the targets that the loss needs, but received None (NoneType)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        XrayCallback(X, loss="mse")
    with pytest.raises(ValueError, match="XrayCallback: `x` must be a batch of at least one sample"):
        XrayCallback(X[:0])
    with pytest.raises(ValueError, match="XrayCallback: `every` must be"):
        XrayCallback(X, every=0)


# --- A training is never ended by it ---------------------------------------------------------------------------------


class Doing(keras.callbacks.Callback):
    """Does something before a step."""

    def __init__(self, step: int, what: Callable[[], Any]) -> None:
        super().__init__()
        self.step, self.what = step, what

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.step:
            self.what()


def full_disk(path: Path, monkeypatch: pytest.MonkeyPatch, *, freed_after: int = 10**9) -> None:
    """Lets what is added to a file come to half of it on the disk, for so many times."""
    real, count = Path.open, 0

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        file = real(self, mode, *args, **kwargs)
        if self != path or mode != "ab":
            return file
        count += 1
        if count > freed_after:
            return file
        file.write(b'{"step": ')
        file.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", opened)


def warned(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(one.message) for one in caught if "XrayCallback" in str(one.message)]


def test_a_full_disk_ends_no_training_and_lines_go_on_once_there_is_room(tmp_path, monkeypatch) -> None:
    path = tmp_path / "logs" / "xray.jsonl"
    full_disk(path, monkeypatch, freed_after=3)
    callback = XrayCallback(X[:8], Y[:8], every=1, log_dir=tmp_path / "logs", tensorboard=False, verbose=0)
    with pytest.warns(UserWarning, match="XrayCallback") as caught:
        small().fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    (message,) = warned(list(caught))
    assert message.startswith("XrayCallback: the X-rays are not written to xray.jsonl, and training goes on. OSError")
    assert callback.history["step"] == [0, 1, 2, 3, 4, 5]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [3, 4, 5]


def test_a_folder_that_is_removed_ends_no_training_and_is_made_anew(tmp_path) -> None:
    logs = tmp_path / "logs"
    callback = XrayCallback(X[:8], Y[:8], every=1, log_dir=logs, verbose=0)
    remove = Doing(2, lambda: shutil.rmtree(logs))
    with pytest.warns(UserWarning, match="XrayCallback") as caught:
        small().fit(X, Y, epochs=1, callbacks=[remove, callback], **FIT)
    assert len(warned(list(caught))) == 2, "of the lines, and of TensorBoard's files"
    steps = [json.loads(line)["step"] for line in (logs / "xray.jsonl").read_text().splitlines()]
    assert steps == [3, 4, 5]
    assert len(list((logs / "xray").iterdir())) == 1


def test_a_place_where_nothing_can_be_written_ends_no_training(tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    callback = XrayCallback(X[:8], Y[:8], every=2, log_dir=tmp_path / "file", verbose=0)
    with pytest.warns(UserWarning, match="XrayCallback") as caught:
        small().fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    assert len(warned(list(caught))) == 2
    assert callback.history["step"] == [0, 2, 4, 5]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("where", [(MeasuringProgram, "run"), (XrayReport, "to_dict"), (EventFiles, "add")])
def test_what_fails_in_an_xray_ends_no_training(where: tuple[Any, str], tmp_path, monkeypatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("\x1b[31mof its own")

    monkeypatch.setattr(*where, fail)
    callback = XrayCallback(X[:8], Y[:8], every=1, log_dir=tmp_path)
    model = small()
    with pytest.warns(UserWarning, match="XrayCallback: .*, and training goes on. ZeroDivisionError") as caught:
        history = model.fit(X, Y, epochs=2, callbacks=[callback], **FIT).history
    assert len(history["loss"]) == 2
    assert int(model.optimizer.iterations) == 2 * STEPS
    (message,) = warned(list(caught))
    assert "\x1b" not in message
    again = small().fit(X, Y, epochs=2, **FIT).history
    assert again == history


def test_a_rule_that_fails_ends_no_training(tmp_path, monkeypatch) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("a number that no report has")

    monkeypatch.setattr(XrayReport, "advice", property(fail))
    callback = XrayCallback(X[:8], Y[:8], every=1, log_dir=tmp_path)
    with pytest.warns(UserWarning, match="XrayCallback") as caught:
        small().fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    assert len(warned(list(caught))) == 2, "of the lines, and of the advice"
    assert len(callback.reports) == STEPS + 1


def test_where_warnings_are_errors_it_is_printed(monkeypatch, capsys) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such place")

    monkeypatch.setattr(MeasuringProgram, "run", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().fit(X, Y, epochs=1, callbacks=[XrayCallback(X[:8], Y[:8])], **FIT)
    assert "no more X-rays are taken in this training" in capsys.readouterr().out


def test_the_user_can_still_interrupt(monkeypatch) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(MeasuringProgram, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        small().fit(X, Y, epochs=1, callbacks=[XrayCallback(X[:8], Y[:8])], **FIT)


def test_the_next_training_is_tried_again(monkeypatch) -> None:
    callback, model = XrayCallback(X[:8], Y[:8], every=2, verbose=0), small()
    with monkeypatch.context() as patched:
        patched.setattr(MeasuringProgram, "run", lambda *_, **__: 1 / 0)
        with pytest.warns(UserWarning, match="XrayCallback"):
            model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    assert callback.reports == []
    model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    assert callback.history["step"] == [5, 6, 8, 10]


def test_a_model_with_a_step_of_its_own_and_no_optimizer_is_followed() -> None:
    class Own(keras.Model):
        """Learns nothing, in a step of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = Residual(branch(), name="one"), layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.head(self.first(inputs))

        def train_step(self, *args: Any) -> Any:
            # On JAX a step takes its state and returns it.
            return ({"loss": np.float32(0)}, args[0]) if keras.backend.backend() == "jax" else {"loss": 0.0}

    model = Own()
    model(X)
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    callback = XrayCallback(X[:8], Y[:8], every=2, verbose=0)
    model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    assert len(callback.reports) >= 2
    assert [block["name"] for block in callback.reports[0].blocks] == ["one"]


def test_weights_that_become_nan_are_named_and_written(tmp_path) -> None:
    """A training that diverges is what the files are read for; others refuse to write what is not a number."""
    model = small(keras.optimizers.SGD(1e30))
    callback = XrayCallback(X[:8], Y[:8], every=1, log_dir=tmp_path, verbose=0)
    model.fit(X, Y, epochs=1, callbacks=[callback], **FIT)
    rules = [{entry.rule for entry in report.advice} for report in callback.reports]
    assert "given_not_finite" not in rules[0]
    assert rules[-1] == {"given_not_finite"}
    assert len((tmp_path / "xray.jsonl").read_text().splitlines()) == len(callback.reports)


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_reports_in_memory_are_thinned_and_the_ends_stay(monkeypatch) -> None:
    monkeypatch.setattr(callback_module, "MOST_REPORTS", 4)
    callback = XrayCallback(X[:8], Y[:8], every=1, verbose=0)
    small().fit(X, Y, epochs=2, callbacks=[callback], **FIT)
    steps = callback.history["step"]
    assert (steps[0], steps[-1]) == (0, 10)
    assert len(steps) <= 4
    assert steps == sorted(set(steps))
    assert [report.model["step"] for report in callback.reports] == steps
    assert all(len(column) == len(steps) for column in callback.history.values())


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the others keep what they compile")
def test_memory_does_not_grow_with_the_steps(monkeypatch) -> None:
    monkeypatch.setattr(callback_module, "MOST_REPORTS", 4)
    model, callback = small(), XrayCallback(X[:8], Y[:8], every=1, verbose=0)

    def held(epochs: int) -> int:
        model.fit(X, Y, epochs=epochs, callbacks=[callback], **FIT)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held(3)
        before = held(3)
        grown = held(12) - before
    finally:
        tracemalloc.stop()
    assert grown < 60 * 2000, "a report has some 10,000 bytes, and Keras itself keeps a little of each epoch"
