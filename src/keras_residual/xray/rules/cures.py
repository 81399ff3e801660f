"""What to change, where several rules say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_residual.xray.advice import Block
from keras_residual.xray.stages import connections

MOST_FACTOR = 1.5
"""Where each layer of a plain net changes the mean square by more than this, its weights are too large or too small."""

MOST_BRANCH = 8.0
"""Where the first branch adds more than this many times what it gets, its weights are too large."""

SCALE_BRANCHES = (
    "depth_rule='inverse_sqrt_depth' of `kr.ResidualStack`, branch_scale='skip_init' of `kr.Residual`, or a norm in "
    "front of each branch: norm='layer_norm', or 'batch_norm' for pictures"
)
SHORTCUTS = (
    "put shortcuts around groups of layers: `kr.Residual([…])` for a few layers each, or `kr.residualize(model)`; a "
    "norm between the layers holds the signal meanwhile"
)
UNBOUNDED = (
    "activation='relu' or 'gelu' in place of the sigmoids and tanhs, with kernel_initializer='he_normal': the "
    "derivative of a sigmoid is at most 1/4"
)
WEIGHTS = (
    "other initial weights, that keep the size of the signal: kernel_initializer='he_normal' in front of a ReLU, "
    "'lecun_normal' in front of a SELU, 'glorot_uniform' in front of a tanh"
)
DEPTH_SCALED = (
    "depth_rule='inverse_sqrt_depth' or 'layer_norm_scaling' of `kr.ResidualStack`, or branch_scale='skip_init'"
)
POST_NORM = "depth_rule='deepnorm' or 'keel' of `kr.ResidualStack`, or norm_position='pre' of `kr.Residual`"
UNSCALED_SKIP = "skip_scale=None and merge='add' of `kr.Residual`: a shortcut that nothing weakens"


def cure_of_growth(blocks: Sequence[Block]) -> str:
    """Returns what keeps a signal from growing with depth."""
    found = connections(blocks)
    if not found:
        return _cure_without_shortcuts(blocks)
    cure = DEPTH_SCALED if all(block["norms"] or block["norm"] for block in found) else SCALE_BRANCHES
    ratios = [block["branch_ratio"] for block in found if block["branch_ratio"] is not None]
    return f"{WEIGHTS}; or {cure}" if ratios and ratios[0] > MOST_BRANCH else cure


def cure_of_vanishing(blocks: Sequence[Block]) -> str:
    """Returns what keeps a gradient, or the difference between samples, from dying out with depth."""
    found = connections(blocks)
    if not found:
        return _cure_without_shortcuts(blocks)
    if is_post_norm(found):
        return POST_NORM
    weak = any(block["skip_scale"] is not None and abs(block["skip_scale"]) < 1 for block in found)
    return UNSCALED_SKIP if weak or not all(block["additive"] for block in found) else cure_of_growth(blocks)


def cure_of_explosion(blocks: Sequence[Block]) -> str:
    """Returns what keeps a gradient from growing on its way to the input."""
    found = connections(blocks)
    if not found:
        return _cure_without_shortcuts(blocks)
    return POST_NORM if is_post_norm(found) else cure_of_growth(blocks)


def is_post_norm(found: Sequence[Block]) -> bool:
    """Returns whether most connections have a norm behind the sum, and none of the shortcuts is strengthened."""
    behind = [block for block in found if "post" in block["norm"] and (block["skip_scale"] or 1.0) <= 1.0]
    return len(behind) > len(found) / 2


def _cure_without_shortcuts(blocks: Sequence[Block]) -> str:
    """Returns shortcuts, and before them what lets each layer change the signal's size by a factor."""
    if sum(block["saturated_units"] is not None for block in blocks) > len(blocks) / 2:
        return f"{UNBOUNDED}; or {SHORTCUTS}"
    powers = [block["power"] for block in blocks if block["power"] is not None]
    if len(powers) > 1 and powers[0] > 0 and not math.isnan(powers[-1]):
        factor = (powers[-1] / powers[0]) ** (1 / (len(powers) - 1))
        if not 1 / MOST_FACTOR < factor < MOST_FACTOR:
            return f"{WEIGHTS}; or {SHORTCUTS}"
    return SHORTCUTS
