"""How signal and gradient pass L blocks at initialisation, by kind of connection: the X-ray's anchors.

    python benchmarks/signal_table.py            # L = 10 and 100
    python benchmarks/signal_table.py --deep     # L = 1000 as well

Each block's branch is a He-initialised MLP of two layers with a ReLU between them and unit gain. For each variant and
depth the table has `E[y^2] / E[x0^2]` and `||dL/dx0|| / ||dL/dxL||`, the median over many seeds with the range of the
5th to the 95th percentile, beside what is known of them (`anchor`), and the X-ray's advice with the share of the seeds
that draw it.

An anchor is the number of one seed. Where the logarithm walks at random from block to block, seeds differ by far more
than a factor of two: in a plain net of width D the signal's has a variance of 7 / D and a mean of -3.5 / D a block, so
that at 1000 blocks of 128 the median is 1.3e-12 and two seeds in three lie within a factor of 1600 of it. So there are
three kinds of checks, and `met` says by which an anchor is met:

    factor   it is within a factor of two of the median
    seed     the 5th or the 95th percentile itself is further than a factor of two from the median, and the anchor is
             one of the 99 % of seeds in the middle: at most 2.58 standard deviations of the logarithm from its mean (of
             the 90 % in the middle one true anchor in ten would be missing, and there are some ten of this kind)
    no       neither; the run fails

Of the plain net's walk the mean over the seeds must also be -3.5 L / D within three standard errors, which is no number
of one seed. The run fails too where less than 90 % of the seeds draw the advice that is due.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from _report import report
from keras import layers

import keras_residual as kr
from keras_residual.xray import Advice

WIDTH, BATCH = 128, 32
SEEDS = {10: 100, 100: 100, 1000: 50}
BOUND = 2.0
MOST_DEVIATIONS = 2.58
DRIFT = -3.5
LEAST_AGREEMENT = 0.9


@dataclass(frozen=True)
class Variant:
    """One row.

    Args:
        connection: Arguments of `kr.Residual`; None for a plain stack.
        rule: The depth rule.
        narrow: Depths whose anchors were measured at half the width and half the batch.
        anchors: For each depth the signal's growth and the gradient's ratio, or None where both overflow.
        advice: For each depth the rule of the X-ray that must speak, or None.
    """

    connection: dict[str, Any] | None
    anchors: dict[int, tuple[float, float] | None]
    rule: str | None = None
    narrow: tuple[int, ...] = ()
    advice: dict[int, tuple[str, str]] | None = None


GROWS = ("signal_grows", "inverse_sqrt_depth")
NORM = {"norm": "layer_norm"}

VARIANTS = {
    "plain": Variant(
        None,
        {10: (0.90, 1.1), 100: (0.74, 0.87), 1000: (1.9e-5, 8e-3)},
        advice={100: ("samples_alike", "kr.Residual"), 1000: ("samples_alike", "kr.Residual")},
    ),
    "x + F": Variant(
        {},
        {10: (822, 31.7), 100: (7e29, 8.7e14), 1000: None},
        advice={
            10: ("gradient_explodes", "inverse_sqrt_depth"),
            100: GROWS,
            1000: ("overflow", "inverse_sqrt_depth"),
        },
    ),
    "x + F/√L": Variant({}, {10: (2.59, 1.57), 100: (2.78, 1.62), 1000: (2.86, 1.63)}, rule="inverse_sqrt_depth"),
    "ReZero": Variant({"branch_scale": "skip_init"}, {10: (1, 1), 100: (1, 1), 1000: (1, 1)}),
    "Pre-LN": Variant(
        NORM,
        {10: (10.6, 3.5), 100: (88.9, 11.4), 1000: (1.1e3, 35.7)},
        advice={1000: ("gradient_grows", "layer_norm_scaling")},
    ),
    "Post-LN": Variant(
        {**NORM, "norm_position": "post"},
        {10: (0.99, 1.26), 100: (0.99, 1.63), 1000: (0.96, 2.3e-4)},
        narrow=(1000,),
        advice={100: ("samples_alike", "deepnorm"), 1000: ("post_norm", "deepnorm")},
    ),
    "Peri-LN": Variant(
        {**NORM, "norm_position": "peri"},
        {10: (10.5, 3.6), 100: (88, 11.9), 1000: (695, 38.5)},
        narrow=(1000,),
        advice={1000: ("gradient_grows", "layer_norm_scaling")},
    ),
    "DeepNorm": Variant(
        {**NORM, "norm_position": "post"},
        {10: (0.99, 1.0), 100: (0.99, 0.99), 1000: (0.96, 0.989)},
        narrow=(1000,),
        rule="deepnorm",
    ),
    "Keel": Variant(
        {**NORM, "norm_position": ("pre", "post")},
        {10: (0.99, 1.0), 100: (0.99, 0.99), 1000: (0.96, 0.991)},
        narrow=(1000,),
        rule="keel",
    ),
}


def branch(width: int) -> list[keras.Layer]:
    """Returns an MLP whose output has the variance of its input."""
    return [
        layers.Dense(width, activation="relu", kernel_initializer="he_normal"),
        layers.Dense(width, kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")),
    ]


def stack(variant: Variant, depth: int, width: int) -> kr.ResidualStack:
    """Returns the blocks of one variant."""
    if variant.connection is None:
        return kr.ResidualStack(branch(width), depth)
    return kr.ResidualStack(kr.Residual(branch(width), **variant.connection), depth, depth_rule=variant.rule)


def measure(variant: Variant, depth: int, seeds: int) -> tuple[np.ndarray, np.ndarray, list[list[Advice]]]:
    """Returns for each seed the signal's growth, the gradient's ratio, and the advice."""
    width, batch = (64, 16) if depth in variant.narrow else (WIDTH, BATCH)
    model = keras.Sequential([keras.Input((width,)), stack(variant, depth, width)])
    found, advice = [], []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        again = keras.Sequential([keras.Input((width,)), stack(variant, depth, width)])
        model.set_weights(again.get_weights())  # so that one program serves all seeds
        x = np.random.default_rng(seed).normal(size=(batch, width)).astype("float32")
        result = kr.xray(model, x)
        found.append((result.model["signal_ratio"], result.model["gradient_ratio"]))
        advice.append(result.advice)
    signal, gradient = np.array(found).T
    return signal, gradient, advice


def compared(values: np.ndarray, anchor: float | None) -> dict[str, Any]:
    """Returns the median, the range, and whether the anchor is met."""
    if anchor is None:
        return {"median": None, "low": None, "high": None, "anchor": None, "met": "overflow"}
    low, median, high = (float(value) for value in np.percentile(values, [5, 50, 95]))
    met = "no"
    if off_by(median, anchor) <= BOUND:
        met = "factor"
    elif max(off_by(low, median), off_by(high, median)) > BOUND:
        logs = np.log(values)
        met = "seed" if abs(math.log(anchor) - logs.mean()) <= MOST_DEVIATIONS * logs.std(ddof=1) else "no"
    return {"median": median, "low": low, "high": high, "anchor": anchor, "met": met}


def walks_as_it_should(signal: np.ndarray, depth: int, width: int) -> bool:
    """Returns whether the mean logarithm of a plain net's signal is that of the walk, within three standard errors."""
    logs = np.log(signal)
    return bool(abs(logs.mean() - DRIFT * depth / width) <= 3 * logs.std(ddof=1) / math.sqrt(len(logs)))


def off_by(value: float, other: float) -> float:
    """Returns the factor, at least 1, between two numbers."""
    return max(value / other, other / value) if value > 0 and math.isfinite(value) else math.inf


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deep", action="store_true", help="measure L = 1000 as well")
    parser.add_argument("--seeds", type=int, help=f"number of seeds (default by depth {SEEDS})")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", default="signal_table", help="name of the file of results")
    arguments = parser.parse_args()
    depths = (10, 100, 1000) if arguments.deep else (10, 100)
    rows, wrong = [], []
    for name in arguments.variants:
        variant = VARIANTS[name]
        for depth in depths:
            seeds = arguments.seeds or SEEDS[depth]
            signal, gradient, advice = measure(variant, depth, seeds)
            anchors = variant.anchors[depth] or (None, None)
            due, change = (variant.advice or {}).get(depth, (None, ""))
            fits = [any(a.rule == due and change in a.change for a in given) if due else not given for given in advice]
            row: dict[str, Any] = {"variant": name, "L": depth, "seeds": seeds}
            for what, values, anchor in zip(("signal", "gradient"), (signal, gradient), anchors, strict=True):
                entry = compared(values, anchor)
                row |= {what: entry.pop("median"), **{f"{what}_{key}": value for key, value in entry.items()}}
                if entry["met"] == "no":
                    wrong.append(f"{name} at {depth}: {what} {row[what]:.3g}, {entry}")
            # At ten blocks the samples still walk apart, and their mean is not one walk.
            if variant.connection is None and depth >= 100 and not walks_as_it_should(signal, depth, WIDTH):
                wrong.append(f"{name} at {depth}: mean log signal {np.log(signal).mean():.3g}")
            row |= {"advice": due or "none", "agree": float(np.mean(fits))}
            if row["agree"] < LEAST_AGREEMENT:
                wrong.append(f"{name} at {depth}: {due} is due, {[[a.rule for a in given] for given in advice]}")
            rows.append(row)
            print(row, file=sys.stderr)
    facts = {"width": WIDTH, "batch": BATCH, "bound": BOUND, "least_agreement": LEAST_AGREEMENT}
    report(arguments.out, rows, **facts, backend=keras.backend.backend())
    print("\n".join(wrong) or "Every anchor is met, and the advice is the one that is due.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
