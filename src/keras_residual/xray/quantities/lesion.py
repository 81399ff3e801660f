"""What becomes of the loss when one block is taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.quantity import Passes, Quantity, needs_targets


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


def _add(look: Any, blocks: Any, model: Any) -> None:
    """Adds `lesion` to each block, and `lesion_loss`, the loss of the whole at inference, to the model."""
    count = len(look.places)
    masks = np.concatenate([np.ones((1, count)), 1 - np.eye(count)]).astype("float32")
    losses = look.losses_with(masks)
    effects = lesion_effects([float(loss) for loss in losses[1:]], float(losses[0]))
    by_place = dict(zip(map(id, look.places), effects, strict=True))
    model["lesion_loss"] = float(losses[0])
    for block, place in zip(blocks, look.places_of_blocks, strict=True):
        block["lesion"] = by_place[id(place)]


LESION = Quantity(
    key="lesion",
    definition="with targets: by how much the loss rises without each block",
    of="request",
    by=_add,
    cost=Passes(forward=1, forward_by_block=1),
    check=needs_targets,
    label="loss rises without it by",
    chart=DepthChart(
        title="What if a block is switched off?",
        words="Each block is left out once, with its shortcut kept, and the bar shows how much the loss, the measure "
        "of mistakes, rises. In a trained net a short bar is a block that could be dropped, a tall one a block that "
        "all depends on. A bar below zero: the net does better without it.",
        axis="rise of the loss",
        bars=True,
    ),
)
