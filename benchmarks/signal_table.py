"""How signal and gradient pass L blocks at initialisation, by kind of connection: the X-ray's anchors.

    python benchmarks/signal_table.py            # L = 10 and 100
    python benchmarks/signal_table.py --deep     # L = 1000 as well

Each block's branch is a He-initialised MLP of two layers with a ReLU between them and unit gain. For each variant and
depth the table has `E[y^2] / E[x0^2]` and `||dL/dx0|| / ||dL/dxL||`, beside what is known of them, and the X-ray's
advice. The run fails where a number is off by more than a factor of two, or the advice is not the one that is due.
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
from keras_residual.xray import xray

WIDTH, BATCH = 128, 32
SEEDS = 3
BOUND = 2.0


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


def measure(variant: Variant, depth: int) -> tuple[float, float, Any]:
    """Returns the medians over some seeds of the signal's growth and the gradient's ratio, and the last report."""
    width, batch = (64, 16) if depth in variant.narrow else (WIDTH, BATCH)
    found = []
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        x = np.random.default_rng(seed).normal(size=(batch, width)).astype("float32")
        result = xray(keras.Sequential([keras.Input((width,)), stack(variant, depth, width)]), x)
        found.append((result.model["signal_ratio"], result.model["gradient_ratio"]))
    signal, gradient = np.median(np.array(found), axis=0)
    return float(signal), float(gradient), result


def off_by(value: float, anchor: float) -> float:
    """Returns the factor, at least 1, between a number and what is known of it."""
    return max(value / anchor, anchor / value) if value > 0 and math.isfinite(value) else math.inf


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deep", action="store_true", help="measure L = 1000 as well")
    depths = (10, 100, 1000) if parser.parse_args().deep else (10, 100)
    rows, wrong = [], []
    for name, variant in VARIANTS.items():
        for depth in depths:
            signal, gradient, result = measure(variant, depth)
            anchor = variant.anchors[depth]
            factors = [math.nan] if anchor is None else [off_by(signal, anchor[0]), off_by(gradient, anchor[1])]
            given = result.advice
            due, change = (variant.advice or {}).get(depth, (None, ""))
            fits = [entry for entry in given if entry.rule == due and change in entry.change]
            right = bool(fits) if due else not given
            if max(factors) > BOUND or not right:
                wrong.append(
                    f"{name} at {depth}: off by {max(factors):.3g}, advice {[e.rule for e in given]}, due {due}"
                )
            rows.append(
                {
                    "variant": name,
                    "L": depth,
                    "signal": signal,
                    "anchor": anchor[0] if anchor else math.nan,
                    "gradient": gradient,
                    "known": anchor[1] if anchor else math.nan,
                    "off by": max(factors),
                    "advice": given[0].rule if given else "none",
                }
            )
    for row in rows:
        for key, value in row.items():
            row[key] = None if isinstance(value, float) and not math.isfinite(value) else value
    report("signal_table", rows, width=WIDTH, batch=BATCH, seeds=SEEDS, bound=BOUND, backend=keras.backend.backend())
    print("\n".join(wrong) or "Every entry within a factor of two, and the advice is the one that is due.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
