"""A look into a stack while it is called: what each block receives and adds, and the gradient at each boundary."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keras_residual._errors import bad_argument

Measure = Callable[[Any, Any], Mapping[str, Any]]


class Observation(Mapping[str, Any]):
    """What was seen in the last call, by name; each tensor has the connections in order as its leading axis.

    Args:
        measure: What to keep of each connection.
        probe: Zeros to add behind each block, or None.
        block_mask: Which blocks act, or None.
    """

    def __init__(self, measure: Measure, probe: Any, block_mask: Any) -> None:
        self.seen: dict[str, Any] = {}
        self.measure = measure
        self.probe = probe
        self.block_mask = block_mask
        self.thread = threading.get_ident()
        """The thread that watches; calls of others are none of its calls."""

    def __getitem__(self, name: str) -> Any:
        """Returns what was measured under this name."""
        return self.seen[name]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self.seen)

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(self.seen)


def everything(received: Any, added: Any) -> dict[str, Any]:
    """Keeps what each connection receives and what its branch adds, whole."""
    return {"received": received, "added": added}


def observation_of(stack: Any) -> Observation | None:
    """Returns who watches the calls of a stack in this thread, or None.

    Args:
        stack: A `ResidualStack`.
    """
    observation = stack.observation
    return None if observation is None or observation.thread != threading.get_ident() else observation


@contextmanager
def observe(
    stack: Any, measure: Measure = everything, *, probe: Any = None, block_mask: Any = None
) -> Iterator[Observation]:
    """Watches one stack in the calls of this thread within the scope. A stack that nobody watches spends nothing on it.

    Each call fills the observation anew. Within a compiled function its tensors are part of the same program, so they
    must be used, or returned, there.

    Args:
        stack: A `ResidualStack`.
        measure: `(received, added) -> {name: tensor}` for each connection: what its branch's input is, and what its
            branch adds. As a rule both are kept; a function that returns their mean squares makes a stack of a thousand
            blocks cheap to watch.
        probe: Tensor of zeros of shape `(depth, *stream)`, of which the slice of each block is added to the stream
            behind it, so that the gradient with respect to the probe is the gradient at each boundary. A tuple of such
            tensors, one a row, for a topology of several streams.
        block_mask: Tensor `(depth,)` or `(batch, depth)`; a block where it is 0 hands on what it gets.

    Yields:
        An `Observation`, a mapping that holds what was measured once the stack was called.

    Raises:
        ValueError: If the stack is being watched already.

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
