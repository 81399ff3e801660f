"""What each quantity on request costs, as data, to be said before it is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from keras_residual.xray.quantities.loss_slice import SLICE_POINTS, SURFACE_POINTS
from keras_residual.xray.quantities.sharpness import STEPS
from keras_residual.xray.quantities.shattering import POINTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """Passes of the whole model, beside the one forward and one backward pass of the X-ray itself.

    Args:
        forward: Forward passes.
        forward_by_block: Further ones for each block of the report.
        backward: Backward passes.
        samples: Size of the batch of these passes, where it is not the one that was given.
        beside: What else it takes.
    """

    forward: int
    forward_by_block: int = 0
    backward: int = 0
    samples: int | None = None
    beside: str = ""

    def in_words(self, blocks: int | None = None) -> str:
        """Returns the cost as a phrase.

        Args:
            blocks: Number of blocks, or None to speak of any.
        """
        forward, each = self.forward, self.forward_by_block
        if each and blocks is not None:
            forward, each = forward + each * blocks, 0
        said = f"{forward:,} forward"
        if each:
            said += f" and {each} more for each block"
        if self.backward:
            said += f", {self.backward:,} back"
        if self.samples is not None:
            said += f", of {self.samples} samples"
        return f"{said}; {self.beside}" if self.beside else said


_KEPT = "what each block hands on is kept"

COSTS: MappingProxyType[str, Passes] = MappingProxyType(
    {
        "chi": Passes(forward=5, backward=4, beside=_KEPT),
        "singular_value": Passes(forward=37, backward=12, beside=_KEPT),
        "path_lengths": Passes(forward=5, backward=4, beside=f"{_KEPT}; none beside 'chi'"),
        "lesion": Passes(forward=1, forward_by_block=1),
        "shattering": Passes(forward=1, backward=1, samples=POINTS),
        "cka": Passes(forward=1, beside=_KEPT),
        "early_exit": Passes(forward=1, beside=_KEPT),
        "loss_slice": Passes(forward=SLICE_POINTS, beside="the weights are kept once more"),
        "loss_surface": Passes(forward=SURFACE_POINTS**2, beside="the weights are kept twice more"),
        "sharpness": Passes(forward=2 * STEPS, backward=2 * STEPS, beside="the weights are kept three times more"),
    }
)
"""The cost of each quantity on request, by its name."""


def costs_in_words(names: Iterable[str], blocks: int) -> str:
    """Returns what quantities cost for a model of so many blocks, a line for each.

    Args:
        names: Names of quantities on request.
        blocks: Number of blocks of the report.

    Example:
        >>> print(costs_in_words(["lesion", "loss_slice"], blocks=16))
        Passes of the model, beside one forward and one back for the X-ray itself:
          lesion: 17 forward
          loss_slice: 51 forward; the weights are kept once more
    """
    lines = [f"  {name}: {COSTS[name].in_words(blocks)}" for name in dict.fromkeys(names)]
    return "\n".join(["Passes of the model, beside one forward and one back for the X-ray itself:", *lines])
