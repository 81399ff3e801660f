"""Plain nets against residual nets of equal depth and width: the experiment of the paper, figure 1, on any data."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._backend import BACKEND, input_gradient
from keras_residual._errors import printable
from keras_residual.data import Batches, Dataset, PaddedBatches
from keras_residual.data.lazy import Inputs, LazyExamples
from keras_residual.training.assemble import moments, standardised
from keras_residual.training.compare_depth import by_depth
from keras_residual.training.compare_files import ComparisonFiles, Row
from keras_residual.training.compare_nets import plain_net, residual_net
from keras_residual.training.compare_settings import LAYERS_IN_A_BLOCK, Settings
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.scores import score
from keras_residual.training.stopped import Heeding, keeping

NETS = {"plain": plain_net, "residual": residual_net}
STEPS = 660  # with 128 examples a step: 60 passes over the digits
# The gradient of cross-entropy is bounded. That of the squared error grows with the answer, and so with the stream of a
# deep residual net: from 0.005 on its first steps leave the numbers that a float can hold.
LEARNING_RATES = {"classification": 0.05, "regression": 0.001}


@dataclass(frozen=True)
class Comparison:
    """What a finished comparison left.

    Args:
        run_directory: Where `results.csv`, `results.json` and `compare.png` are.
        results: What `results.json` holds; its `rows` are a dictionary a net.
    """

    run_directory: Path
    results: dict[str, Any]


def compare(
    dataset: Dataset,
    settings: Settings | None = None,
    *,
    out: str | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Comparison:
    """Trains a plain and a residual net of each depth and measures both; the files are complete after each net.

    The nets of a depth have the same layers, first weights, batches and steps: see `compare_nets`. The optimizer is
    the paper's, SGD with momentum 0.9, with 128 examples a step where there are enough; its rate falls along a cosine.
    A row has:

    - `train_loss`: the finished net's loss on the training examples, for numbers the mean squared error in the square
      of the target's unit. Where it grows with depth, the deeper net is not
      overfitted: it cannot even be fitted, although it could represent all that the shallower one does.
    - `test_accuracy`, or `test_rmse` in the target's unit.
    - `gradient_start`, `gradient_end`: norm of the gradient of the first test batch's mean loss with respect to its
      standardised inputs (targets that are numbers are standardised too), before and after training, with batch norm
      as in a training step.
    - `gradient_by_depth_start`, `gradient_by_depth_end`: mean over the same examples of the norm of the gradient of the
      loss with respect to the stream, a list with a number behind the stem and behind each block.
    - `signal_by_depth_start`, `signal_by_depth_end`: mean square of the stream there.

    Args:
        dataset: The data; a picture becomes a vector of numbers.
        settings: Which nets; None for the defaults.
        out: A folder that is empty or not there; None for a fresh `runs/compare-DATA-N`.
        on_row: Called after each net, when its row is on the disk.

    Raises:
        FileExistsError: If `out` is in use.
        TrainingStopped: If it ended before its time; the text says what was kept.
        KeyboardInterrupt: On Ctrl-C, with a note about what was kept.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, figure 1
    """
    settings = settings or Settings()
    examples = _Examples(dataset)
    rate = settings.learning_rate or LEARNING_RATES[dataset.task]
    epochs = settings.epochs or max(1, round(STEPS / (len(examples.x_train) // examples.batch_size)))
    facts = {
        "data": dataset.name,
        "task": dataset.task,
        "width": settings.width,
        "epochs": epochs,
        "batch_size": examples.batch_size,
        "learning_rate": rate,
        "seed": settings.seed,
        "backend": BACKEND,
    }
    run = RunDirectory.create(out, name=f"compare-{dataset.name}")
    files, nets = ComparisonFiles(run.path, facts), len(NETS) * len(settings.depths)
    with keeping(run, lambda: f"{printable(run.path)} holds {len(files.rows)} of {nets} nets.") as heeding:
        run.log(f"Comparing nets of depth {', '.join(map(str, settings.depths))} on {dataset.name}, backend {BACKEND}")
        _warm_up(examples, settings, rate=rate, heeding=heeding)
        for depth in settings.depths:
            for net in NETS:
                row = _measure(net, depth, examples, settings, epochs=epochs, rate=rate, heeding=heeding)
                heeding.check()
                files.add(row)
                on_row(row)
    return Comparison(files.path, files.results)


class _Examples:
    """The data as both nets see it: vectors with mean 0 and deviation 1, and so are targets that are numbers."""

    def __init__(self, dataset: Dataset) -> None:
        self.classes = len(dataset.classes)
        mean, deviation = moments(dataset.x_train)
        self.x_train, self.x_test = (
            standardised(part, mean, deviation, flat=True) for part in (dataset.x_train, dataset.x_test)
        )
        self.y_train, self.y_test = dataset.y_train, dataset.y_test
        self.target_mean, self.target_scale = 0.0, 1.0
        if not self.classes:
            self.target_mean, self.target_scale = (float(value[0]) for value in moments(self.y_train[:, None]))
        rows = len(self.x_train)
        # Batch norm wants many rows, and a small set should give some steps a pass all the same.
        self.batch_size = next((size for size in (128, 64, 32, 16) if rows >= 8 * size), min(8, rows))

    def target(self, y: np.ndarray) -> np.ndarray:
        """Returns what the net is to answer."""
        return y if self.classes else ((y - self.target_mean) / self.target_scale).astype(np.float32)[:, None]

    def loss(self) -> keras.losses.Loss:
        """Returns the loss of what the net answers."""
        if self.classes:
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return keras.losses.MeanSquaredError()

    def score(self, net: keras.Model, x: Inputs, y: np.ndarray) -> dict[str, float]:
        """Returns how good the net is, in the target's units; batches of one shape, run without compiling."""
        batches = PaddedBatches(x, y, self.batch_size)
        answers = [net(batches[index][0], training=False) for index in range(len(batches))]
        rows = [np.asarray(keras.ops.convert_to_numpy(answer), np.float64) for answer in answers]
        outputs = np.concatenate(rows)[: len(x)] * self.target_scale + self.target_mean
        there = x.there if isinstance(x, LazyExamples) else slice(None)
        return score(outputs[there], y[there], classes=self.classes)


def _warm_up(examples: _Examples, settings: Settings, *, rate: float, heeding: Heeding) -> None:
    """Pays what a process pays once, as for pools of threads and modules, that it is not charged to the first net.

    A net of one block makes a step and is thrown away.
    """
    few = copy.copy(examples)
    few.x_train, few.y_train = few.x_train[: few.batch_size], few.y_train[: few.batch_size]
    few.x_test, few.y_test = few.x_test[: few.batch_size], few.y_test[: few.batch_size]
    _measure("residual", LAYERS_IN_A_BLOCK, few, settings, epochs=1, rate=rate, heeding=heeding)
    heeding.check()


def _measure(
    name: str, depth: int, examples: _Examples, settings: Settings, *, epochs: int, rate: float, heeding: Heeding
) -> Row:
    started = time.perf_counter()
    inputs = examples.x_train.shape[1]
    net: Any = NETS[name](
        inputs=inputs, outputs=examples.classes or 1, depth=depth, width=settings.width, seed=settings.seed
    )
    batches = Batches(
        examples.x_train,
        examples.target(examples.y_train),
        examples.batch_size,
        seed=settings.seed,
    )
    steps = epochs * batches.steps
    schedule: Any = keras.optimizers.schedules.CosineDecay(rate, steps)
    net.compile(keras.optimizers.SGD(schedule, momentum=0.9), examples.loss())
    rows = slice(0, examples.batch_size)
    batch = (examples.x_test[rows], examples.target(examples.y_test[rows]), examples.loss())
    gradient_start, start = gradient_norm(net, examples), by_depth(net, *batch, "start")
    net.fit(
        batches.since(), steps_per_epoch=batches.steps, epochs=epochs, shuffle=False, verbose=0, callbacks=[heeding]
    )
    on_test = examples.score(net, examples.x_test, examples.y_test)
    key = "test_accuracy" if examples.classes else "test_rmse"
    return {
        "net": name,
        "depth": depth,
        "parameters": net.count_params(),
        "steps": steps,
        "train_loss": examples.score(net, examples.x_train, examples.y_train)["test_loss"],
        key: on_test[key],
        "gradient_start": gradient_start,
        "gradient_end": gradient_norm(net, examples),
        **start,
        **by_depth(net, *batch, "end"),
        "seconds": round(time.perf_counter() - started, 2),
    }


def gradient_norm(net: keras.Model, examples: _Examples) -> float:
    """Returns the norm of the gradient of the first test batch's mean loss with respect to its inputs."""
    rows = slice(0, examples.batch_size)
    y, loss = examples.target(examples.y_test[rows]), examples.loss()
    gradient = input_gradient(lambda x: loss(y, net(x, training=True)), examples.x_test[rows])
    return float(np.linalg.norm(np.asarray(keras.ops.convert_to_numpy(gradient), np.float64)))
