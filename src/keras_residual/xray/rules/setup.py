"""Rules on a net that cannot learn as it is set up: its loss, its optimizer, its layers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from keras_residual.xray.quantities.weights import UPDATE_RATIO
from keras_residual.xray.rules.rule import every_block, rule
from keras_residual.xray.stages import Block, connections, hidden


@rule(
    turn=30,
    threshold=1e-2,
    in_words="The answers are squeezed twice, so that the net can never be sure of one",
    because="what lies between 0 and 1 is nearly uniform once a softmax or a sigmoid has been put on it: the loss "
    "cannot become small, and its gradient is weak (of 10 classes none gets more than 0.23)",
)
def softmax_twice(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds a loss that takes for logits what are probabilities: not below 0, and with a sum of 1 but for rounding."""
    ending = model.get("ending") or {}
    if ending.get("loss_takes") != "logits" or ending["output_lowest"] is None:
        return
    what = ""
    if ending["cross_entropy"].startswith("binary"):
        what = "sigmoid" if ending["last_activation"] == "sigmoid" else ""
    elif ending["classes"] > 1 and ending["output_lowest"] >= 0 and ending["output_off_one"] < threshold:
        what = "softmax"
    if what:
        yield (
            ending["last_layer"],
            f"it ends with a {what}, and the loss applies one more",
            "from_logits=False of the loss, or no activation on the last layer",
        )


@rule(
    turn=30,
    threshold=1e-2,
    in_words="The loss takes the answers for probabilities, which they are not",
    because="what is not between 0 and 1 is clipped, and what is clipped has no gradient",
)
def softmax_missing(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds a loss that takes for probabilities what leaves the range from 0 to 1."""
    ending = model.get("ending") or {}
    if ending.get("loss_takes") != "probabilities" or ending["output_lowest"] is None:
        return
    lowest, highest = ending["output_lowest"], ending["output_highest"]
    if lowest < -threshold or highest > 1 + threshold:
        what = "sigmoid" if ending["cross_entropy"].startswith("binary") else "softmax"
        yield (
            ending["last_layer"],
            f"its outputs go from {lowest:.2g} to {highest:.2g}, and the loss takes them for probabilities",
            f"from_logits=True of the loss, or activation='{what}' on the last layer",
        )


@rule(
    turn=50,
    in_words="The learning rate is 0, so that nothing is learned",
    because="steps of about 0.1 % of the weights are usual",
    reaches=every_block,
)
def no_step(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds a constant learning rate of 0; a schedule may begin or end with one."""
    rate = model.get("learning_rate")
    trained = [block for block in blocks if block["weight_gradient_norm"] is not None]
    if rate is not None and rate <= threshold and not model.get("learning_rate_scheduled") and trained:
        yield (
            trained[0]["name"],
            "the learning rate is 0: no step changes the weights",
            "`learning_rate` of the optimizer, 1e-3 for Adam for a start and 0.1 for SGD with momentum",
        )


LARGE_STEP = 0.1
"""Root mean square of a step's changes above which a part that moves by more than itself is thrown about: weights that
begin at 0 do so in any training, in small steps."""


@rule(
    turn=50,
    threshold=UPDATE_RATIO.high,
    in_words="Each step of training throws away what was learned before",
    because="steps of about 0.1 % of the weights are usual; from 10 % on what was learned is overwritten",
    unless=("input_scale", "target_scale"),
    reaches=lambda blocks, first: [
        i for i, block in enumerate(blocks) if (block["update_ratio"] or 0) > UPDATE_RATIO.high
    ],
)
def learning_rate(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the part that moves most: where half of all move too far, or where one moves by more than it is."""
    moved, others = (
        [part for part in parts if math.isfinite(part.get("update_ratio") or math.nan)]
        for parts in (blocks, model.get("outside") or ())
    )
    middle = statistics.median(block["update_ratio"] for block in moved) if moved else 0.0
    most = max(moved if middle > threshold else [*moved, *others], key=lambda part: part["update_ratio"], default=None)
    cure = "divide `learning_rate` by {:.0f}: `optimizer.learning_rate` of the recipe, or of `compile`"
    if most is None:
        return
    if middle > threshold:
        yield (
            most["name"],
            f"one step of the optimizer changes the weights by {middle:.0%} (half of the blocks or more)",
            cure.format(_to_usual(middle)),
        )
    elif most["update_ratio"] > 1 and most.get("update_size", 0.0) > LARGE_STEP:
        yield (
            most["name"],
            f"one step of the optimizer changes its weights by {most['update_ratio']:.0%}",
            cure.format(_to_usual(most["update_ratio"])) + "; `clipnorm=1.0` of the optimizer bounds a single step",
        )


def _to_usual(ratio: float) -> float:
    return 10 ** math.ceil(math.log10(ratio / 1e-2))


@rule(
    turn=130,
    in_words="This block is not being trained, though its neighbours are",
    because="frozen blocks save their backward pass only where nothing in front of them is trained (Yosinski et al. "
    "2014, https://arxiv.org/abs/1411.1792)",
)
def frozen(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks that are not trained between others that are, and a compiled model of which nothing is."""
    parts = (*blocks, *(model.get("outside") or ()))
    if model.get("optimizer") and all(part["weight_gradient_norm"] is None for part in parts):
        yield (
            blocks[0]["name"],
            "none of the model's weights is trained",
            "set `trainable = True` on what is to learn, and compile the model again",
        )
    trained = [index for index, block in enumerate(blocks) if block["weight_gradient_norm"] is not None]
    for index, block in enumerate(blocks):
        # Frozen blocks at the end are a critic, as of a generator, and those at the beginning are what is fine-tuned.
        if block["frozen"] and trained and trained[0] < index < trained[-1]:
            yield (
                block["name"],
                "none of its weights is trained, while blocks before and behind it are",
                "set `trainable = True` on it, or freeze all blocks before it as well",
            )


MOST_OTHERS = 0.75
"""Part of the blocks that must have an activation for one without to count as an oversight."""


@rule(
    turn=150,
    in_words="This block lacks what lets a net bend: it can only compute straight lines",
    because="linear maps in a row are one linear map",
)
def missing_activation(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks of linear maps only, where most others of as many maps have something that is not linear.

    In a net of layers the first and the last may well be linear: one brings the input to a width, one gives the answer.
    So may a layer be that is narrower than what comes before it and behind it.
    """
    plain = not connections(blocks)
    inner = hidden(blocks)
    for index, block in enumerate(inner):
        least = 1 if block["kind"] == "layer" else 2
        if block["maps"] < least or block["activations"] or (plain and (index == 0 or _is_narrow(blocks, index))):
            continue
        like = [other for other in blocks if other is not block and other["maps"] >= least]
        bent = [other for other in like if other["activations"]]
        if len(bent) >= 2 and len(bent) >= MOST_OTHERS * len(like):
            maps = f" between its linear maps ({block['maps']})" if block["maps"] > 1 else ""
            yield (
                block["name"],
                f"it has no activation{maps}, which {len(bent)} of {len(like)} of the other blocks have",
                "activation='relu' on the layers of its branch but the last"
                if block["kind"] != "layer"
                else "activation='relu', or whichever the other layers have",
            )


def _is_narrow(blocks: Sequence[Block], index: int) -> bool:
    """Returns whether a layer has fewer channels than both of its neighbours: a bottleneck, as of low rank."""
    widths = [math.prod(block["shape"][-1:]) for block in (blocks[index - 1], blocks[index], blocks[index + 1])]
    return widths[1] < min(widths[0], widths[2])


@rule(
    turn=150,
    in_words="Two blocks are copies of one another",
    because="blocks that start alike waste one another, and a copy is a sign of a layer reused by mistake",
)
def duplicate(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks whose weights another block has."""
    for block in blocks:
        if block["duplicate_of"]:
            yield (
                block["name"],
                f"its weights are those of {block['duplicate_of']}",
                "build the block again, or use `kr.ResidualStack`, which makes a new copy of its block for each depth",
            )
