"""The quantities of a report in plain words: what each picture asks, how to read it, and what is usual."""

from __future__ import annotations

from keras_residual.xray.page.quantity import Quantity

QUANTITIES: tuple[Quantity, ...] = (
    # --- Learning ---
    Quantity(
        key="gradient_norm",
        label="gradient",
        usual="within ten times of that at its stage's end",
        title="Does the learning signal reach every block?",
        words="A net learns from its mistakes: a correction, the gradient, starts at the answer (right) and travels "
        "back through all blocks to the input (left). The line shows how strong it is behind each block. Healthy is a "
        "line within the shaded band, neither ten times weaker nor ten times stronger than at the end of its stage. "
        "Where it sinks to the left by powers of ten, the first blocks get no correction and do not learn; where it "
        "climbs to the left, they are thrown about.",
        axis="strength of the gradient",
        chapter="learning",
        log=True,
        band=(0.1, 10.0),
        of_stage=True,
    ),
    Quantity(
        key="weight_gradient_ratio",
        label="pull on the weights",
        title="How hard are the weights of each block pulled?",
        words="The gradient of a block's own weights, divided by the size of these weights. Blocks of the same kind "
        "are healthy within some tens of times of one another. A block far below all others hardly learns, one far "
        "above them takes the largest steps.",
        axis="gradient / weights",
        chapter="learning",
        log=True,
    ),
    Quantity(
        key="update_ratio",
        label="one step moves the weights by",
        usual="about 0.1 %, below 10 %",
        percent=True,
        title="How far does one step of training move the weights?",
        words="The part of its weights that one step of the optimizer changes. About 0.1 % is usual. Above the shaded "
        "band a step throws away what was learned before: the learning rate is too large. Far below it, training takes "
        "very long.",
        axis="change of the weights in a step",
        chapter="learning",
        log=True,
        band=(1e-5, 0.1),
    ),
    Quantity(key="gradient_spread", label="difference between examples' gradients", usual="below 1"),
    Quantity(key="weight_norm", label="size of the weights"),
    # --- Signal ---
    Quantity(
        key="variance",
        label="variance of the signal",
        title="Does the signal keep its size?",
        words="On its way from the input (left) to the answer (right) the signal is a list of numbers. The solid line "
        "shows how much they vary behind each block. Healthy is a line that stays level or climbs slowly. One that "
        "climbs by powers of ten ends in numbers too large for the machine, one that falls by powers of ten ends in "
        "nothing. The line of the squared mean should run below: where it overtakes, all numbers drift to one side.",
        axis="variance",
        chapter="signal",
        log=True,
        beside=("squared_mean", "squared mean"),
    ),
    Quantity(
        key="sample_cosine",
        label="likeness of the examples",
        usual="below 0.95",
        title="Can the net still tell the examples apart?",
        words="How alike two different examples look behind each block: 1 means the same but for size, 0 means nothing "
        "in common. A line that runs up to 1 and stays there: all examples have become one, and no later block can "
        "tell them apart again.",
        axis="likeness (cosine)",
        chapter="signal",
        band=(-1.0, 0.95),
        domain=(-1.0, 1.0),
    ),
    # --- Blocks ---
    Quantity(
        key="branch_ratio",
        label="adds, compared to what it gets",
        usual="above 0.01 in a trained net",
        title="How much does each block add?",
        words="A residual block adds something to what it gets. This is the size of what it adds, divided by the size "
        "of what it gets. At 1 both are equal; near 0 the block does next to nothing; far above 1 it drowns what came "
        "before. Many blocks below 0.01 at the right end are depth that is paid for and not used. An exact 0 (a "
        "triangle at the bottom) is how blocks with a learned scale begin.",
        axis="added / received",
        log=True,
        neutral=1.0,
    ),
    Quantity(
        key="branch_cosine",
        label="direction of what it adds",
        title="Does it write something new, or erase?",
        words="The direction of what a block adds, compared with what it gets. Around 0 it writes something new. Near "
        "1 it only makes larger what is there, near -1 it erases what is there.",
        axis="cosine",
        neutral=0.0,
        domain=(-1.0, 1.0),
    ),
    Quantity(
        key="share",
        label="share of all that is added",
        percent=True,
        title="Who does the work?",
        words="Of all that the blocks add together, the part that each one adds. Within a stage healthy blocks are of "
        "one order of magnitude; a single tall bar does the work of all.",
        axis="share",
        bars=True,
    ),
    Quantity(
        key="lesion",
        label="loss rises without it by",
        title="What if a block is switched off?",
        words="Each block is left out once, with its shortcut kept, and the bar shows how much the loss, the measure "
        "of mistakes, rises. In a trained net a short bar is a block that could be dropped, a tall one a block that "
        "all depends on. A bar below zero: the net does better without it.",
        axis="rise of the loss",
        bars=True,
    ),
    Quantity(
        key="chi",
        label="stretches small differences (mean square)",
        usual="near 1",
        title="Does a block stretch or shrink small differences?",
        words="If the input of a block changes a little, how much does its output change? 1 means by as much. Every "
        "block multiplies it: many blocks above 1 make a chaos in which gradients explode, many below 1 a calm in "
        "which they vanish.",
        axis="chi",
        log=True,
        neutral=1.0,
    ),
    Quantity(key="branch_gain", label="gain of its branch"),
    Quantity(
        key="singular_value",
        label="stretches one direction by",
        usual="near 1",
        title="How far is the direction stretched that is stretched most?",
        words="As above, for the one small change that a block answers most strongly. Healthy is near 1. Far above it, "
        "few directions carry the whole gradient.",
        axis="largest singular value",
        log=True,
        neutral=1.0,
    ),
    Quantity(
        key="stream_collapse",
        label="likeness of the streams",
        title="Do the parallel streams stay different?",
        words="This net carries several streams side by side. The line shows how alike they are. They begin as copies "
        "of one another, at 1, and part in training. Where a trained net comes back to 1, the streams have become one "
        "again, and the others are paid for and not used.",
        axis="likeness (cosine)",
        domain=(-1.0, 1.0),
    ),
    Quantity(
        key="transport_gain",
        label="gain of all mixings up to here",
        usual="about 1",
        title="Does the mixing of the streams keep the signal's size?",
        words="Before each block the streams are mixed. This is what all mixings up to a block together can multiply "
        "the signal by. Healthy is about 1; a line that climbs by powers of ten explodes with depth.",
        axis="gain",
        log=True,
        neutral=1.0,
    ),
    Quantity(key="double_stochasticity", label="error of the mixing of streams", usual="near 0"),
    Quantity(
        key="early_exit",
        label="right answers from here",
        percent=True,
        title="From which depth on is the answer known?",
        words="How many examples a simple classifier gets right that sees nothing but what comes out of this block. "
        "Healthy is a line that climbs to the right. Where it is flat, the blocks add nothing to the answer.",
        axis="right answers",
        domain=(0.0, 1.0),
    ),
    # --- Units and numbers ---
    Quantity(
        key="dead_units",
        label="units that are always off",
        usual="below 20 %",
        percent=True,
        title="Are there units that never switch on?",
        words="A ReLU unit is off where its input is negative. One that is off for every example is dead: it passes on "
        "nothing and learns nothing. Some percent are usual; a line above the shaded band is a loss.",
        axis="dead units",
        chapter="numbers",
        band=(0.0, 0.2),
        domain=(0.0, 1.0),
    ),
    Quantity(
        key="saturated_units",
        label="units at their limit",
        usual="below 50 %",
        percent=True,
        title="Are there units stuck at their limit?",
        words="A sigmoid or tanh that is pushed to its end hardly moves any more, and lets hardly any gradient "
        "through. A line above the shaded band: most units of the block are stuck.",
        axis="saturated units",
        chapter="numbers",
        band=(0.0, 0.5),
        domain=(0.0, 1.0),
    ),
    Quantity(
        key="nan",
        label="not a number (NaN)",
        usual="0",
        percent=True,
        title="Where do numbers break?",
        words="The part of the values that are no numbers (NaN, as from 0/0) or infinite. All of a healthy net are "
        "sound. The first block from the left that has a broken one holds the cause; it spreads from there.",
        axis="broken values",
        chapter="numbers",
        bars=True,
        domain=(0.0, 1.0),
        beside=("inf", "infinite"),
        only_if_any=True,
    ),
    Quantity(key="inf", label="infinite", usual="0", percent=True),
    Quantity(
        key="gradient_underflow",
        label="gradient too small for float16",
        usual="below 50 %",
        percent=True,
        title="Is the gradient too small for the numbers of the machine?",
        words="This net computes with short numbers (float16), which have no room for very small values. The line "
        "shows which part of the gradient is lost to that. Above the shaded band most of it is gone.",
        axis="lost values",
        chapter="numbers",
        band=(0.0, 0.5),
        domain=(0.0, 1.0),
        dtype="float16",
    ),
)
"""In the order in which the page has them."""

KINDS = {
    "residual": "residual block: its branch is added to its shortcut",
    "stack": "residual block of a stack",
    "add": "sum of a branch and a shortcut",
    "concatenate": "joins a branch to a shortcut, side by side",
    "layer": "layer without a shortcut",
}
"""What the kinds of block are."""
