"""Rules on numbers that are none, too large or too small for their type: whatever they reach means nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from keras_residual.xray.quantities.gradients import GRADIENT_UNDERFLOW
from keras_residual.xray.rules.rule import rule
from keras_residual.xray.rules.signal import cure_of_growth
from keras_residual.xray.stages import Block


def _broken(blocks: Sequence[Block], first: int | None) -> Sequence[int]:
    """Returns the blocks whose values or gradients are not all finite."""
    shares, numbers = ("nan", "inf", "gradient_nan"), ("power", "gradient_norm")
    return [
        i
        for i, block in enumerate(blocks)
        if any(block.get(key) for key in shares) or not all(math.isfinite(block.get(key) or 0.0) for key in numbers)
    ]


@rule(
    turn=0,
    in_words="What the net is given holds values that are not numbers: everything computed from them is lost",
    because="one NaN spreads to everything that is computed from it, and by way of the loss to every weight in one "
    "step",
    final=True,
    reaches=_broken,
)
def given_not_finite(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds NaN and infinite values in the inputs, the targets and the sample weights, and in the net's own weights.

    Those of the batch count where they reach anything: a layer that fills in what is missing may well get them.
    """
    for array in model.get("broken_arrays") or ():
        share, samples = array["share"], array["samples"]
        yield (
            array["where"],
            f"{samples} of {model['batch']} samples hold {array['what']} ({share:.2g} of its values)",
            "leave these samples out, or fill in what is missing, before training: "
            "`np.isfinite(…).reshape(len(…), -1).all(axis=1)` finds the others. A division by a standard deviation of "
            "0 and a logarithm of 0 are frequent sources",
        )
    weights = model.get("broken_weights") or ()
    if weights:
        first = weights[0]
        others = f", and {len(weights) - 1} more of its weights are no better" if len(weights) > 1 else ""
        yield (
            first["owner"],
            f"{first['count']} of the {first['size']} entries of its weight {first['name']!r} are "
            f"{first['what']}{others}",
            "go back to weights that were sound: `keras.callbacks.ModelCheckpoint` keeps them, and "
            "`keras.callbacks.TerminateOnNaN` ends a training in time. Where training did this, a lower learning rate "
            "or `keras.optimizers.Adam(clipnorm=1.0)` prevents it",
        )


@rule(
    turn=20,
    in_words="A calculation broke: some values are not numbers any more, and everything behind it is lost",
    because="one NaN spreads to everything that is computed from it, so that the first layer that makes one out of "
    "finite values holds the cause",
    final=True,
    reaches=_broken,
)
def not_a_number(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the layer that makes NaN or infinite values of finite ones; the block where no more is known."""
    origin = _origin(blocks, model)
    if origin is not None and not _has_grown(origin, model):
        received = "" if origin["largest"] is None else f", of values up to {origin['largest']:.2g}"
        yield (
            origin["where"],
            f"{origin['layer']} hands on {origin['what']} ({origin['share']:.2g} of its values){received}",
            "look at the divisions, roots, logarithms and exponentials there: a small number added to what is divided "
            "by, or `keras.ops.maximum` under the root or the logarithm, keeps them finite",
        )


@rule(
    turn=20,
    in_words="The numbers have grown too large for the machine",
    because="a sum of branches of unit gain doubles the variance at each block; scaled by 1/sqrt(depth) it stays below "
    "e (Hayou et al. 2021, https://arxiv.org/abs/2010.12859)",
    unless=("input_scale",),
    final=True,
    reaches=_broken,
)
def overflow(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds where the signal, or its mean square, has grown beyond its type."""
    origin = _origin(blocks, model)
    if origin is not None and _has_grown(origin, model):
        yield origin["where"], f"the signal overflows in {model['dtype']}", cure_of_growth(blocks)
        return
    for block in blocks:
        if _overflows(block):
            yield block["name"], f"the mean square of the signal overflows in {model['dtype']}", cure_of_growth(blocks)
            return


@rule(
    turn=20,
    in_words="The measure of mistakes itself is not a number",
    because="the outputs and the targets are finite, so that the loss makes this of them; its gradient is NaN for "
    "every weight",
    final=True,
)
def loss_not_finite(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds a loss that is NaN or infinite although nothing in front of it is."""
    loss = model.get("loss")
    if loss is not None and not math.isfinite(loss):
        yield (
            "loss",
            f"the outputs of the model are finite, and the loss is {'NaN' if math.isnan(loss) else 'infinite'}",
            "look at its logarithms and divisions: from_logits=True in place of a softmax and a logarithm, a small "
            "number added to what is divided by, and sample weights or a mask that are not all 0",
        )


@rule(
    turn=20,
    in_words="The learning signal breaks on its way back: some of it is not a number",
    because="the derivative of a root at 0 is infinite, and 0 times infinity is NaN, even where `where` has replaced "
    "the value",
    final=True,
    reaches=_broken,
)
def gradient_not_finite(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the block through which a gradient becomes NaN or infinite though all values are finite."""
    parts = [model, *(model.get("outside") or ()), *blocks]
    keys = ("gradient_norm", "gradient_norm_input", "gradient_norm_output", "weight_gradient_norm")
    if not all(math.isfinite(part.get(key) or 0.0) for part in parts for key in keys):
        found = model.get("broken_gradient") or {"where": _first_broken_back(blocks, model), "layer": "it"}
        yield (
            found["where"],
            f"values are finite, and {found['layer']} hands back a gradient that is not",
            "look at its roots, norms, divisions and powers at 0: add a small number inside, and use `keras.ops.where` "
            "on what goes in as well as on what comes out",
        )


def _first_broken_back(blocks: Sequence[Block], model: Block) -> str:
    """Returns where a gradient breaks on its way back, as far as the numbers of the blocks tell."""
    if not math.isfinite(model.get("gradient_norm_output") or 0.0):
        return "loss"
    where = "head"
    for block in reversed(blocks):
        if not math.isfinite(block["gradient_norm"] or 0.0):
            return where
        where = block["name"]
    return where


@rule(
    turn=20,
    threshold=GRADIENT_UNDERFLOW.high,
    in_words="The learning signal is too small for the short numbers that this net computes with",
    because="float16 ends at 6e-8, and gradients of deep nets lie below it (Micikevicius et al. 2018, "
    "https://arxiv.org/abs/1710.03740, figure 2)",
    final=True,
    reaches=lambda blocks, first: [
        i for i, block in enumerate(blocks) if (block["gradient_underflow"] or 0) > GRADIENT_UNDERFLOW.high
    ],
)
def underflow(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the block on whose way back float16 loses the gradient, or the last where it comes too small to that."""
    if model["dtype"] != "float16":
        return
    for index in reversed(range(len(blocks))):
        share = blocks[index]["gradient_underflow"] or 0
        if share > threshold:
            yield (
                blocks[min(index + 1, len(blocks) - 1)]["name"],
                f"{share:.0%} of the gradient's entries are too small for float16 and lose their digits or vanish",
                "use the policy 'mixed_float16', with which `compile` scales the loss, or 'mixed_bfloat16', whose "
                "range is that of float32: `dtype=` of the layers, or `keras.config.set_dtype_policy`",
            )
            return


def _overflows(block: Block) -> bool:
    """Returns whether the signal behind a block is finite, and its mean square is not."""
    power = block.get("power")
    return power is not None and math.isinf(power)


def _origin(blocks: Sequence[Block], model: Block) -> dict[str, Any] | None:
    """Returns the layer that was found to break numbers, or what can be told from the blocks alone."""
    found = model.get("broken_layer")
    if found:
        return found
    for block in blocks:
        for key, what in (("inf", "infinite values"), ("nan", "NaN")):
            if block.get(key):
                where = {"where": block["name"], "layer": "it", "what": what, "share": block[key], "largest": None}
                return {**where, "grown": key == "inf"}
    return None


GROWN = {"float16": 100.0}
"""Largest finite value of a layer's input, by type, above which it overflows by growth, and not by what it computes."""


GROWN_ELSEWHERE = 1e6


def _has_grown(origin: dict[str, Any], model: Block) -> bool:
    """Returns whether values became infinite because what came in was large already."""
    if origin["largest"] is None:
        return bool(origin.get("grown"))
    large = GROWN.get(model["dtype"], GROWN_ELSEWHERE)
    return origin["what"] != "NaN" and origin["largest"] > large
