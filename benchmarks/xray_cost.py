"""What an X-ray costs: of ResNet-50 beside a training step, and of stacks of a thousand blocks from a cold start.

    python benchmarks/xray_cost.py
    python benchmarks/xray_cost.py --backends torch --networks resnet50 --runs 5

Each case has a process of its own. For ResNet-50, at 224 × 224 with batches of 8, the X-ray (with targets and a loss)
and a training step take turns on one core. `first` is the first of each, with tracing and compilation; `xray_ms` and
`step_ms` are medians of the later ones, and `ratio` is the median of the ratios of neighbours, all of the processor's
time. What a user does who looks again after some training is a later one: the weights have changed, and nothing is
compiled anew.

A stack is built, X-rayed for the first time and its report printed, on two cores and without a compilation cache:
`total_s` is all that on the wall, with the start of Python and the imports, and `cpu_s` the processor's part; the row
has the medians over some processes.

Ends with status 1 where a ratio or a total is over its bound.
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
from typing import Any

import _networks as networks

STACKS = ("dense", "transformer")
RATIO, SECONDS = 3.0, 30.0
BATCH, BLOCKS = 8, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=networks.BACKENDS, choices=networks.BACKENDS)
    parser.add_argument("--networks", nargs="+", default=["resnet50", *STACKS], choices=["resnet50", *STACKS])
    parser.add_argument("--runs", type=int, default=7, help="turns of X-ray and step (default 7)")
    parser.add_argument("--cold", type=int, default=3, help="processes for each stack (default 3)")
    parser.add_argument("--core", type=int, default=0, help="the core that ResNet-50 runs on (default 0)")
    parser.add_argument("--out", default="xray_cost", help="name of the files of results")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        case = json.loads(arguments.here)
        print(json.dumps(beside_a_step(**case) if case["network"] == "resnet50" else of_a_stack(**case)))
        return
    from _report import report

    ratios, totals = [], []
    for network in arguments.networks:
        for backend in arguments.backends:
            case = {"network": network, "backend": backend}
            if network == "resnet50":
                ratios.append(in_process({**case, "runs": arguments.runs, "core": arguments.core}))
                report(
                    arguments.out, ratios, runs=arguments.runs, batch=BATCH, size=networks.SIZE, cores=1, bound=RATIO
                )
            else:
                totals.append(median_row([in_process(case) for _ in range(arguments.cold)]))
                report(f"{arguments.out}_stacks", totals, runs=arguments.cold, blocks=BLOCKS, bound_seconds=SECONDS)
    broken = [row for row in ratios if row["ratio"] > RATIO] + [row for row in totals if row["total_s"] > SECONDS]
    for row in broken:
        print(f"over the bound: {row}")
    if broken:
        sys.exit(1)


def in_process(case: dict[str, Any]) -> dict[str, Any]:
    """Returns the row of a case, measured by this script in a fresh process."""
    environment = {
        "KERAS_BACKEND": case["backend"],
        "KERAS_RESIDUAL_COMPILATION_CACHE": "off",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **networks.ALLOCATOR,
    }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--here", json.dumps(case)],
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    row = json.loads(done.stdout.splitlines()[-1])
    if "total_s" in row:
        row["total_s"] = time.perf_counter() - start
    print(row, file=sys.stderr)
    return row


def median_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the medians of the columns that hold numbers."""
    return {
        key: statistics.median(row[key] for row in rows) if isinstance(value, float) else value
        for key, value in rows[0].items()
    }


def beside_a_step(network: str, backend: str, runs: int, core: int) -> dict[str, Any]:
    """Returns what X-ray and training step of a network cost, first and later ones."""
    os.sched_setaffinity(0, {core})
    import keras

    import keras_residual as kr

    x, y = networks.pictures(BATCH)
    model = networks.keras_model("ours", network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    calls: dict[str, Callable[[], Any]] = {
        "xray": kr.Xray(model, x, y).report,
        "step": lambda: model.train_on_batch(x, y),
    }
    first = {name: timed(call) for name, call in calls.items()}
    for call in calls.values():
        call()
    turns = []
    for index in range(runs):
        # Who is first alternates, so that what grows within a turn falls on both.
        found = {name: timed(calls[name]) for name in (list(calls) if index % 2 else reversed(calls))}
        turns.append((*found["xray"], *found["step"]))
    xray_wall, xray_cpu, step_wall, step_cpu = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "network": network,
        "backend": backend,
        "first_xray_s": round(first["xray"][1], 2),
        "first_step_s": round(first["step"][1], 2),
        "xray_ms": round(1000 * xray_cpu, 1),
        "step_ms": round(1000 * step_cpu, 1),
        "ratio": round(statistics.median(turn[1] / turn[3] for turn in turns), 3),
        "xray_wall": round(1000 * xray_wall, 1),
        "step_wall": round(1000 * step_wall, 1),
    }


def of_a_stack(network: str, backend: str) -> dict[str, Any]:
    """Returns what it takes to import, build and X-ray a stack; the whole, on the wall, is left to who waits."""
    (imports, _), _ = timed_result(lambda: (__import__("keras"), __import__("keras_residual")))
    import depth_cost
    import numpy as np

    import keras_residual as kr

    x = np.random.default_rng(0).normal(size=(depth_cost.BATCH[network], *depth_cost.SHAPES[network]))
    (build, _), model = timed_result(lambda: depth_cost.our_model(network, BLOCKS, "scan"))
    (seconds, _), report = timed_result(lambda: kr.xray(model, x.astype("float32")))
    print(report)
    return {
        "network": network,
        "backend": backend,
        "blocks": len(report.blocks),
        "import_s": round(imports, 2),
        "build_s": round(build, 2),
        "xray_s": round(seconds, 2),
        "total_s": 0.0,
        "cpu_s": round(time.process_time(), 2),
    }


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Returns seconds on the wall and of the processor."""
    return timed_result(call)[0]


def timed_result(call: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Returns seconds on the wall and of the processor, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


if __name__ == "__main__":
    main()
