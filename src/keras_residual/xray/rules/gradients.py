"""Rules on the gradient: whether it leaves the loss, arrives at the first block, and grows on its way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from keras_residual.xray.advice import Block, rule
from keras_residual.xray.quantities.table import BANDS
from keras_residual.xray.rules.cures import cure_of_explosion, cure_of_vanishing
from keras_residual.xray.stages import begins_stage, connections, hidden, stages

LARGE_VARIANCE = 10.0
"""Variance above which what a branch adds is not of the usual size."""


def _little_gradient(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    last = max(_gradient(block) for block in hidden(blocks))
    return [i for i, block in enumerate(blocks) if _is_measured(block) and not _gradient(block) > 0.1 * last]


def _much_gradient(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    (stage,) = (stage for stage in stages(blocks) if first is not None and stage.start <= first < stage.stop)
    last = _gradient(blocks[stage.stop - 1])
    return [i for i in range(stage.start, stage.stop) if _gradient(blocks[i]) > 10 * last]


def _is_measured(block: Block) -> bool:
    return block["gradient_norm"] is not None


def _gradient(block: Block) -> float:
    return block["gradient_norm"] if _is_measured(block) else 0.0


def begins_with_zeros(model: Block) -> bool:
    """Returns whether the last linear map is still zero: no gradient passes it until the first step."""
    return bool((model.get("ending") or {}).get("head_is_zero"))


@rule(
    in_words="No learning signal arrives at all, not even at the last block",
    because="a loss that clips or rounds what it is given has the derivative 0, and so has a head whose units are all "
    "off",
    unless=("softmax_missing", "input_scale"),
    final=True,
    reaches=lambda blocks, first: range(len(blocks)),
)
def no_gradient(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the last block where not even that one gets a gradient, but for a head that begins with zeros."""
    last = blocks[-1]
    if begins_with_zeros(model) or last["gradient_norm"] is None or last["gradient_norm"] > threshold:
        return
    if (model.get("gradient_norm_output") or 0.0) > threshold:
        yield (
            last["name"],
            "no gradient reaches it, although it is the last and the loss does send one to the outputs",
            "look at what follows this block: ReLU units that are off for every sample, rounding, `ops.stop_gradient`, "
            "or an output that does not depend on it",
        )
    else:
        yield (
            last["name"],
            "no gradient reaches it, although it is the last",
            "look at the loss: `from_logits=True` where the model ends without a softmax, targets of the right shape, "
            "and an output that depends on the blocks",
        )


@rule(
    threshold=BANDS["gradient_norm"].low,
    in_words="The learning signal fades out before it reaches the first blocks",
    because="a block that gets no gradient learns nothing (Glorot & Bengio 2010; He et al. 2016, "
    "https://arxiv.org/abs/1603.05027, eq. 5)",
    unless=("transport_gain", "post_norm"),
    reaches=_little_gradient,
)
def gradient_vanishes(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the first block where the gradient has shrunk on its way to the input.

    Without shortcuts the head is left out, whose outputs have a gradient of their own size, and layers of unlike shapes
    may differ by more.
    """
    ratio = model["gradient_ratio"]
    if not connections(blocks):
        inner = hidden(blocks)
        norms = [model["gradient_norm_input"], *(block["gradient_norm"] for block in inner)]
        norms = [norm for norm in norms if norm is not None]
        ratio = norms[0] / norms[-1] if len(norms) > 1 and norms[-1] else math.nan
        threshold = threshold if len({tuple(block["shape"]) for block in inner}) == 1 else threshold / 10
    if ratio < threshold and not begins_with_zeros(model):
        yield (
            blocks[0]["name"],
            f"the gradient at the first block is {ratio:.2g} times that at the last",
            cure_of_vanishing(blocks),
        )


@rule(
    threshold=BANDS["gradient_norm"].high,
    in_words="The learning signal grows from block to block on its way to the input",
    because="the first blocks decide the largest learning rate that the whole can bear (Zhang et al. 2019, "
    "https://arxiv.org/abs/1901.09321)",
    unless=("input_scale", "transport_gain", "signal_grows", "post_norm"),
    reaches=_much_gradient,
)
def gradient_explodes(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the first block of the stage through which the gradient grows most, where it does so by a factor a block.

    Where it grows as a power of the depth, as in a pre-norm net, most of that happens at the first blocks.
    """
    for name, norms in _worst_stage(blocks, model):
        ratio = norms[0] / norms[-1]
        if ratio > threshold and norms[len(norms) // 2] > norms[-1] * ratio**0.25:
            yield name, _grown(ratio), cure_of_explosion(blocks)


@rule(
    threshold=25.0,
    in_words="The first blocks get far more of the learning signal than the last ones",
    because="behind a norm the gradient is divided by the stream's size, which grows with each block (Sun et al. 2025, "
    "https://arxiv.org/abs/2502.05795)",
    unless=("input_scale", "transport_gain", "signal_grows", "post_norm", "gradient_explodes"),
    reaches=_much_gradient,
)
def gradient_grows(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the first block of the stage through which the gradient grows most, in whatever way."""
    for name, norms in _worst_stage(blocks, model):
        if norms[0] / norms[-1] > threshold:
            yield name, _grown(norms[0] / norms[-1]), cure_of_explosion(blocks)


def _grown(ratio: float) -> str:
    return f"through its stage the gradient grows {ratio:.2g} times on its way to the input"


def _worst_stage(blocks: Sequence[Block], model: Block) -> list[tuple[str, list[float]]]:
    """Returns the stage with the largest ratio of its gradients at the ends: its first block, and all its norms.

    Within a stage the stream keeps its shape. From stage to stage the size of the maps changes, and the norm with it.
    """
    found: list[tuple[str, list[float]]] = []
    before: Block | None = None
    for block in blocks:
        norm = block["gradient_norm"]
        if not norm or not math.isfinite(norm):
            continue
        if before is None or begins_stage(block, before):
            at_input = model["gradient_norm_input"]
            whole = before is None and at_input and not block["projected"] and not _receives_little(block)
            found.append((block["name"], [at_input] if whole else []))
        found[-1][1].append(norm)
        before = block
    found = [stage for stage in found if len(stage[1]) > 1]
    return sorted(found, key=lambda stage: stage[1][0] / stage[1][-1])[-1:]


def _receives_little(block: Block) -> bool:
    """Returns whether a branch of usual size outweighs what its block receives, as behind an embedding of small rows.

    The norm in front of the branch then divides by that little, once.
    """
    ratio, added = block["branch_ratio"], block["branch_variance"]
    return ratio is not None and ratio > 2 and added is not None and added < LARGE_VARIANCE
