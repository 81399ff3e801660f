"""Rules on units that are stuck: dead, or at the flat ends of their function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_residual.xray.quantities.quantity import LEAST_SAMPLES, samples_of
from keras_residual.xray.quantities.units import DEAD_UNITS, SATURATED_UNITS
from keras_residual.xray.rules.rule import every_block, rule
from keras_residual.xray.stages import Block


@rule(
    turn=45,
    threshold=0.999,
    in_words="A layer passes nothing on: all that follows sees the same for every example",
    because="a unit that no sample activates gets no gradient and stays as it is (Lu et al. 2019, "
    "https://arxiv.org/abs/1903.06733)",
    final=True,
    reaches=every_block,
)
def dead_layer(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the first layer of a net without shortcuts that gives 0 whatever comes in."""
    if samples_of(model) < LEAST_SAMPLES:
        return
    for block in blocks:
        if block["kind"] == "layer" and (block["dead_units"] or 0) > threshold:
            yield (
                block["name"],
                f"all of its ReLU units are 0 for each of the {model['batch']} samples: nothing of the input passes, "
                "and no gradient comes back",
                "biases of 0 and kernel_initializer='he_normal', and a lower learning rate where training did this; "
                "activation='gelu' or 'leaky_relu' cannot die",
            )
            return


MOST_COSINE = 0.7
"""Where samples are more alike than this, a unit that is 0 for all of a batch may be on for another one."""


@rule(
    turn=140,
    threshold=DEAD_UNITS.high,
    in_words="Many units are switched off for good",
    because="a unit that no sample activates gets no gradient and stays as it is (Lu et al. 2019, "
    "https://arxiv.org/abs/1903.06733)",
    unless=(
        "input_scale",
        "transport_gain",
        "signal_grows",
        "post_norm",
        "samples_alike",
        "gradient_vanishes",
        "gradient_explodes",
    ),
)
def dead_units(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks with many units that no sample activates."""
    if samples_of(model) < LEAST_SAMPLES:
        return
    for block in blocks:
        if (block["dead_units"] or 0) > threshold and (block["sample_cosine"] or 0) < MOST_COSINE:
            yield (
                block["name"],
                f"{block['dead_units']:.0%} of its ReLU units are 0 for each of the {model['batch']} samples",
                "lower the learning rate or set the biases to 0; activation='gelu' or 'leaky_relu' in the branch "
                "cannot die",
            )


@rule(
    turn=140,
    threshold=SATURATED_UNITS.high,
    in_words="Most units are stuck at their limit",
    because="there the derivative is below a tenth of its greatest value (Glorot & Bengio 2010, section 3)",
    unless=("input_scale",),
)
def saturated_units(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[tuple[str, str, str]]:
    """Finds the blocks whose bounded activations are mostly at their ends."""
    for block in blocks:
        if (block["saturated_units"] or 0) > threshold:
            yield (
                block["name"],
                f"{block['saturated_units']:.0%} of its sigmoids or tanhs are at their flat ends",
                "norm='layer_norm' of `kr.Residual` in front of it, inputs of mean 0 and variance 1, smaller initial "
                "weights, or activation='relu'",
            )
