"""One block of a stack: its connections, their links to the streams of the topology, and what they get from depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from keras_residual._arguments import share
from keras_residual._errors import bad_argument
from keras_residual._keras import set_keras_mask
from keras_residual._types import Shape
from keras_residual.residual import chain, direct
from keras_residual.residual.configured import Untracked
from keras_residual.residual.context import DepthContext
from keras_residual.residual.residual import Residual
from keras_residual.residual.shapes import agree
from keras_residual.stacks.depth_rules import DepthPlan
from keras_residual.stacks.topologies import Link, Rows

Watch = Callable[[Any, Any], None]
"""Called with what a connection received and what its branch added."""


class Cell(keras.layers.Layer):
    """A block of a stack, from the rows before it to the rows after it. Made by `ResidualStack`, never by itself.

    Args:
        connections: The layers of the block in order; `Residual`s if there are links.
        links: The link of each connection; empty if the connections are called as they are.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(self, connections: Sequence[keras.Layer], links: Sequence[Link], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.connections = list(connections)
        self.links = list(links)
        self.supports_masking = True
        # The rows may be of a higher precision than the blocks compute in.
        self._convert_input_args = False

    def get_config(self) -> dict[str, Any]:
        """Returns its own flags only: the layers in it are in the configuration of the stack."""
        return super().get_config()

    def build(self, input_shape: Shape, argument_shapes: chain.Arguments | None = None) -> None:
        """Builds connections and links for the shape of a stream and the shapes of call arguments."""
        stream_shape = input_shape
        for connection in self.connections:
            shape = chain.build(
                "ResidualStack", "block", [connection], stream_shape, self.compute_dtype, argument_shapes
            )
            if not agree(shape, stream_shape):
                raise ValueError(
                    f"ResidualStack: a block must keep the shape of its input, but {connection.name!r} maps "
                    f"{stream_shape} to {shape}. Change the shape before the stack."
                )
        for link in self.links:
            if not link.built:
                link.build(stream_shape)

    def call(
        self,
        rows: Rows,
        contexts: Sequence[DepthContext] = (),
        training: bool | None = None,
        sequence_mask: Any = None,
        watch: Watch | None = None,
        active: Any = None,
        held: Untracked | None = None,
    ) -> Rows:
        """Returns the rows after the block.

        Its branches add nothing where `active`, one boolean or one for each sample, is False.
        """
        # Held, since Keras takes no structure in which there are tensors and other values.
        arguments = {} if held is None else held.value
        before = rows
        for index, connection in enumerate(self.connections):
            context = contexts[index]
            if self.links:
                branch = self.branch(index, context, training, sequence_mask, watch, active, arguments)
                rows = self.links[index].connect(rows, branch, context, training)
            else:
                rows = (self._whole(connection, rows[0], context, training, sequence_mask, watch, arguments),)
        if active is not None and not self.links:
            # The whole block rather than its branches, since a norm may follow the sum.
            return tuple(_where(active, after, was) for after, was in zip(rows, before, strict=True))
        return rows

    def apply(
        self, rows: Rows, contexts: Sequence[DepthContext], training: bool | None, mask: Any, arguments: chain.Arguments
    ) -> Rows:
        """Returns the rows after the block, which is called as a layer, or directly if that makes no difference."""
        plain = len(rows) == 1 and direct.is_plain(self, rows[0], training)
        call = self.call if plain else self
        return call(rows, contexts=contexts, training=training, sequence_mask=mask, held=Untracked(arguments))

    def gains(self, plan: DepthPlan) -> dict[int, np.ndarray]:
        """Returns the factors on initial values that a depth rule asks for, by the `id` of the variable."""
        found = [pair for connection in self.connections for pair in plan.gains(cast(Residual, connection))]
        return {id(variable): factors for variable, factors in found}

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns None: every block gets the mask of the stack, whatever its rows carry."""
        return None

    def branch(
        self,
        index: int,
        context: DepthContext,
        training: bool | None,
        mask: Any,
        watch: Watch | None = None,
        active: Any = None,
        arguments: chain.Arguments | None = None,
    ) -> Callable[[Any], Any]:
        """Returns the branch of a connection as a function of the tensor it receives."""
        connection = self.connections[index]

        def apply(received: Any) -> Any:
            received = _attach_mask(ops.cast(received, connection.compute_dtype), mask)
            added = connection.branch_output(received, training, mask, context, **(arguments or {}))
            if watch is not None:
                watch(received, added)
            return added if active is None else _where(active, added, ops.zeros_like(added))

        return apply

    def _whole(
        self,
        connection: keras.Layer,
        x: Any,
        context: DepthContext,
        training: bool | None,
        mask: Any,
        watch: Watch | None,
        arguments: chain.Arguments,
    ) -> Any:
        x = _attach_mask(x, mask)
        if not isinstance(connection, Residual):
            y = chain.apply(connection, x, training, mask, arguments)
            if watch is not None:
                watch(x, y - x)
            return y
        if watch is None and mask is None and not arguments and direct.is_plain(connection, x, training):
            return connection.call(x, training=training, depth_context=context)
        if watch is None:
            own = chain.arguments_for(connection, arguments)
            return connection(x, training=training, mask=mask, depth_context=context, **own)

        inputs = connection.preactivated(ops.cast(x, connection.compute_dtype), training, mask, **arguments)
        branch = connection.branch_output(inputs, training, mask, context, **arguments)
        watch(x, branch)
        return connection.join(inputs, branch, training, mask, context, **arguments)


def _attach_mask(x: Any, mask: Any) -> Any:
    """Attaches the mask where layers of Keras look for it, since tensors carried by a loop lose it."""
    if mask is not None:
        set_keras_mask(x, mask)
    return x


def _where(active: Any, this: Any, other: Any) -> Any:
    ones = (1,) * (len(this.shape) - len(active.shape))
    return ops.where(ops.reshape(active, (*cast(Any, ops.shape(active)), *ones)), this, other)


_SCALES = ("branch_scale", "skip_scale", "branch_input_scale")


class Contexts:
    """The depth-dependent values of all connections of a stack: drop path rates and scales.

    Args:
        rates: Drop path rate of each block; all 0 for none.
        plan: The plan of the depth rule, or None.
        per_block: Number of connections in a block.
    """

    def __init__(self, rates: Sequence[float], plan: DepthPlan | None, per_block: int) -> None:
        self.per_block = per_block
        self.values: dict[str, np.ndarray] = {}
        """Values by the names of `DepthContext`, each `(depth, per_block)`; only what differs from the default."""
        if any(rates):
            self.values["drop_path_rate"] = np.tile(np.array(rates, "float32")[:, None], (1, per_block))
        for name in _SCALES:
            given = getattr(plan, name, None)
            if given is not None:
                self.values[name] = np.asarray(given, "float32")

    def tensors(self) -> dict[str, Any]:
        """Returns the values as tensors for a scan, with the blocks as the leading axis."""
        return {name: ops.convert_to_tensor(values) for name, values in self.values.items()}

    def of_block(self, index: Any, told: Any = None) -> list[DepthContext]:
        """Returns the context of each connection of a block.

        Args:
            index: Index of the block; in a scan, a tensor.
            told: In a scan, the slice of `tensors()` for the block.
        """
        if told is None:
            told = {name: [float(value) for value in values[index]] for name, values in self.values.items()}
        each = range(self.per_block)
        return [DepthContext(index=index, **{name: told[name][position] for name in told}) for position in each]


def ramp(owner: str, given: Any, depth: int) -> list[float]:
    """Returns the drop path rate of each block from the argument of a stack."""
    if isinstance(given, (list, tuple)):
        rates = [share(owner, "drop_path_rate", rate) for rate in given]
        if len(rates) == depth:
            return rates
        if len(rates) != 2:
            rule = f"one rate, a pair (first, last), or one for each of {depth} blocks"
            raise bad_argument(owner, "drop_path_rate", rule, given)
        first, last = rates
    else:
        last = share(owner, "drop_path_rate", given)
        first = 0.0 if depth > 1 else last
    return [float(rate) for rate in np.linspace(first, last, depth)]
