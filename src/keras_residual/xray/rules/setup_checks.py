"""How the rules on a net that cannot learn as it is set up find it: its loss, its rate of learning, its dead layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Block = Mapping[str, Any]
Found = tuple[str, dict[str, Any]]

LEAST_SAMPLES = 16
"""Units that are 0 for fewer samples than this may be rare and not dead."""


def softmax_twice(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds a loss that takes for logits what are probabilities: not below 0, and with a sum of 1 but for rounding."""
    ending = model.get("ending") or {}
    if ending.get("loss_takes") != "logits" or ending["output_lowest"] is None:
        return
    if ending["cross_entropy"].startswith("binary"):
        if ending["last_activation"] == "sigmoid":
            yield ending["last_layer"], {"what": "sigmoid"}
    elif ending["classes"] > 1 and ending["output_lowest"] >= 0 and ending["output_off_one"] < threshold:
        yield ending["last_layer"], {"what": "softmax"}


def softmax_missing(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds a loss that takes for probabilities what leaves the range from 0 to 1."""
    ending = model.get("ending") or {}
    if ending.get("loss_takes") != "probabilities" or ending["output_lowest"] is None:
        return
    if ending["output_lowest"] < -threshold or ending["output_highest"] > 1 + threshold:
        what = "sigmoid" if ending["cross_entropy"].startswith("binary") else "softmax"
        yield (
            ending["last_layer"],
            {"lowest": ending["output_lowest"], "highest": ending["output_highest"], "what": what},
        )


def no_step(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds a constant rate of learning of 0; a schedule may begin or end with one."""
    rate = model.get("learning_rate")
    trained = [block for block in blocks if block["weight_gradient_norm"] is not None]
    if rate is not None and rate <= threshold and not model.get("learning_rate_scheduled") and trained:
        yield trained[0]["name"], {}


def dead_layer(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the first layer of a net without shortcuts that gives 0 whatever comes in."""
    if model["batch"] < LEAST_SAMPLES:
        return
    for block in blocks:
        if block["kind"] == "layer" and (block["dead_units"] or 0) > threshold:
            yield block["name"], {"batch": model["batch"]}
            return


SETUP_CHECKS = {check.__name__: check for check in (softmax_twice, softmax_missing, no_step, dead_layer)}
"""The checks by name."""
