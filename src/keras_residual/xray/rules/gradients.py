"""Rules on the gradient: whether it leaves the loss, arrives at the first block, and grows on its way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from keras_residual.xray.quantities.gradients import GRADIENT_NORM
from keras_residual.xray.rules.rule import every_block, rule
from keras_residual.xray.rules.signal import SHORTCUTS, UNBOUNDED, cure_of_explosion, cure_of_vanishing
from keras_residual.xray.stages import Block, begins_stage, connections, hidden, stages


def _little_gradient(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    last = max(_gradient(block) for block in hidden(blocks))
    return [
        i for i, block in enumerate(blocks) if _is_measured(block) and not _gradient(block) > GRADIENT_NORM.low * last
    ]


def _much_gradient(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    if first is None:
        return []
    (stage,) = (stage for stage in stages(blocks) if stage.start <= first < stage.stop)
    last = _gradient(blocks[stage.stop - 1])
    return [i for i in range(stage.start, stage.stop) if _gradient(blocks[i]) > GRADIENT_NORM.high * last]


def _is_measured(block: Block) -> bool:
    return block["gradient_norm"] is not None


def _gradient(block: Block) -> float:
    return block["gradient_norm"] if _is_measured(block) else 0.0


def _comparable(block: Block) -> float:
    """Returns the gradient behind a block, as that of a signal of unit size where a norm takes the signal.

    A norm divides what it gets by its size, and on the way back the gradient too. Behind a layer that is all that
    follows; in a stream it counts where the stream is small, as behind an embedding of small rows.
    """
    power = block["power"]
    if power is None or not math.isfinite(power):
        return _gradient(block)
    if block["kind"] == "layer":
        return _gradient(block) * (power**0.5 if "post" in block["norm"] else 1.0)
    return _gradient(block) * _smallness(power, block)


def _comparable_input(blocks: Sequence[Block], model: Block) -> float | None:
    """Returns the gradient in front of the first block in the same way; None where it is not known."""
    at_input, power = model["gradient_norm_input"], model.get("power_input")
    return at_input if at_input is None or power is None else at_input * _smallness(power, blocks[0])


def _smallness(power: float, block: Block) -> float:
    normed = block["norm"] or block["norms"]
    return min(1.0, power**0.5) if normed and power > 0 else 1.0


def begins_with_zeros(model: Block) -> bool:
    """Returns whether the last linear map is still zero: no gradient passes it until the first step."""
    return bool((model.get("ending") or {}).get("head_is_zero"))


@rule(
    turn=80,
    in_words="No learning signal arrives at all, not even at the last block",
    because="a loss that clips or rounds what it is given has the derivative 0, and so has a head whose units are all "
    "off",
    unless=("softmax_missing", "input_scale"),
    final=True,
    reaches=every_block,
)
def no_gradient(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the last block where not even that one gets a gradient, but for a head that begins with zeros."""
    last = blocks[-1]
    if begins_with_zeros(model) or last["gradient_norm"] is None or last["gradient_norm"] > threshold:
        return
    if any(array["rms"] == 0 for array in model.get("sample_weights") or ()):
        yield last["name"], "no gradient reaches it: the sample weights are all 0", "sample weights above 0"
    elif (model.get("gradient_norm_output") or 0.0) > threshold:
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
    turn=80,
    threshold=GRADIENT_NORM.low,
    in_words="The learning signal fades out before it reaches the first blocks",
    because="a block that gets no gradient learns nothing (Glorot & Bengio 2010; He et al. 2016, "
    "https://arxiv.org/abs/1603.05027, eq. 5)",
    unless=("transport_gain", "post_norm"),
    reaches=_little_gradient,
)
def gradient_vanishes(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds where the gradient has shrunk on its way, along the blocks, outside of them, or from step to step.

    Each has a threshold of its own beside that of the whole way: `LEAST_BETWEEN`, `LEAST_PULL`, `LEAST_OVER_TIME`.
    """
    if begins_with_zeros(model):
        return
    for find in (_along_the_blocks, _outside_the_blocks, _over_time):
        for name, finding, cure in find(blocks, model, threshold):
            yield name, finding, cure
            return


LEAST_BETWEEN = 1e-3
"""What a block may get less of the gradient than any later one, where the first gets enough again."""


def _along_the_blocks(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the first block of those that get far less of the gradient than a later one.

    Without shortcuts the head is left out, whose outputs have a gradient of their own size, and so is the input, whose
    gradient no weight needs; layers of unlike shapes may differ by more.
    """
    inner = hidden(blocks)
    profile = [(block["name"], _comparable(block)) for block in inner if _is_measured(block)]
    at_input = _comparable_input(blocks, model)
    if connections(blocks) and at_input is not None:
        profile = [(blocks[0]["name"], at_input), *profile]
    elif len({tuple(block["shape"]) for block in inner}) > 1:
        threshold /= 10
    ratio = profile[0][1] / profile[-1][1] if profile and profile[-1][1] else math.nan
    if ratio < threshold:
        yield (
            profile[0][0],
            f"the gradient at the first block is {ratio:.2g} times that at the last",
            cure_of_vanishing(blocks),
        )
        return
    if blocks[0]["kind"] == "layer" and not blocks[0]["maps"] and at_input is not None:
        profile = [(blocks[0]["name"], at_input), *profile]  # it may be many layers, as a module of PyTorch's is
    later = 0.0
    for index in reversed(range(len(profile))):
        name, norm = profile[index]
        if norm < LEAST_BETWEEN * later:
            yield (
                name,
                f"the gradient there is {norm / later:.2g} times that behind a later block",
                cure_of_vanishing(blocks),
            )
            return
        later = max(later, norm)


LEAST_PULL = 1e-5
"""What the weights of a part of the net may be pulled less than those of another."""


def _outside_the_blocks(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds layers in front of the connections, or connections in front of layers, whose weights are hardly pulled.

    What is compared is the gradient of weights in parts of these: how fast layers of any shape learn. Layers that get
    none at all may belong to an output that has no loss.
    """
    inside = [block["weight_gradient_ratio"] for block in blocks if block.get("weight_gradient_ratio")]
    parts = [part for part in model.get("outside") or () if part["matrix"] and part["weight_gradient_ratio"]]
    if not inside or not parts or not connections(blocks):
        return
    middle = statistics.median(inside)
    least = min(parts, key=lambda part: part["weight_gradient_ratio"])
    most = max(part["weight_gradient_ratio"] for part in parts)
    for name, small, large, where in (
        (least["name"], least["weight_gradient_ratio"], middle, "the blocks"),
        (blocks[0]["name"], middle, most, "the layers outside of the blocks"),
    ):
        if small < LEAST_PULL * large:
            yield (
                name,
                f"the gradient of its weights, in parts of these, is {small / large:.2g} times that of {where}: it "
                "fades in the layers that lie between",
                f"{UNBOUNDED}; or {SHORTCUTS}",
            )
            return


LEAST_OVER_TIME = 1e-3
"""What a gradient may fall to from the last step of a sequence to the first."""


def _over_time(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds recurrent layers through whose steps the gradient fades, and that have no gates to keep it."""
    for block in blocks:
        share = block.get("gradient_over_time")
        if share is not None and share < LEAST_OVER_TIME:
            yield (
                block["name"],
                f"from its last step to its first the gradient falls to {share:.2g} times what it was",
                "`keras.layers.LSTM` or `GRU`, whose gates keep what they are told to; return_sequences=True and a "
                "mean over the steps, so that each one gets a gradient of its own; or shorter sequences",
            )


@rule(
    turn=100,
    threshold=GRADIENT_NORM.high,
    in_words="The learning signal grows from block to block on its way to the input",
    because="the first blocks decide the largest learning rate that the whole can bear (Zhang et al. 2019, "
    "https://arxiv.org/abs/1901.09321)",
    unless=("input_scale", "transport_gain", "signal_grows", "post_norm", "gradient_vanishes"),
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
    turn=100,
    threshold=25.0,
    in_words="The first blocks get far more of the learning signal than the last ones",
    because="behind a norm the gradient is divided by the stream's size, which grows with each block (Sun et al. 2025, "
    "https://arxiv.org/abs/2502.05795)",
    unless=("input_scale", "transport_gain", "signal_grows", "post_norm", "gradient_vanishes", "gradient_explodes"),
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
        norm = _comparable(block)
        if not norm or not math.isfinite(norm):
            continue
        if before is None or begins_stage(block, before):
            at_input = _comparable_input(blocks, model)
            whole = before is None and at_input and not block["projected"]
            found.append((block["name"], [at_input] if whole and at_input else []))
        found[-1][1].append(norm)
        before = block
    found = [stage for stage in found if len(stage[1]) > 1]
    return sorted(found, key=lambda stage: stage[1][0] / stage[1][-1])[-1:]
