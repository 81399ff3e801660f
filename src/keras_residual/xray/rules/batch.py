"""Rules on the batch: inputs and targets that a net cannot learn from as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from keras_residual.xray.quantities.quantity import LEAST_SAMPLES
from keras_residual.xray.rules.rule import every_block, rule
from keras_residual.xray.stages import Block, connections

QUIET = 1e-3
"""Root mean square of what a net receives below which it is too small."""

BRIGHT = 30.0
"""Largest value above which whole numbers from 0 to 255 have not been scaled."""


@rule(
    turn=10,
    threshold=30.0,
    in_words="The numbers that go in are far from the size that a net is made for",
    because="initial weights keep a signal of about unit size, and the gradient of the first weights grows with the "
    "input (LeCun et al. 1998, Efficient BackProp, section 4.3)",
    reaches=every_block,
)
def input_scale(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds inputs that reach the first weights far too large or too small; a norm right behind these makes up for it.

    Pictures of whole numbers up to 255 are named whatever comes behind, since nobody feeds them so on purpose.
    """
    arrays = model.get("inputs") or ()
    power = model.get("power_input") if connections(blocks) else None
    loud_stream = power is not None and power > threshold**2
    named = False
    for entry in model.get("entries") or ():
        own = [arrays[index] for index in entry["inputs"] or range(len(arrays))]
        size, raw = entry["rms"], any(array["picture"] for array in own)
        picture = raw and entry["largest"] > BRIGHT
        loud = threshold < size < math.inf and (loud_stream or not entry["normalised"])
        if picture or loud or 0 < size < QUIET:
            named = True
            yield (
                own[0]["name"] if len(own) == 1 else "input",
                f"its values reach {entry['layer']!r} with a root mean square of {size:.2g}, and up to "
                f"{entry['largest']:.3g}",
                _cure_of_scale(raw),
            )
    for array in arrays:
        if loud_stream and not named and array["rms"] > threshold:
            yield (
                array["name"],
                f"its values have a root mean square of {array['rms']:.2g}, and the first shortcut carries "
                f"{power**0.5 if power else 0.0:.2g}",
                _cure_of_scale(array["picture"]),
            )


def _cure_of_scale(picture: bool) -> str:
    cure = "`keras.layers.Normalization()`, adapted to the training data, as the first layer"
    if picture:
        cure = (
            "`keras.layers.Rescaling(1 / 255)` as the first layer, or for a network of the zoo what "
            "`kr.preprocessing(name)` returns"
        )
    return f"{cure}: about 1 is what initial weights are made for"


@rule(
    turn=40,
    in_words="Some of what goes in is the same for every example, and tells none from another",
    because="a column that does not vary adds the same to every sample, as a bias does, and nothing can be learned of "
    "it",
)
def constant_inputs(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds inputs whose samples are all the same, and columns or channels that hold one value for all of them."""
    if model.get("batch", 0) < LEAST_SAMPLES:
        return
    for array in model.get("inputs") or ():
        if array["same"]:
            yield (
                array["name"],
                f"all {model['batch']} samples are the same",
                "look at what makes the batch: a generator that yields one array over and over, or a file read wrongly",
            )
        elif array["constant"]:
            shown = ", ".join(map(str, array["constant"][:5])) + (", …" if len(array["constant"]) > 5 else "")
            yield (
                array["name"],
                f"{len(array['constant'])} of its {array['channels']} columns hold one value for all {model['batch']} "
                f"samples ({shown})",
                "leave these columns out, or look at how they are read; a column that is constant here and varies "
                "later needs a batch in which it varies",
            )


@rule(
    turn=10,
    in_words="The answers that the net is to learn are not among those that it can give",
    because="a class without an output has no probability: its loss is wrong, infinite or an error, by the backend",
    reaches=every_block,
)
def labels_out_of_range(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds targets that the cross-entropy cannot take."""
    for labels in model.get("labels") or ():
        found = out_of_range(labels)
        if found is not None:
            yield (labels["name"], *found)
        elif not labels["kind"].startswith(("sparse", "binary")) and labels["off_one"] > 1e-2:
            yield (
                labels["name"],
                f"the targets of a sample do not add up to 1 (by up to {labels['off_one']:.2g})",
                "one probability for each class, 1 in all; 'binary_crossentropy' and sigmoids where several classes "
                "may be true at once",
            )


def out_of_range(labels: Block) -> tuple[str, str] | None:
    """Returns what is wrong with the targets of a cross-entropy, and which ones it takes; None where nothing is.

    Args:
        labels: What `FollowedLoss.noting` found of the targets.
    """
    lowest, highest, classes = labels["lowest"], labels["highest"], labels["classes"]
    if labels["kind"].startswith("sparse"):
        if not labels["whole"]:
            return (
                f"they are not whole numbers ({lowest:.3g} to {highest:.3g}), and the loss takes them for classes",
                "labels 0, 1, 2, … as integers; or 'categorical_crossentropy' for a probability of each class, or "
                "'mse' for numbers",
            )
        if lowest < 0 or highest >= classes:
            return (
                f"the labels go from {lowest:.0f} to {highest:.0f}, and the model has {classes} outputs, for 0 to "
                f"{classes - 1}",
                "labels that begin at 0, and as many outputs as there are classes; `ignore_class=` of the loss for "
                "a label that stands for nothing",
            )
    elif lowest < -1e-6 or highest > 1 + 1e-6:
        return (
            f"the targets go from {lowest:.3g} to {highest:.3g}, and the cross-entropy takes probabilities from 0 to 1",
            "0 and 1 for no and yes: (y + 1) / 2 for -1 and 1, y / 255 for masks of pictures; or another loss, "
            "'mse' for numbers and 'hinge' for -1 and 1",
        )
    return None


NEVER_BY_CHANCE = math.log(1e-6)
"""Log-probability below which classes are not missing by chance."""


@rule(
    turn=40,
    in_words="The answers to be learned do not tell the examples apart",
    because="what is the same for every sample is learned by the last bias alone, and the blocks get no gradient that "
    "lasts",
)
def labels_alike(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds targets that are all the same, and labels that use far fewer classes than the model has outputs."""
    batch = model.get("batch", 0)
    if batch < LEAST_SAMPLES or blocks[-1]["frozen"]:  # a critic that is asked whether all of it is real
        return
    for array in model.get("targets") or ():
        if array["same"]:
            yield (
                array["name"],
                f"the targets of all {batch} samples are the same",
                "shuffle the data before the batch is taken, or look at how the targets are read",
            )
            return
    for labels in model.get("labels") or ():
        seen, classes = labels["seen"], labels["classes"]
        if not labels["kind"].startswith("sparse") or not 0 < seen <= classes / 2:
            continue
        # The classes that n draws of equally likely ones hold: at most this likely to be among some k of C.
        chance = labels["count"] * math.log(seen / classes) + _log_choose(classes, seen)
        if chance < NEVER_BY_CHANCE:
            yield (
                labels["name"],
                f"the {labels['count']} labels are of {seen:.0f} classes, and the model has {classes} outputs",
                "as many outputs as there are classes; shuffle the data before the batch is taken, where it is sorted "
                "by class",
            )


@rule(
    turn=40,
    threshold=100.0,
    in_words="The numbers to be learned are far larger than those that the net gives",
    because="a net begins with outputs of about 1, so that the error, and with it the gradient, is as large as the "
    "targets",
    reaches=every_block,
)
def target_scale(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds targets of a regression far above what the model gives, in parts of the outputs' root mean square."""
    ending = model.get("ending") or {}
    outputs = ending.get("output_rms") if ending.get("loss_is_distance") else None
    for array in model.get("targets") or ():
        if outputs is not None and array["rms"] > threshold * max(1.0, outputs):
            yield (
                array["name"],
                f"the targets have a root mean square of {array['rms']:.2g}, and the outputs one of {outputs:.2g}",
                "targets of mean 0 and variance 1, (y - mean) / deviation, and the inverse after `predict`; or "
                "`keras.layers.Rescaling` as the last layer",
            )


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
