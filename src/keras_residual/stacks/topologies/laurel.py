"""LAuReL: residual connections with learned weights, a low-rank skip, and earlier streams."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument, unknown_name, wrong_type
from keras_residual._types import Shape
from keras_residual.residual.context import DepthContext
from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Coefficients, Link, Place, Rows, Topology, weighted_sum

KINDS = ("rw", "lr", "pa")


@register
class LaurelLink(Link):
    """A connection with some parts of LAuReL; see `Laurel` for the arguments.

    Args:
        kind: The parts.
        rank: Rank of the addition to the skip.
        previous: Number of earlier streams.
        history_rank: Rank of the map on them; None for the identity.
        seed: Seed of the kernels with random initial values.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.
    """

    def __init__(
        self,
        kind: Sequence[str],
        rank: int,
        previous: int,
        history_rank: int | None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = tuple(kind)
        self.rank = rank
        self.previous = previous
        self.history_rank = history_rank
        self.seed = seed

    def build(self, input_shape: Shape) -> None:
        """Adds the weights."""
        channels = int(input_shape[-1] or 0)
        if "rw" in self.kind:
            self.branch_weight = self.add_weight(shape=(), initializer="ones", name="branch_weight")
            self.skip_weight = self.add_weight(shape=(), initializer="ones", name="skip_weight")
        if "lr" in self.kind:
            self.down = self.add_weight(shape=(channels, self.rank), initializer=self._random(0), name="down")
            self.up = self.add_weight(shape=(self.rank, channels), initializer="zeros", name="up")
        if "pa" in self.kind:
            self.gains = self.add_weight(shape=(self.previous,), initializer="zeros", name="gains")
            if self.history_rank is not None:
                # Neither starts at 0: with gains of 0, no gradient would ever be other than 0.
                shape = (channels, self.history_rank)
                self.history_down = self.add_weight(shape=shape, initializer=self._random(1), name="history_down")
                self.history_up = self.add_weight(shape=shape[::-1], initializer=self._random(2), name="history_up")

    def _random(self, which: int) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=None if self.seed is None else self.seed + which)

    def coefficients(self, rows: Rows, context: DepthContext) -> Coefficients:
        """Returns the weights of the rows; maps on the channels are in `transport`."""
        del context
        count = len(rows)
        a, b = (self.branch_weight, self.skip_weight) if "rw" in self.kind else (1, 1)
        gains: list[Any] = [0] * (count - 1)
        if "pa" in self.kind and self.history_rank is None:
            gains = self._gains()
        shifted = [[int(i == j) for j in range(count)] for i in range(count - 1)]
        return Coefficients(
            read=[1] + [0] * (count - 1), transport=[[b, *gains], *shifted], write=[a] + [0] * (count - 1)
        )

    def transport(self, rows: Rows, coefficients: Coefficients) -> Rows:
        """Returns the skip with its additions, and the earlier streams shifted by one."""
        skip, *older = super().transport(rows, coefficients)
        x, *earlier = rows
        if "lr" in self.kind:
            skip = skip + _through(x, self.down, self.up)
        if "pa" in self.kind and self.history_rank is not None:
            # The map is linear, so it can act on the sum.
            skip = skip + _through(weighted_sum(self._gains(), tuple(earlier)), self.history_down, self.history_up)
        return (skip, *older)

    def _gains(self) -> list[Any]:
        gains: Any = ops.convert_to_tensor(self.gains)
        return [gains[i] for i in range(self.previous)]


@register
class Laurel(Topology):
    """Learned augmented residual connections: `x' = a F(x) + b x + x A B + sum_j g_j h(x_{l-j})`, or parts of it.

    No part has an effect at first, so that the stack starts as a plain one.

    Args:
        kind: The parts, one name or several: `"rw"`, the residual weights `a` and `b`, which start at 1; `"lr"`, the
            low-rank addition to the skip, with `A` of `(channels, rank)` and `B` of `(rank, channels)`, which starts at
            0; `"pa"`, the previous activations, with gains `g` that start at 0. Without `"rw"`, `a = b = 1`.
        rank: Rank of `A B`.
        previous: Number of earlier streams, from `x_{l-1}` back; those before the first count as 0. The current one is
            not among them, since the skip has it.
        history_rank: Rank of a linear map `h`; None for the identity.
        **kwargs: `name` and `dtype`, as every Keras layer takes them.

    Raises:
        ValueError: For an unknown kind, a kind given twice, or none.

    Reference:
        Menghani et al., LAuReL: Learned Augmented Residual Layer, 2025. https://arxiv.org/abs/2411.07501, section 2.
        There `a` and `b` may be bounded, by a softmax for instance; here they are free.
    """

    def __init__(
        self,
        kind: str | Sequence[str] = ("rw", "lr"),
        rank: int = 4,
        previous: int = 2,
        history_rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = owner_of(self)
        self.kind = _kinds(owner, kind)
        self.rank = whole_number(owner, "rank", rank)
        self.previous = whole_number(owner, "previous", previous)
        self.history_rank = None if history_rank is None else whole_number(owner, "history_rank", history_rank)
        by_channel = "lr" in self.kind or ("pa" in self.kind and self.history_rank is not None)
        self.channel_axis = -1 if by_channel else None
        # One seed for all links, so that the initial values of a block do not depend on the execution.
        self._seed = random.getrandbits(24)

    def check(self, depth: int, per_block: int, input_shape: Shape) -> None:
        """Raises if the number of channels is not known."""
        del depth, per_block
        if input_shape[-1] is None:
            raise bad_argument(owner_of(self), "inputs", "an input with a known last axis", input_shape)

    def begin(self, x: Any) -> Rows:
        """Returns the input, and zeros for the streams before it."""
        return (x, *[ops.zeros_like(x)] * self.previous) if "pa" in self.kind else (x,)

    def link(self, place: Place) -> Link:
        """Returns a link."""
        return LaurelLink(
            self.kind,
            self.rank,
            self.previous,
            self.history_rank,
            seed=self._seed + 3 * place.position,
            name=place.link_name,
            dtype=self.dtype_policy,
        )


def _kinds(owner: str, kind: Any) -> tuple[str, ...]:
    kinds = (kind,) if isinstance(kind, str) else kind
    rule = f"one or several of {', '.join(map(repr, KINDS))}"
    if not isinstance(kinds, (list, tuple)) or not all(isinstance(name, str) for name in kinds):
        raise wrong_type(owner, "kind", rule, kind)
    for name in kinds:
        if name not in KINDS:
            raise unknown_name(owner, "kind", name, KINDS)
    if not kinds or len(set(kinds)) < len(kinds):
        raise bad_argument(owner, "kind", f"{rule}, each once", kind)
    return tuple(kinds)


def _through(x: Any, down: Any, up: Any) -> Any:
    """Returns `x down up`."""
    return ops.matmul(ops.matmul(x, ops.cast(down, x.dtype)), ops.cast(up, x.dtype))
