"""Which examples a run has used, known by what they hold: names, order and format of the files do not matter."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import bad_data, shown
from keras_residual.data.dataset import Dataset
from keras_residual.data.lazy import Inputs, LazyExamples, digests_of, parts, subset
from keras_residual.data.npz import read_arrays
from keras_residual.data.split import places_in_groups

_FORMS = {"digests": ("<u8", 1), "answers": ("<f8", 1), "chose": ("|b1", 1), "run": ("<u8", 0)}
"""Types and axes of the arrays of a file; earlier ones have no `chose` and no `run`."""
_AT_A_TIME = 2**20
_WAY_OUT = "Remove it, or train again."


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A digest of each of some examples, as the model sees it, and its answer.

    Args:
        digests: Shape `(examples,)`, uint64.
        answers: Class indices or numbers, shape `(examples,)`, float64.
        chose: Whether the best epoch was chosen by an example and nothing was learned from it, shape `(examples,)`,
            booleans; None where that is not known.
        run: Digest of what the examples were chosen and read by; None where that is not known.
    """

    digests: np.ndarray
    answers: np.ndarray
    chose: np.ndarray | None = None
    run: int | None = None

    @classmethod
    def of(cls, x: Inputs, y: np.ndarray, chose: np.ndarray | None = None, *, run: int | None = None) -> Fingerprint:
        """Returns the fingerprint of examples as a `Dataset` holds them.

        Args:
            x: Inputs, as the model sees them; lazy ones have their digests, or are read once.
            y: Class indices or numbers.
            chose: Places of those by which the best epoch is chosen; None where that is not known.
            run: As `Fingerprint` takes it.
        """
        among = None if chose is None else np.isin(np.arange(len(y)), chose)
        digests = x.digests if isinstance(x, LazyExamples) else None
        if digests is None:
            digests = np.concatenate([np.zeros(0, np.uint64), *map(digests_of, parts(x))])
        return cls(digests, y.astype(np.float64) + 0.0, among, run)

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Reads what `to_bytes` made.

        Raises:
            ValueError: If it is something else.
        """
        owner = f"Fingerprint {path}"
        arrays = read_arrays(path, _FORMS, owner=owner, way_out=_WAY_OUT)
        optional = {name: _FORMS[name] for name in ("chose", "run")}
        forms = optional | {name: (array.dtype.str, array.ndim) for name, array in arrays.items()}
        if forms != _FORMS or len({len(array) for array in arrays.values() if array.ndim}) != 1:
            raise bad_data(owner, "the file does not hold what a run writes into it", _WAY_OUT)
        run = arrays.pop("run", None)
        return cls(**arrays, run=None if run is None else int(run))

    def to_bytes(self) -> bytes:
        """Returns the content of a file."""
        file = io.BytesIO()
        known: dict[str, Any] = {} if self.chose is None else {"chose": self.chose}
        if self.run is not None:
            known["run"] = np.array(self.run, "<u8")
        np.savez(file, digests=self.digests.astype("<u8"), answers=self.answers.astype("<f8"), **known)
        return file.getvalue()

    def find(self, other: Fingerprint) -> tuple[np.ndarray, np.ndarray]:
        """Returns which of other examples are these, and which merely hold the same as one of these.

        Pictures that hold the same are one picture, but rows of a table may be equal by chance. So where an example is
        here `k` times and there as often at least, `k` of those there are taken for these, such with the same answer
        first. Where it is there less often, it comes from somewhere else, and holds the same.

        Args:
            other: The examples that are looked at.

        Returns:
            Two arrays of booleans, shape `(other examples,)`, never both true.
        """
        here, there = _counts(self.digests, other.digests), _counts(other.digests, other.digests)
        # Those with the same answer come first, as many as there are here.
        one, two = _mixed(self), _mixed(other)
        same_answer = places_in_groups(two, np.zeros(len(two))) < _counts(one, two)
        these = (places_in_groups(other.digests, ~same_answer) < here) & (there >= here)
        return these, (here > 0) & ~these

    def found_in(self, other: Fingerprint) -> np.ndarray:
        """Returns which of these are among others, shape `(examples,)`: as many as `find` takes for these."""
        return _counts(other.digests, self.digests) >= _counts(self.digests, self.digests)


def apart(dataset: Dataset) -> Dataset:
    """Returns the data without the test examples that are training examples too, and with a note that says how many.

    Only a test part that the source itself has can hold training examples: one that is drawn by seed can hold equal
    ones at most.

    Raises:
        ValueError: If no test example is left.
    """
    return without(dataset, Fingerprint.of(dataset.x_train, dataset.y_train), drawn=not dataset.own_test)


def without(dataset: Dataset, trained: Fingerprint, *, drawn: bool = False) -> Dataset:
    """Returns the data without the test examples that a run has used, and with a note that says for what and how many.

    Args:
        dataset: The data.
        trained: What the model was trained on, and what its best epoch was chosen by.
        drawn: Whether the test examples were drawn from those that are not in `trained`, so that they can be equal to
            some of these and not the same.

    Raises:
        ValueError: If no test example is left.
    """
    test = Fingerprint.of(dataset.x_test, dataset.y_test)
    these, equal = trained.find(test)
    if drawn:
        these, equal = np.zeros_like(these), these | equal
    count, notes = len(these), dataset.notes
    if these.all():
        raise bad_data(
            f"Data {shown(dataset.name)}", f"the model was trained on all {count} examples or its best epoch was "
            "chosen by them, so that none is left to test with", "Name other data.",
        )  # fmt: skip
    if these.any():
        notes += (f"Left out of the test: {these.sum()} of {count} examples{_used_for(trained, test)}.",)
        dataset = replace(dataset, x_test=subset(dataset.x_test, ~these), y_test=dataset.y_test[~these])
    if equal.any():
        notes += (
            f"Counted in the test, though equal to training examples in all that the model sees: {equal.sum()} of "
            f"{len(dataset.y_test)} examples.",
        )  # fmt: skip
    return replace(dataset, notes=notes)


def _used_for(trained: Fingerprint, test: Fingerprint) -> str:
    if trained.chose is None:
        return ", which the training part has too"
    of_these = trained.chose[trained.found_in(test)]
    chose = int(of_these.sum())
    return f"; the model was trained on {len(of_these) - chose} of them, and {chose} chose its best epoch"


def _counts(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns how often each of the values `of` is among `values`, in memory that grows with the former alone."""
    distinct = np.unique(of)
    counts = np.zeros(len(distinct), int)
    if not len(distinct):
        return counts
    for start in range(0, len(values), _AT_A_TIME):
        some = values[start : start + _AT_A_TIME]
        place = np.minimum(np.searchsorted(distinct, some), len(distinct) - 1)
        counts += np.bincount(place[distinct[place] == some], minlength=len(distinct))
    return counts[np.searchsorted(distinct, of)]


def _mixed(print_: Fingerprint) -> np.ndarray:
    """Returns a digest of example and answer."""
    with np.errstate(over="ignore"):
        return print_.digests + print_.answers.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
