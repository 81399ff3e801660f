"""Arrays to batches of one shape: shuffled by seed and epoch for training, in order and padded for evaluation."""

from __future__ import annotations

import keras
import numpy as np

from keras_residual._errors import bad_argument
from keras_residual.data.augment import Augment


class Batches(keras.utils.PyDataset):
    """Serves examples in batches that all have `batch_size` rows, so that one shape is compiled.

    Training: each epoch has an order of its own, drawn from `(seed, epoch)`, and whole batches only: what is left over
    is left out of this epoch. `augment` draws from `(seed, epoch, batch)`, so a batch does not depend on which were
    asked for before. A batch is `(x, y)`. Epochs are counted as Keras reports
    their ends, which is once too often at the start of `fit`: with `FollowEpoch(batches)` as a callback the numbers are
    exact, which resuming with `initial_epoch=` needs.

    Evaluation: in order, the last batch filled up with copies of the last example. A batch is `(x, y, weight)`, with
    weight 0 for copies and 1 otherwise, so the weights sum to the number of examples. Metrics are exact where they are
    compiled as `weighted_metrics=`. The `loss` that Keras reports is too small by `examples / (batches * batch_size)`,
    since it divides by rows and not by weights: read the loss from a weighted metric, or divide by that factor.

    Args:
        x: Array of shape `(examples, ...)`.
        y: Array of shape `(examples, ...)`.
        batch_size: Rows in a batch, 1 or more; for training at most the number of examples.
        training: Which of the two forms.
        rows: Places of the examples that are served, in their order; by default all. They are not copied.
        seed: Whole number, 0 or more.
        augment: Function of `(x, generator)` that returns a changed batch; training only.
        epoch: The epoch to serve first, 0 or more.

    Raises:
        ValueError: If an argument is out of its range or the lengths differ.

    Example:
        >>> batches = Batches(np.arange(5.0), np.arange(5), 2, training=False)
        >>> len(batches), batches[2][2].tolist()
        (3, [1.0, 0.0])
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        *,
        training: bool,
        rows: np.ndarray | None = None,
        seed: int = 0,
        augment: Augment | None = None,
        epoch: int = 0,
    ):
        super().__init__()
        self._rows = np.arange(len(x)) if rows is None else rows
        if len(x) != len(y) or len(self._rows) == 0:
            raise ValueError(f"Batches: x and y must have equally many examples, 1 or more, not {len(x)} and {len(y)}.")
        if batch_size < 1:
            raise bad_argument("Batches", "batch_size", "1 or more", batch_size)
        if training and batch_size > len(self._rows):
            raise bad_argument(
                "Batches", "batch_size", f"at most {len(self._rows)}, the number of training examples", batch_size,
                "A training epoch has whole batches only.",
            )  # fmt: skip
        if augment is not None and not training:
            raise bad_argument("Batches", "augment", "left out for evaluation", augment)
        self._x, self._y = x, y
        self._batch_size = batch_size
        self._training = training
        self._seed = seed
        self._augment = augment
        self.epoch = epoch

    @property
    def epoch(self) -> int:
        """The epoch that is served."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        if self._training:
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._rows)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self)

    def __len__(self) -> int:
        count = len(self._rows)
        return count // self._batch_size if self._training else -(-count // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        places = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        if self._training:
            rows = self._order[places]
            x = self._x[rows]
            if self._augment is not None:
                x = self._augment(x, np.random.default_rng((self._seed, self._epoch, index)))
            return x, self._y[rows]
        weight = (places < len(self._rows)).astype(np.float32)
        rows = self._rows[np.minimum(places, len(self._rows) - 1)]
        return self._x[rows], self._y[rows], weight

    def on_epoch_end(self) -> None:
        """Goes on to the order of the next epoch."""
        if self._training:
            self.epoch += 1


class FollowEpoch(keras.callbacks.Callback):
    """Tells `Batches` which epoch `fit` is in, so that an epoch has the same order also after `initial_epoch=`.

    The batches cannot know: Keras looks at a first batch and reports the end of an epoch before the first one begins.

    Args:
        batches: The training batches that `fit` gets.
    """

    def __init__(self, batches: Batches):
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the epoch before its first batch is asked for."""
        self._batches.epoch = epoch
