"""How much slower `fit` is with `kr.XrayCallback` at its default cadence: on one core, taking turns with `fit` alone.

    python benchmarks/xray_callback.py
    python benchmarks/xray_callback.py --backends torch --networks dense --turns 3

Both models live in one process a backend, with equal weights, batches and steps. The callback writes JSON lines and
event files. A turn is one `fit` of each, who is first alternates, and `ratio` is the median of the ratios of the time
on the wall, so nothing else may run beside it. `cpu_ratio` is that of the processor's seconds, which for a process of
TensorFlow differ by a third between equal fits whose time on the wall is the same. `alone_spread` is by how much the
slowest fit without the callback was over the fastest. `first_s` is what the first X-ray took, which compiles its
program before the turns begin; `first_fit_s` is the length of a training in which that is within the bound too. Ends
with status 1 where a ratio is over the bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

BOUND = 1.05
BACKENDS = ("torch", "jax", "tensorflow")
BATCH = {"dense": 128, "conv": 8}
LEAST_STEPS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--networks", nargs="+", default=list(BATCH), choices=list(BATCH))
    parser.add_argument("--turns", type=int, default=5, help="fits of each (default 5)")
    parser.add_argument("--seconds", type=float, default=8, help=f"length of a fit, of {LEAST_STEPS} steps or more")
    parser.add_argument("--core", type=int, default=0, help="the core that all run on (default 0)")
    parser.add_argument("--out", default="xray_callback", help="name of the file of results")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(**json.loads(arguments.here))))
        return
    from _report import report

    rows: list[dict[str, Any]] = []
    for backend in arguments.backends:
        for network in arguments.networks:
            case = {"network": network, "turns": arguments.turns, "seconds": arguments.seconds, "core": arguments.core}
            rows.append({"backend": backend, **in_process_of(backend, case)})
            report(arguments.out, rows, turns=arguments.turns, batch=BATCH, bound=BOUND, cores=1)
    if any(row["ratio"] > BOUND for row in rows):
        sys.exit(f"`fit` with the callback takes more than {BOUND} times the time of `fit` alone.")


def in_process_of(backend: str, case: dict[str, Any]) -> dict[str, Any]:
    """Returns the row of a case, measured by this script in a fresh process."""
    environment = {
        "KERAS_BACKEND": backend,
        "KERAS_RESIDUAL_COMPILATION_CACHE": "off",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--here", json.dumps(case)],
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def model_of(network: str) -> keras.Model:
    """Returns a compiled network: 16 residual blocks of two Dense layers, or ResNet-20 for pictures of 32 pixels."""
    import keras
    from keras import layers

    import keras_residual as kr

    keras.utils.set_random_seed(0)
    if network == "conv":
        model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10)
    else:
        x = inputs = keras.Input((64,))
        x = layers.Dense(128)(x)
        for _ in range(16):
            x = kr.Residual([layers.Dense(256, activation="relu"), layers.Dense(128)], norm="layer_norm")(x)
        model = keras.Model(inputs, layers.Dense(10)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    return model


def measure(network: str, turns: int, seconds: float, core: int) -> dict[str, Any]:
    """Returns what the fits of both took."""
    os.sched_setaffinity(0, {core})
    import numpy as np

    import keras_residual as kr

    rng = np.random.default_rng(0)
    shape, batch = ((32, 32, 3) if network == "conv" else (64,)), BATCH[network]
    x, y = rng.normal(size=(4 * batch, *shape)).astype("float32"), rng.integers(10, size=4 * batch)
    alone, watched = model_of(network), model_of(network)

    def fit(model: Any, steps: int, callbacks: list[Any]) -> tuple[float, float]:
        """Returns seconds of the processor and on the wall."""
        # One epoch: TensorFlow ends an epoch by waiting for its threads, by more than a step and not always the same.
        rows = np.arange(steps * batch) % len(x)
        many_x, many_y = x[rows], y[rows]
        cpu, wall = time.process_time(), time.perf_counter()
        model.fit(many_x, many_y, batch_size=batch, shuffle=False, verbose=0, callbacks=callbacks)
        return time.process_time() - cpu, time.perf_counter() - wall

    for model in (alone, watched):
        fit(model, 8, [])
    step = fit(alone, 40, [])[1] / 40
    steps = max(LEAST_STEPS, round(seconds / step))
    with tempfile.TemporaryDirectory() as folder:
        callback = kr.XrayCallback(x[:batch], y[:batch], log_dir=folder, verbose=0)
        before = time.perf_counter()
        fit(watched, 4, [callback])
        first = time.perf_counter() - before
        fit(alone, 4, [])
        taken = len(callback.reports)
        both = []
        for turn in range(turns):
            order = [(alone, []), (watched, [callback])]
            found = [fit(model, steps, callbacks) for model, callbacks in (order if turn % 2 else order[::-1])]
            both.append(found if turn % 2 else found[::-1])
        taken = (len(callback.reports) - taken) / turns
    cpu, wall = ([ours[clock] / theirs[clock] for theirs, ours in both] for clock in (0, 1))
    without = [theirs[1] for theirs, _ in both]
    ratio = statistics.median(wall)
    return {
        "network": network,
        "steps": steps,
        "step_ms": round(1000 * statistics.median(without) / steps, 2),
        "xrays": round(taken, 1),
        "xray_steps": round((ratio - 1) * steps / taken, 2),
        "ratio": round(ratio, 4),
        "cpu_ratio": round(statistics.median(cpu), 4),
        "alone_spread": round(max(without) / min(without) - 1, 4),
        "first_s": round(first, 2),
        "first_fit_s": round(first / (BOUND - 1)),
    }


if __name__ == "__main__":
    main()
