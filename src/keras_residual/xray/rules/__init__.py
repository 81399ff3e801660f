"""The rules from which advice follows: a function each, that finds what is wrong and says what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from keras_residual.xray.advice import Advice, Block, Rule
from keras_residual.xray.rules import batch, gradients, numbers, setup, signal, streams, units

MOST_BLOCKS = 4
"""Blocks that one rule names one by one; where it finds more, one entry speaks of all."""

RULES: tuple[Rule, ...] = (
    numbers.given_not_finite,
    batch.input_scale,
    batch.labels_out_of_range,
    numbers.not_a_number,
    numbers.overflow,
    numbers.loss_not_finite,
    numbers.gradient_not_finite,
    numbers.underflow,
    setup.softmax_twice,
    setup.softmax_missing,
    batch.constant_inputs,
    batch.labels_alike,
    batch.target_scale,
    setup.dead_layer,
    setup.no_step,
    setup.learning_rate,
    streams.transport_gain,
    streams.double_stochasticity,
    signal.signal_grows,
    signal.post_norm,
    gradients.no_gradient,
    gradients.gradient_vanishes,
    signal.samples_alike,
    signal.skip_scaled,
    gradients.gradient_explodes,
    gradients.gradient_grows,
    signal.unused_branch,
    signal.unused_depth,
    streams.streams_alike,
    setup.frozen,
    units.dead_units,
    units.saturated_units,
    setup.missing_activation,
    setup.duplicate,
)
"""In the order in which advice is given: what makes other numbers meaningless comes first."""


def advise(blocks: Sequence[Block], model: Block) -> list[Advice]:
    """Returns the advice that follows from a report's numbers; empty where nothing is wrong.

    Args:
        blocks: The entries of the blocks.
        model: The quantities of the whole.
    """
    found: list[Advice] = []
    for rule in RULES:
        if not blocks or {entry.rule for entry in found} & set(rule.unless):
            continue
        here = rule(blocks, model)
        if len(here) > MOST_BLOCKS:
            finding = f"{here[0].finding}; the same holds for {len(here) - 1} more blocks"
            here = [dataclasses.replace(here[0], finding=finding)]
        found += here
        if here and rule.final:
            break
    return found
