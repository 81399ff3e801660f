"""The gradient behind each block of a stack whose rows grow with depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from keras import ops

from keras_residual.xray.finding.patched import instead_of


class GrowingRows:
    """A probe for each block of such a stack, which what the block writes is increased by.

    Each block of these topologies writes to one row, a new one or the stream, whose gradient takes in all that the rest
    of the stack makes of it.

    Args:
        probe: Zeros of shape `(depth, *stream)`, or None for a stack that is left alone.
    """

    def __init__(self, probe: Any) -> None:
        self.probe = probe
        self._reached: set[int] = set()

    def all_reached(self, depth: int) -> bool:
        """Returns whether each block has written its probe; a topology may have ways of its own."""
        return self.probe is None or len(self._reached) == depth

    def writing(self, index: int) -> Callable[[Any], Any]:
        """Returns what wraps the method of a block's last link that writes."""

        def wrapped(write: Any) -> Any:
            def watched(added: Any, coefficients: Any) -> Any:
                rows = list(write(added, coefficients))
                place = next((i for i, row in enumerate(rows) if row is not None), None)
                if place is not None and tuple(rows[place].shape) == tuple(self.probe.shape[1:]):
                    rows[place] = rows[place] + ops.cast(self.probe[index], rows[place].dtype)
                    self._reached.add(index)
                return tuple(rows)

            return watched

        return wrapped


@contextmanager
def probing_rows(stack: Any, probe: Any) -> Iterator[GrowingRows]:
    """Within the scope, each block of a stack that is not scanned writes its slice of the probe too.

    Args:
        stack: A `ResidualStack`.
        probe: As in `GrowingRows`.
    """
    rows = GrowingRows(probe)
    with ExitStack() as patched:
        if probe is not None:
            for index, cell in enumerate(stack._blocks.cells):
                patched.enter_context(instead_of(cell.links[-1], "write", rows.writing(index)))
        yield rows
