"""One stream: what each block returns is what the next one gets."""

from __future__ import annotations

from keras_residual.residual.serialization import register
from keras_residual.stacks.topologies.base import Link, Place, Topology


@register
class Single(Topology):
    """The plain stack: blocks one after another, each with its own shortcut, merge and norms."""

    def link(self, place: Place) -> Link:
        """Raises, since the blocks of this topology are called without links."""
        raise NotImplementedError
