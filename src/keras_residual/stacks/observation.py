"""Observing a stack during a call: what each connection receives and adds, and the gradient at each boundary."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keras_residual._errors import bad_argument

Measure = Callable[[Any, Any], Mapping[str, Any]]


class Observation(Mapping[str, Any]):
    """The measurements of the last call by name; the leading axis of each tensor is the connections in order.

    Args:
        measure: Returns what to keep of a connection.
        probe: Zeros to add after each block, or None.
        block_mask: Which blocks are active, or None; a block that the caller's own `block_mask` switches off stays off.
    """

    def __init__(self, measure: Measure, probe: Any, block_mask: Any) -> None:
        self.seen: dict[str, Any] = {}
        self.measure = measure
        self.probe = probe
        self.block_mask = block_mask
        self.thread = threading.get_ident()
        """The thread that observes; calls in other threads are not observed."""

    def __getitem__(self, name: str) -> Any:
        """Returns the measurement of this name."""
        return self.seen[name]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self.seen)

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(self.seen)


def keep_all(received: Any, added: Any) -> dict[str, Any]:
    """Keeps the whole tensors that a connection receives and that its branch adds."""
    return {"received": received, "added": added}


def observation_of(stack: Any) -> Observation | None:
    """Returns the observation of a stack in this thread, or None.

    Args:
        stack: A `ResidualStack`.
    """
    observation = stack.observation
    return None if observation is None or observation.thread != threading.get_ident() else observation


@contextmanager
def observe(
    stack: Any, measure: Measure = keep_all, *, probe: Any = None, block_mask: Any = None
) -> Iterator[Observation]:
    """Observes one stack in the calls of this thread within the scope. An unobserved stack pays nothing for it.

    Each call replaces the measurements. Within a compiled function they are tensors of the same program, so they must
    be used or returned there.

    Args:
        stack: A `ResidualStack`.
        measure: `(received, added) -> {name: tensor}`, called for each connection with the input of its branch and what
            the branch adds. The default keeps both tensors; a function that returns their mean squares makes a stack of
            a thousand blocks cheap to observe.
        probe: Tensor of zeros of shape `(depth, *stream)`; its slices are added to the stream after each block, so that
            the gradient with respect to the probe is the gradient at each boundary. For a topology of several streams,
            a tuple of such tensors, one per stream.
        block_mask: Tensor `(depth,)` or `(batch, depth)`; a block whose entry is 0 passes on its input, and so does one
            that the call's own `block_mask` switches off.

    Yields:
        An `Observation`, a mapping that holds the measurements once the stack was called.

    Raises:
        ValueError: If the stack is already being observed.

    Example:
        >>> stack = kr.ResidualStack(kr.Residual(keras.layers.Dense(4)), depth=3)
        >>> with observe(stack) as seen:
        ...     y = stack(np.ones((2, 4)))
        >>> seen["added"].shape
        (3, 2, 4)
    """
    if stack.observation is not None:
        raise bad_argument("observe", "stack", "a stack that nobody watches at the moment", stack.name)
    observation = Observation(measure, probe, block_mask)
    stack.observation = observation
    try:
        yield observation
    finally:
        stack.observation = None
