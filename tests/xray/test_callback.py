"""The X-ray during `fit`: it sees each step as it is, and training does not notice."""

from __future__ import annotations

import json
import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from contract import to_numpy
from keras_residual import Residual, ResidualStack, XrayCallback, xray

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

    entries = callback._collection.entries()  # pyright: ignore
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
