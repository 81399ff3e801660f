"""What becomes of the loss when one block is taken out."""

from __future__ import annotations

from collections.abc import Sequence


def lesion_effects(losses: Sequence[float], whole: float) -> list[float]:
    """Returns for each block by how much the loss rises without it: `loss without - loss with all`.

    Range: any number. In a trained residual net most blocks change the loss little, those that change the shape more;
    0 or less marks a block that may go. Cost: one forward pass a block, all in one compiled program.

    Args:
        losses: Loss with one block switched off, for each block.
        whole: Loss with all blocks.

    Reference:
        Veit et al. 2016, section 4.1. https://arxiv.org/abs/1605.06431
    """
    return [float(loss) - whole for loss in losses]
