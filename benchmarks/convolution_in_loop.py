"""The output and both gradients of a convolution on JAX: outside a loop, in a `scan`, and in a `scan` with ours.

    python benchmarks/convolution_in_loop.py --runs 5

XLA on the CPU canonicalises convolutions only outside loops (https://github.com/jax-ml/jax/issues/12868), so that
`stock_scan` is many times `stock_unrolled`; `ours_scan` is what a scanned stack of blocks uses. Milliseconds of
processor time for each convolution, the median of turns that the three take in one process; `ours/unrolled` is the
median of the ratios of one turn. Each block is `x + tanh(conv(x))`; the row `none` multiplies by a number instead, and
shows what is not the convolution's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import numpy as np
from _report import report
from jax import numpy as jnp
from keras import ops

from keras_residual._backend.fast.jax_convolution import canonical_convolutions

BATCH = 32
LENGTH = 4
# Name: data without the batch, kernel, and the arguments of `keras.ops.conv`.
KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "none": ((32, 32, 16), (), {}),
    "3x3, 32x32x16": ((32, 32, 16), (3, 3, 16, 16), {}),
    "3x3, 16x16x32": ((16, 16, 32), (3, 3, 32, 32), {}),
    "3x3, 8x8x64": ((8, 8, 64), (3, 3, 64, 64), {}),
    "1x1, 32x32x16": ((32, 32, 16), (1, 1, 16, 16), {}),
    "1x1, 8x8x64": ((8, 8, 64), (1, 1, 64, 64), {}),
    "strided 3x3, 16x16x32": ((16, 16, 32), (3, 3, 32, 32), {"strides": 2}),
    "dilated 3x3, 16x16x32": ((16, 16, 32), (3, 3, 32, 32), {"dilation_rate": 2}),
    "depthwise 3x3, 16x16x32": ((16, 16, 32), (3, 3, 1, 32), {}),
    "8 groups 3x3, 16x16x32": ((16, 16, 32), (3, 3, 4, 32), {}),
    "1-D 3, 256x32": ((256, 32), (3, 32, 32), {}),
    "channels first 3x3, 16x16x32": ((32, 16, 16), (3, 3, 32, 32), {"data_format": "channels_first"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="turns of each form (default 5)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="rows of the table, by name (default: all)")
    arguments = parser.parse_args()
    rows = [measure(kind, arguments.runs) for kind in arguments.kinds]
    report("convolution_in_loop", rows, runs=arguments.runs, batch=BATCH, length=LENGTH, unit="CPU ms a convolution")


def measure(kind: str, runs: int) -> dict[str, Any]:
    """Returns the row of a kind."""
    shape, kernel_shape, given = KINDS[kind]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, *shape)), "float32")
    fan_in = np.prod(kernel_shape[:-1])
    kernels = jnp.asarray(rng.normal(size=(LENGTH, *kernel_shape)) / fan_in**0.5, "float32")

    def block(x: Any, kernel: Any) -> Any:
        if not kernel_shape:
            return x + jnp.tanh(kernel * x)
        convolved: Any = ops.conv(x, kernel, padding="same", **given)
        y = jnp.tanh(convolved)
        # Keeps the shape of the data, as a loop must.
        return x + (y if y.shape == x.shape else ops.repeat(ops.repeat(y, 2, 1), 2, 2))

    def unrolled(x: Any, kernels: Any) -> Any:
        for kernel in kernels:
            x = block(x, kernel)
        return x

    def scanned(context: Callable[[], contextlib.AbstractContextManager[None]]) -> Callable[[Any, Any], Any]:
        def body(x: Any, kernel: Any) -> tuple[Any, None]:
            with context():
                return block(x, kernel), None

        return lambda x, kernels: jax.lax.scan(body, x, kernels)[0]

    def trained(form: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        step = jax.jit(jax.value_and_grad(lambda x, kernels: jnp.sum(form(x, kernels)), (0, 1)))
        return lambda: jax.block_until_ready(step(x, kernels))

    forms = {
        "stock_unrolled": trained(unrolled),
        "stock_scan": trained(scanned(contextlib.nullcontext)),
        "ours_scan": trained(scanned(canonical_convolutions)),
    }
    wanted = jax.tree.leaves(forms["stock_unrolled"]()[1])
    for name, form in forms.items():
        for one, other in zip(jax.tree.leaves(form()[1]), wanted, strict=True):
            difference = float(jnp.max(jnp.abs(one - other)) / jnp.max(jnp.abs(other)))
            if difference > 1e-4:
                raise AssertionError(f"The gradients of {name} for {kind} differ by {difference}.")
    repeats = {name: max(1, round(0.1 / timed(form, 1))) for name, form in forms.items()}
    turns = [{name: timed(form, repeats[name]) for name, form in forms.items()} for _ in range(runs)]
    row = {name: round(1000 * statistics.median(turn[name] for turn in turns) / LENGTH, 3) for name in forms}
    return (
        {"kind": kind}
        | row
        | {
            "stock/ours": round(statistics.median(turn["stock_scan"] / turn["ours_scan"] for turn in turns), 2),
            "ours/unrolled": round(statistics.median(turn["ours_scan"] / turn["stock_unrolled"] for turn in turns), 2),
        }
    )


def timed(form: Callable[[], Any], repeats: int) -> float:
    """Returns seconds of processor time a call."""
    start = time.process_time()
    for _ in range(repeats):
        form()
    return (time.process_time() - start) / repeats


if __name__ == "__main__":
    main()
