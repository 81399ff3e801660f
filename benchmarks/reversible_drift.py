"""How far gradients of reversible stacks drift, for their activations are computed back and not kept.

    python benchmarks/reversible_drift.py --depths 100 1000

Each gradient is compared with that of the same stack when activations are kept, relative to its maximum. `single` keeps
each stream in one float32 number, `double` as the sum of two. Needs JAX. The status is 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import keras
import numpy as np
from _report import report

import keras_residual as kr

SHAPES = {"dense": (32, 32), "conv": (4, 8, 8, 16)}
BOUNDS = {100: 2e-5, 1000: 1e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", nargs="+", type=int, default=[10, 100, 1000])
    arguments = parser.parse_args()
    topologies: dict[str, Any] = {
        "reversible, single": lambda: kr.topologies.Reversible(precision="single"),
        "reversible, double": kr.topologies.Reversible,
        "momentum 0.99, double": lambda: kr.topologies.Momentum(0.99),
    }
    rows = []
    for kind in SHAPES:
        for depth in arguments.depths:
            for name, make in topologies.items():
                rows.append({"block": kind, "depth": depth, "topology": name, **measure(kind, depth, make())})
    report("reversible_drift", rows, bounds=BOUNDS)
    kept = [r for r in rows if r["topology"] == "reversible, double" and r["depth"] in BOUNDS]
    broken = [r for r in kept if r["drift"] > BOUNDS[r["depth"]]]
    if broken:
        sys.exit(f"Over the bound: {broken}")


def measure(kind: str, depth: int, topology: Any) -> dict[str, float]:
    """Returns the drift of the gradients, and what both ways of computing them need."""
    keras.utils.set_random_seed(0)
    stack = kr.ResidualStack(block(kind), depth, topology=topology, execution="scan")
    stack.build(SHAPES[kind])
    found, memory, seconds = gradient(stack, kind, kept=False)
    exact, kept_memory, kept_seconds = gradient(stack, kind, kept=True)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True)
    drift = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    return {"drift": drift, "mb": memory, "mb_kept": kept_memory, "step_cpu": seconds, "step_cpu_kept": kept_seconds}


def block(kind: str) -> kr.Residual:
    layers = keras.layers
    gamma = keras.initializers.Constant(0.3)
    if kind == "dense":
        return kr.Residual([layers.Dense(32, activation="relu"), layers.BatchNormalization(gamma_initializer=gamma)])
    return kr.Residual(
        [
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(gamma_initializer=gamma),
        ]
    )


def gradient(stack: kr.ResidualStack, kind: str, *, kept: bool) -> tuple[Any, float, float]:
    """Returns the gradients by weights and input, XLA's temporary megabytes, and processor seconds of a run."""
    rng = np.random.default_rng(0)
    x, weights = (rng.normal(size=SHAPES[kind]).astype("float32") for _ in range(2))
    trained, state = stack.trainable_variables, stack.non_trainable_variables

    def loss(values: Any, others: Any, x: Any) -> Any:
        mapping = [*zip(trained, values, strict=True), *zip(state, others, strict=True)]
        with keras.StatelessScope(mapping):
            if kept:
                # What is looked at is kept.
                with kr.observe(stack, lambda received, added: {"mean": keras.ops.mean(added)}):
                    outputs = stack(x, training=True)
            else:
                outputs = stack(x, training=True)
            return keras.ops.sum(outputs * weights)

    arguments = [v.value for v in trained], [v.value for v in state], x
    program = jax.jit(jax.grad(loss, argnums=(0, 2))).lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    start = time.process_time()
    found = jax.block_until_ready(program(*arguments))
    return found, program.memory_analysis().temp_size_in_bytes / 2**20, time.process_time() - start


if __name__ == "__main__":
    main()
