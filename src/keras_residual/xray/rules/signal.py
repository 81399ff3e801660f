"""Rules on the signal: its size, the difference between samples, and what blocks add to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from keras_residual.xray.quantities.gradients import GRADIENT_NORM
from keras_residual.xray.quantities.quantity import most_alike
from keras_residual.xray.quantities.signal import SAMPLE_COSINE
from keras_residual.xray.rules.rule import all_behind, rule
from keras_residual.xray.stages import Block, connections, hidden


@rule(
    turn=70,
    threshold=1e3,
    in_words="The signal grows from block to block like compound interest",
    because="each sum of a stream and a branch of unit gain doubles the variance (Hayou et al. 2021, "
    "https://arxiv.org/abs/2010.12859; De & Smith 2020, https://arxiv.org/abs/2002.10444)",
    unless=("input_scale", "transport_gain"),
    reaches=all_behind,
)
def signal_grows(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the block at which the stream has grown too far, where growth goes on by a factor and no norm ends it."""
    powers = [block["power"] for block in blocks]
    if len(blocks) < 4 or any(power is None or not math.isfinite(power) or power <= 0 for power in powers):
        return
    growth = [power / powers[0] for power in powers]
    half = growth[len(growth) // 2]
    # By a factor a block, not by a sum: the second half grows about as many times as the first.
    if growth[-1] < threshold or growth[-1] / half < threshold**0.4:
        return
    for index, (block, grown) in enumerate(zip(blocks, growth, strict=True)):
        if grown >= threshold:
            yield (
                block["name"],
                f"the signal has grown {grown:.2g} times here, by {grown ** (1 / index):.2g} a block, with no norm in "
                "its way",
                cure_of_growth(blocks),
            )
            return


FEW_LAYERS = 12
"""Layers that learn however alike samples are behind them: what is positive, as behind a ReLU, is alike soon."""


MOST_ALIKE_LAYERS = 0.97
"""Cosine between samples that some twenty layers with ReLUs come to, which learn all the same."""


@rule(
    turn=90,
    threshold=SAMPLE_COSINE.high,
    in_words="All examples look the same to the net from here on",
    because="where all samples are mapped to one direction, the loss cannot tell them apart (Poole et al. 2016, "
    "https://arxiv.org/abs/1606.05340; Noci et al. 2022, https://arxiv.org/abs/2206.03126)",
    unless=("input_scale", "constant_inputs", "transport_gain", "signal_grows", "post_norm", "gradient_vanishes"),
    reaches=all_behind,
)
def samples_alike(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the block from which on the samples, which differ at the input, cannot be told apart."""
    before = model["sample_cosine_input"]
    blocks = hidden(blocks)  # a head has few outputs, in which samples may well agree
    cosines = [block["sample_cosine"] for block in blocks]
    last = next((cosine for cosine in reversed(cosines) if cosine is not None), None)
    if not connections(blocks):
        if len(blocks) < FEW_LAYERS:
            return
        threshold = MOST_ALIKE_LAYERS
    if before is None or last is None or last < threshold or last < most_alike(model):
        return
    for block, cosine in zip(blocks, cosines, strict=True):
        if cosine is not None and cosine >= threshold:
            yield (
                block["name"],
                f"from here on all samples look alike: the mean cosine between two is {last:.2f}, and {before:.2f} at "
                "the input",
                cure_of_vanishing(blocks),
            )
            return


@rule(
    turn=90,
    threshold=0.6,
    in_words="The shortcut is weakened at every block, and the weakening multiplies",
    because="what passes k such shortcuts is multiplied by the k-th power (He et al. 2016, "
    "https://arxiv.org/abs/1603.05027, table 1: with 0.5 the net does not converge)",
    unless=("gradient_vanishes",),
)
def skip_scaled(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks with a plain number below the threshold on the shortcut; one entry where all have it."""
    found = [block for block in blocks if block["skip_scale"] is not None and abs(block["skip_scale"]) < threshold]
    found = [block for block in found if "post" not in block["norm"]]
    for block in found[: 1 if len(found) == len(blocks) else None]:
        yield (
            block["name"],
            f"its shortcut is multiplied by {block['skip_scale']:.2g}",
            "skip_scale=None of `kr.Residual`; to hold the variance scale the branch instead, with branch_scale= or "
            "depth_rule='inverse_sqrt_depth'",
        )


def _with_little_gradient(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    last = blocks[-1]["gradient_norm"] or 0.0
    return [i for i, block in enumerate(blocks) if (block["gradient_norm"] or 0.0) <= GRADIENT_NORM.low * last]


@rule(
    turn=70,
    threshold=100.0,
    in_words="In a net this deep, the rescaling behind every sum wears the shortcuts down",
    because="each norm behind a sum weakens the shortcut, and from some hundred on the gradient vanishes (Xiong et al. "
    "2020, https://arxiv.org/abs/2002.04745; Wang et al. 2022, https://arxiv.org/abs/2203.00555)",
    reaches=_with_little_gradient,
)
def post_norm(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the first block of a deep net whose sums have norms behind them and shortcuts that are not strengthened."""
    found = connections(blocks)
    if len(found) > threshold and is_post_norm(found):
        yield (
            found[0]["name"],
            f"{len(found)} connections with a norm behind each sum: the gradient at the first is "
            f"{model['gradient_ratio']:.2g} times that at the last",
            "depth_rule='deepnorm' or 'keel' of `kr.ResidualStack`, or norm_position='pre' of `kr.Residual`",
        )


@rule(
    turn=110,
    threshold=1e-6,
    in_words="This block does nothing, and cannot learn to",
    because="a factor that is learned gets a gradient at zero, a fixed zero never lets the branch learn (Bachlechner "
    "et al. 2020, https://arxiv.org/abs/2003.04887)",
)
def unused_branch(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks whose branches add nothing, and whose weights cannot change that."""
    for block in blocks:
        ratio, gradient = block["branch_ratio"], block["weight_gradient_norm"]
        if ratio is not None and ratio < threshold and gradient == 0 and block["gradient_norm"] != 0:
            yield (
                block["name"],
                "its branch adds nothing and its weights get no gradient",
                "give it a scale that can grow, branch_scale='skip_init' of `kr.Residual`, or leave the block out",
            )


@rule(
    turn=110,
    threshold=0.01,
    in_words="The last blocks do next to nothing",
    because="behind a norm at its entry a branch stays as it is while the stream grows (Sun et al. 2025, "
    "https://arxiv.org/abs/2502.05795)",
    unless=("input_scale", "transport_gain"),
    reaches=all_behind,
)
def unused_depth(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds where the tail of blocks that add next to nothing begins, where the first ones do add."""
    found = [block for block in connections(blocks) if block["branch_ratio"] is not None]
    count = 0
    for block in reversed(found):
        if not 0 < block["branch_ratio"] < threshold:
            break
        count += 1
    if found and count >= max(2, len(found) // 4) and found[0]["branch_ratio"] > 10 * threshold:
        yield (
            found[-count]["name"],
            f"from here on the branches add {found[-count]['branch_ratio']:.1%} of the stream and less ({count} "
            "blocks)",
            "depth_rule='layer_norm_scaling' or 'inverse_sqrt_depth' of `kr.ResidualStack`, or fewer blocks",
        )


# --- What keeps the size of a signal and of its gradient -------------------------------------------------------------

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
