"""One training step and one prediction of 16 blocks: written with `kr.Residual` against written by hand with `Add`.

    python benchmarks/layer_overhead.py --runs 31

Both networks live in one process a backend, have equal weights, and take turns; `ratio` is the median of the time with
`kr.Residual` over that by hand in the same turn, `us/block` the difference in microseconds. Ends with status 1 where a
ratio is over the bound. The Dense network has next to no arithmetic, so it shows the overhead at its largest. Needs a
machine that does nothing else: the ratios of a busy one are noise.

The bound is on the convolutional network; on the Dense one Keras's own bookkeeping for a nested layer shows, which is
microseconds a block.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

BOUND = 1.03
BLOCKS = 16
BATCH = 32
WIDTH = 32
SHAPES = {"conv": (16, 16, WIDTH), "dense": (WIDTH,)}  # conv: the second stage of the CIFAR nets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=31, help="turns of each network (default 31)")
    parser.add_argument("--backends", nargs="+", default=["jax", "torch", "tensorflow"])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps([row for kind in SHAPES for row in measure(kind, arguments.runs)]))
        return
    from _report import report

    rows = [row for backend in arguments.backends for row in in_process_of(backend, arguments.runs)]
    report("layer_overhead", rows, runs=arguments.runs, blocks=BLOCKS, batch=BATCH, width=WIDTH, bound=BOUND)
    if any(row["ratio"] > BOUND for row in rows if row["network"] == "conv"):
        sys.exit(
            f"The convolutional network with `kr.Residual` takes more than {BOUND} times the time of that by hand."
        )


def in_process_of(backend: str, runs: int) -> list[dict[str, Any]]:
    """Returns the rows of a backend, measured by this script in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--here", "--runs", str(runs)],
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def network(kind: str, *, by_hand: bool) -> keras.Model:
    """Returns 16 blocks, each `x + F(x)`, and a classifier."""
    import keras
    from keras import layers

    import keras_residual as kr

    def branch() -> list[keras.Layer]:
        if kind == "dense":
            return [layers.Dense(WIDTH, activation="relu"), layers.Dense(WIDTH)]
        return [
            layers.Conv2D(WIDTH, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(WIDTH, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
        ]

    x = inputs = keras.Input(SHAPES[kind])
    for _ in range(BLOCKS):
        if by_hand:
            skip = x
            for layer in branch():
                x = layer(x)
            x = layers.Add()([skip, x])
        else:
            x = kr.Residual(branch())(x)
    if kind == "conv":
        x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    model.compile(keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def measure(kind: str, runs: int) -> list[dict[str, Any]]:
    """Returns a row each for training and prediction."""
    import keras
    import numpy as np

    hand, ours = network(kind, by_hand=True), network(kind, by_hand=False)
    if [weight.shape for weight in hand.weights] != [weight.shape for weight in ours.weights]:
        raise AssertionError("The two networks have different weights.")
    ours.set_weights(hand.get_weights())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, *SHAPES[kind])).astype("float32")
    y = rng.integers(10, size=BATCH)
    difference = np.max(np.abs(hand.predict_on_batch(x) - ours.predict_on_batch(x)))
    if difference > 1e-5:
        raise AssertionError(f"The two networks differ by {difference}.")
    calls: dict[str, Callable[[keras.Model], Any]] = {
        # Both return numbers, so the work is done when they return.
        "train": lambda model: model.train_on_batch(x, y),
        "predict": lambda model: model.predict_on_batch(x),
    }
    return [
        {"backend": keras.backend.backend(), "network": kind, "call": name, "params": ours.count_params()}
        | compare(call, hand, ours, runs)
        for name, call in calls.items()
    ]


def compare(call: Callable[[Any], Any], hand: Any, ours: Any, runs: int) -> dict[str, float]:
    """Returns the median milliseconds of each, on the wall and on the processor, and the medians of the ratios."""
    once = min(timed(call, hand)[0] for _ in range(4))  # the first ones compile
    for _ in range(3):
        timed(call, ours)
    repeats = max(1, round(0.02 / once))  # a turn takes 20 ms at least, well above the clock's noise
    turns = []
    for index in range(runs):
        # Who is first alternates, so that what grows within a turn falls on both.
        order = (hand, ours) if index % 2 else (ours, hand)
        found = {id(model): timed(call, model, repeats) for model in order}
        turns.append((*found[id(hand)], *found[id(ours)]))
    hand_wall, hand_cpu, ours_wall, ours_cpu = (1000 * statistics.median(column) for column in zip(*turns, strict=True))
    added = statistics.median(turn[2] - turn[0] for turn in turns)
    return {
        "hand_ms": round(hand_wall, 3),
        "ours_ms": round(ours_wall, 3),
        "ratio": round(statistics.median(turn[2] / turn[0] for turn in turns), 4),
        "us/block": round(1e6 * added / BLOCKS, 2),
        "hand_cpu": round(hand_cpu, 3),
        "ours_cpu": round(ours_cpu, 3),
        "cpu_ratio": round(statistics.median(turn[3] / turn[1] for turn in turns), 4),
    }


def timed(call: Callable[[Any], Any], model: Any, repeats: int = 1) -> tuple[float, float]:
    """Returns seconds a call, on the wall and on the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call(model)
    return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats


if __name__ == "__main__":
    main()
