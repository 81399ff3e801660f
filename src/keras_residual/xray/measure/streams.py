"""What is measured of the streams of a stack while it is called: how alike they are, and what carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras import ops

from keras_residual.stacks.topologies.streams import MultiStream, MultiStreamLink
from keras_residual.xray.find.replaced import instead_of
from keras_residual.xray.measure.numbers import Numbers
from keras_residual.xray.quantities import measured_of


class StreamNumbers:
    """What was seen of the streams of one call. Nothing for a stack whose streams are not equal, or of one stream.

    Args:
        stack: The stack.
    """

    def __init__(self, stack: Any) -> None:
        self._equal = isinstance(stack.topology, MultiStream)
        self._connections = stack.depth * stack.per_block
        self._here: Numbers = {}
        self._like: dict[str, Any] = {}
        self._out: Numbers = {}

    def drained(self) -> Numbers:
        """Returns what was seen in front of the connection that is computed now.

        Zeros in its place where a block is computed once more for the gradient: then nobody watches, and no gradient
        goes this way, but a block has to give off as much as before.
        """
        here, self._here = self._here, {}
        if here:
            self._like = {
                name: (tuple(value.shape), keras.backend.standardize_dtype(value.dtype)) for name, value in here.items()
            }
            return here
        return {name: ops.zeros(shape, dtype) for name, (shape, dtype) in self._like.items()}

    def finished(self, seen: Numbers) -> Numbers:
        """Returns what was seen in the whole stack, with what its matrices make together in the place of these."""
        if not self._equal:
            return seen
        seen = {**seen, **self._out}
        # What mixes nothing carries its streams by the identity.
        transports: Any = seen.pop("transport", None)
        if transports is None:
            transports = ops.ones((self._connections, 1, 1), "float32")
        # A loop of TensorFlow's does not say how often it ran.
        transports = ops.reshape(transports, (self._connections, *transports.shape[1:]))
        return {**seen, **{quantity.key: quantity.measure(transports) for quantity in measured_of("transports")}}

    def weighing(self, link: MultiStreamLink) -> Callable[[Any], Any]:
        """Returns what wraps the method of a link that weighs the streams."""

        def wrapped(weigh: Any) -> Any:
            def watched(x: Any) -> Any:
                coefficients = weigh(x)
                self._here = _of_link(link, ops.stop_gradient(x), coefficients.transport)
                return coefficients

            return watched

        return wrapped

    def ending(self, end: Any) -> Any:
        """Returns what stands for the method of a topology that makes the output of the streams."""

        def watched(rows: Any) -> Any:
            if len(rows) > 1:
                last = ops.stop_gradient(ops.stack(rows, axis=-2))
                self._out = {f"out_{quantity.key}": quantity.measure(last) for quantity in measured_of("streams")}
            return end(rows)

        return watched


def _of_link(link: MultiStreamLink, x: Any, transport: Any) -> Numbers:
    found: Numbers = {}
    if link.streams > 1:
        shape: Any = ops.shape(x)
        # The parts of a stream, of which each is weighed by itself, side by side again.
        whole = ops.reshape(x, (*shape[:-2], link.streams, link.fractions * x.shape[-1]))
        found |= {f"in_{quantity.key}": quantity.measure(whole) for quantity in measured_of("streams")}
    known = transport is not None
    # What is not mixed is carried by the identity.
    transport = ops.stop_gradient(ops.cast(transport, "float32")) if known else ops.ones((1, 1), "float32")
    found |= {quantity.key: quantity.measure(transport) for quantity in measured_of("transport")}
    return {**found, "transport": transport} if known else found


@contextmanager
def watching_streams(stack: Any) -> Iterator[StreamNumbers]:
    """Within the scope, what a call of the stack makes of its streams is seen.

    Args:
        stack: A `ResidualStack`.
    """
    numbers = StreamNumbers(stack)
    with ExitStack() as patched:
        if isinstance(stack.topology, MultiStream):
            for cell in stack._blocks.cells:
                for link in cell.links:
                    patched.enter_context(instead_of(link, "weigh", numbers.weighing(link)))
            patched.enter_context(instead_of(stack.topology, "end", numbers.ending))
        yield numbers


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
