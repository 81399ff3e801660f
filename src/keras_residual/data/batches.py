"""Examples to batches of one shape: training batches that a seed and a step decide, and padded ones in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import keras
import numpy as np

from keras_residual._arguments import whole_number
from keras_residual._errors import bad_argument
from keras_residual.data.augment import Augment
from keras_residual.data.lazy import Inputs, LazyExamples, ahead, served


class Batches:
    """Training batches of `batch_size` rows, each a pure function of seed, epoch and step, whatever was asked before.

    An epoch is a permutation of the examples drawn from `(seed, epoch)`, cut into whole batches: what is left over is
    left out of this epoch. `augment` draws from `(seed, epoch, index of the example)`. So the position of a training is
    the number of steps done, and nothing else of the data has to be saved.

    Args:
        x: Array of shape `(examples, ...)`, or `LazyExamples`, of which some batches are read ahead in threads.
        y: Array of shape `(examples, ...)`.
        batch_size: Rows in a batch, from 1 to the number of examples.
        rows: Places of the examples that are served; by default all. They are not copied.
        seed: Whole number, 0 or more.
        augment: Function of `(x, y, seed, epoch, indices)` that returns a changed `(x, y)`.
        repeats: Number of times that an example is served in an epoch, in a batch or two that follow one another, each
            time with an index of its own, so that it is changed in as many ways. An epoch has as many fewer examples.
            Hoffer et al., Augment your batch, 2019. https://arxiv.org/abs/1901.09335

    Raises:
        ValueError: If an argument is out of its range or the lengths differ.

    Example:
        >>> batches = Batches(np.arange(5.0), np.arange(5), 2)
        >>> batches.steps, next(batches.since(7))[1].tolist() == batches.batch(7)[1].tolist()
        (2, True)
    """

    def __init__(
        self,
        x: Inputs,
        y: np.ndarray,
        batch_size: int,
        *,
        rows: np.ndarray | None = None,
        seed: int = 0,
        augment: Augment | None = None,
        repeats: int = 1,
    ):
        self._rows = _checked_rows("Batches", x, y, batch_size, rows)
        if batch_size > len(self._rows):
            raise bad_argument(
                "Batches", "batch_size", f"at most {len(self._rows)}, the number of training examples", batch_size,
                "A training epoch has whole batches only.",
            )  # fmt: skip
        self._x, self._y = x, y
        self._batch_size = batch_size
        self._seed = seed
        self._augment = augment
        self._repeats = whole_number("Batches", "repeats", repeats)
        self._drawn = (-1, self._rows)  # the last epoch that was asked for, and its order

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._rows) // self._batch_size

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns `(x, y)` of a step, which is counted from 0 over all epochs."""
        epoch, index = divmod(step, self.steps)
        drawn, order = self._drawn
        if drawn != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._rows)
            self._drawn = (epoch, order)
        copies, places = self._places(index)
        rows = order[places]
        x, rows = served(self._x, rows)
        if self._augment is None:
            return x, self._y[rows]
        return self._augment(x, self._y[rows], self._seed, epoch, rows + copies * len(self._x))

    def _places(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns which copy of which example of the epoch's order each row of a batch is."""
        places = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        # Copies of an example apart, since Mixup and CutMix put neighbours together.
        places = places[np.argsort(places % self._repeats, kind="stable")]
        return places % self._repeats, places // self._repeats

    def since(self, step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the batches of a step and of all that follow it, without end.

        For `fit`, with `steps_per_epoch=`. Keras looks ahead, so each call of `fit` needs an iterator of its own.
        """
        steps = itertools.count(step)
        return ahead(self.batch, steps) if isinstance(self._x, LazyExamples) else (self.batch(step) for step in steps)


class PaddedBatches(keras.utils.PyDataset):
    """Batches for evaluation: in order, all of one shape, the last filled up with copies of the last example.

    A batch is `(x, y, weight)`, with weight 0 for copies and 1 otherwise, so the weights sum to the number of examples;
    one whose file is gone has weight 0 too.
    Metrics are exact where they are compiled as `weighted_metrics=`. The `loss` that Keras reports is too small by
    `examples / (batches * batch_size)`, since it divides by rows and not by weights: read the loss from a weighted
    metric, or divide by that factor.

    Args:
        x: Array of shape `(examples, ...)`, or `LazyExamples`, of which some batches are read ahead in threads.
        y: Array of shape `(examples, ...)`.
        batch_size: Rows in a batch, 1 or more.
        rows: Places of the examples that are served, in their order; by default all. They are not copied.

    Raises:
        ValueError: If an argument is out of its range or the lengths differ.

    Example:
        >>> batches = PaddedBatches(np.arange(5.0), np.arange(5), 2)
        >>> len(batches), batches[2][2].tolist()
        (3, [1.0, 0.0])
    """

    def __init__(self, x: Inputs, y: np.ndarray, batch_size: int, *, rows: np.ndarray | None = None):
        super().__init__()
        self._rows = _checked_rows("PaddedBatches", x, y, batch_size, rows)
        self._x, self._y = x, y
        self._batch_size = batch_size

    @property
    def num_batches(self) -> int:
        """Batches in all."""
        return len(self)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        weight = (places < len(self._rows)).astype(np.float32)
        rows = self._rows[np.minimum(places, len(self._rows) - 1)]
        x, found = served(self._x, rows)
        return x, self._y[found], weight * (found == rows)


def _checked_rows(owner: str, x: Inputs, y: np.ndarray, batch_size: int, rows: np.ndarray | None) -> np.ndarray:
    rows = np.arange(len(x)) if rows is None else rows
    if len(x) != len(y) or len(rows) == 0:
        raise ValueError(f"{owner}: x and y must have equally many examples, 1 or more, not {len(x)} and {len(y)}.")
    if batch_size < 1:
        raise bad_argument(owner, "batch_size", "1 or more", batch_size)
    return rows
