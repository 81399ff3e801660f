"""Examples that stay where they are until they are read: by their places, in threads, a bounded number ahead."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from keras_residual._errors import bad_data, printable

MEMORY_BUDGET = 2**29
"""Bytes up to which the inputs of a set stay in memory, where nobody says otherwise."""
MOST_WORKERS = 16
_AHEAD = 2
"""Batches that are made while one is learned from: more of them would take memory and gain nothing."""
_CHUNK = 2**22
_MOST_NEIGHBOURS = 1000

Item = TypeVar("Item")
Result = TypeVar("Result")
Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class LazyExamples:
    """Inputs of examples that are read when they are asked for, with as much of an array's interface as training needs.

    `len(x)`, `x.shape`, `x.dtype`, `x.ndim` and `x[rows]` are those of an array of all examples, so whatever takes rows
    of an array takes rows of these.

    Args:
        read: Function of places, shape `(rows,)`, that returns the inputs and whether each could be read. Safe to be
            called from several threads, and the same for the same places whoever calls.
        shape: Shape of one example.
        dtype: Type of its numbers.
        places: Places of the examples that these are, in their order.
        digests: A digest of each, shape `(examples,)`, uint64, as `Fingerprint` makes it.
        gone: Places of those that could not be read when they were asked for, which all that stem from one share.
    """

    def __init__(
        self,
        read: Read,
        shape: tuple[int, ...],
        dtype: Any,
        places: np.ndarray,
        digests: np.ndarray | None = None,
        gone: set[int] | None = None,
    ) -> None:
        self._read, self._places = read, places
        self._gone: set[int] = set() if gone is None else gone
        self._example, self.dtype = tuple(shape), np.dtype(dtype)
        self.digests = digests

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of examples, then the shape of one."""
        return (len(self), *self._example)

    @property
    def ndim(self) -> int:
        """Axes of all examples together."""
        return len(self.shape)

    @property
    def there(self) -> np.ndarray:
        """Which of the examples could be read whenever they were asked for, shape `(examples,)`, booleans."""
        return ~np.isin(self._places, list(self._gone)) if self._gone else np.ones(len(self), bool)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, (int, np.integer)):
            return self.served(np.array([rows]))[0][0]
        return self.served(np.arange(len(self))[rows])[0]

    def served(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the inputs of some rows, and which rows they are: one that cannot be read is replaced by the next.

        So a batch stays a function of its step as long as the files are the same, and a file that is gone costs nothing
        but itself.

        Raises:
            ValueError: If there is nothing else to take.
        """
        rows = np.array(rows)
        inputs, readable = self._read(self._places[rows])
        for _ in range(1 + min(len(self), _MOST_NEIGHBOURS)):
            missing = np.flatnonzero(~readable)
            if not len(missing):
                return inputs, rows
            self._gone.update(self._places[rows[missing]].tolist())
            rows[missing] = (rows[missing] + 1) % len(self)
            inputs[missing], readable[missing] = self._read(self._places[rows[missing]])
        raise bad_data("Data", "none of the examples can be read any more", "See whether the files are still there.")

    def subset(self, rows: np.ndarray | slice) -> LazyExamples:
        """Returns some of the examples; nothing is read."""
        digests = None if self.digests is None else self.digests[rows]
        return LazyExamples(self._read, self._example, self.dtype, self._places[rows], digests, self._gone)

    def map(
        self, function: Callable[[np.ndarray], np.ndarray], dtype: Any, shape: tuple[int, ...] | None = None
    ) -> LazyExamples:
        """Returns the examples with a function applied to what is read.

        Args:
            function: From arrays of examples to arrays of as many.
            dtype: Type of what it returns.
            shape: Shape of one example of that; by default that of what is read.
        """

        def read(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            inputs, readable = self._read(places)
            return function(inputs), readable

        shape = self._example if shape is None else shape
        return LazyExamples(read, shape, dtype, self._places, self.digests, self._gone)


Inputs = np.ndarray | LazyExamples


def places_of(count: int) -> np.ndarray:
    """Returns the places of so many examples, in as few bytes as they take."""
    return np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)


def subset(x: Inputs, rows: np.ndarray | slice) -> Inputs:
    """Returns some examples, in the order of `rows`, which may be places or booleans."""
    return x.subset(rows) if isinstance(x, LazyExamples) else x[rows]


def joined(first: Inputs, second: Inputs) -> Inputs:
    """Returns all of the first examples, then all of the second ones; nothing is read."""
    if not isinstance(first, LazyExamples) and not isinstance(second, LazyExamples):
        return np.concatenate([first, second])
    count = len(first)

    def read(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result, readable = np.empty((len(places), *first.shape[1:]), first.dtype), np.ones(len(places), bool)
        for x, rows, start in ((first, places < count, 0), (second, places >= count, count)):
            inner = places[rows] - start
            result[rows], found = served(x, inner)
            readable[rows] = found == inner
        return result, readable

    digests = [x.digests if isinstance(x, LazyExamples) else digests_of(x) for x in (first, second)]
    both = None if any(each is None for each in digests) else np.concatenate(digests)  # pyright: ignore
    return LazyExamples(read, first.shape[1:], first.dtype, np.arange(count + len(second)), both)


def served(x: Inputs, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs in memory and which rows they are: those that were asked for, but where a file is gone."""
    return x.served(rows) if isinstance(x, LazyExamples) else (x[rows], rows)


def parts(x: Inputs, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yields rows of `x` a few at a time, so that no second copy of all of them is made; lazy ones are read ahead."""
    rows = np.arange(len(x)) if rows is None else rows
    step = max(1, _CHUNK // max(1, math.prod(x.shape[1:])))
    pieces = (rows[start : start + step] for start in range(0, len(rows), step))
    return ahead(x.__getitem__, pieces) if isinstance(x, LazyExamples) else (x[piece] for piece in pieces)


def digests_of(x: np.ndarray) -> np.ndarray:
    """Returns a digest of each example, shape `(examples,)`, uint64; -0.0 is 0.0."""
    if x.dtype.kind == "f":
        x = x + 0.0
    return np.frombuffer(b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in x), np.uint64)


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields the function of each item in their order, of which a few are under way in threads before they are asked.

    How many there are changes nothing but the time.
    """
    pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="ahead")
    coming: deque[Any] = deque()
    items = iter(items)
    try:
        for item in itertools.islice(items, _AHEAD):
            coming.append(pool.submit(function, item))
        while coming:
            result = coming.popleft().result()
            for item in itertools.islice(items, 1):
                coming.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def workers() -> int:
    """Returns how many threads read: those that were set, or one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return _set_workers or min(MOST_WORKERS, cores)


def set_workers(count: int | None) -> None:
    """Sets how many threads read from now on; None for one a core."""
    global _set_workers
    _set_workers = count


_set_workers: int | None = None


@lru_cache(maxsize=1)
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Returns the threads that all readers of a process share; a process that was forked has none of its parent's."""
    return ThreadPoolExecutor(count, thread_name_prefix="reader")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Returns the function of each item, called in the threads that all readers share, or here where there is one."""
    items = list(items)
    if workers() == 1 or len(items) == 1:
        return [function(item) for item in items]
    return list(_pool(workers(), os.getpid()).map(function, items))


class Skipped:
    """Examples that cannot be read: counted, told to whoever listens, and refused only where there are too many.

    Args:
        most: How many are passed over.
        owner: How messages call the data.
    """

    def __init__(self, most: int, owner: str) -> None:
        self.most, self._owner = most, owner
        self.reasons: dict[str, str] = {}
        self.ignored: dict[str, str] = {}
        self._listener: Callable[[str], None] | None = None
        self._lock = threading.Lock()

    def add(self, name: str, reason: str) -> None:
        """Counts an example, once, and names it to whoever listens."""
        with self._lock:
            if name in self.reasons or name in self.ignored:
                return
            self.reasons[name] = reason
            if self._listener is not None:
                self._listener(self._line(name))

    def ignore(self, name: str) -> None:
        """Takes an example for something that never was meant to be one: it is said, and does not count."""
        self.ignored[name] = self.reasons.pop(name)

    def tell(self, listener: Callable[[str], None]) -> None:
        """Calls a function with a line for each example so far, and for each that is to come."""
        with self._lock:
            self._listener = listener
            for name in (*self.ignored, *self.reasons):
                listener(self._line(name))

    def named(self, name: str) -> str:
        """Returns the name of an example and what is wrong with it."""
        return f"{printable(name)} ({printable(self.reasons.get(name) or self.ignored[name])})"

    def _line(self, name: str) -> str:
        return f"{'Skipped' if name in self.reasons else 'Ignored'}: {self.named(name)}"

    def check(self) -> None:
        """Raises a ValueError, which names some, if there are more than are passed over."""
        count = len(self.reasons)
        if count <= self.most:
            return
        some = [self.named(name) for name in itertools.islice(self.reasons, 5)]
        few = "1 file is not a picture" if count == 1 else f"{count} files are not pictures"
        raise bad_data(
            self._owner, f"{few} that can be read, and {self.most} are passed over: {', '.join(some)}"
            f"{', …' if count > len(some) else ''}",
            f"Remove or replace {'it' if count == 1 else 'them'}, or raise the limit with --set data.most_broken="
            f"{count}.",
        )  # fmt: skip
