"""What depth costs: building, compiling, a step and memory of deep stacks, ours and those of others.

    python benchmarks/depth_cost.py                          # what two cores do in some minutes
    python benchmarks/depth_cost.py --network resnet --depths 20 110 1202 --impl scan stock

The peers of other libraries want `pip install --group bench`.

Every case runs in a process of its own, with the compilation cache off unless `--warm` is given. `compile` is the
first training step less a later one, which at great depth includes that the system hands out the memory for the first
time; `trace_compile` is tracing and compiling the gradient alone. `temp` is what XLA says that the compiled gradient
needs beside weights and inputs. Times are wall-clock seconds and, in the columns with `cpu`, seconds of processor
time; a step's are medians. What does not finish within `--limit` seconds is a row without numbers. Where the cases
that a bound is about were measured, it is checked, and the status is 1 where one is broken.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

BATCH = {"resnet": 32, "dense": 128, "transformer": 16}
SHAPES = {"resnet": (32, 32, 3), "dense": (64,), "transformer": (32, 64)}
DEPTHS = {"resnet": (20, 56, 110, 302, 1202), "dense": (10, 100, 1000), "transformer": (10, 100, 1000)}
OURS = ("scan", "unrolled", "remat", "sqrt", "reversible")
PEERS = ("stock", "flax_scan", "torch_eager", "torch_compile")
STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=list(DEPTHS), choices=list(DEPTHS))
    parser.add_argument("--depths", nargs="+", type=int, help="layers of a ResNet (6n + 2), blocks of the others")
    parser.add_argument("--impl", nargs="+", default=["scan", "unrolled", "stock"], choices=[*OURS, *PEERS])
    parser.add_argument("--backends", nargs="+", default=["jax"], choices=["jax", "torch", "tensorflow"])
    parser.add_argument("--limit", type=float, default=300, help="seconds for a case (default 300)")
    parser.add_argument("--warm", action="store_true", help="add rows that start with a filled compilation cache")
    parser.add_argument("--out", default="depth_cost", help="name of the file of results")
    parser.add_argument("--add", action="store_true", help="keep the rows of other cases that the file has")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(**json.loads(arguments.here))))
        return
    from _report import report

    rows: list[dict[str, Any]] = []
    for network in arguments.network:
        for impl in arguments.impl:
            for backend in arguments.backends if impl in (*OURS, "stock") else ["torch" if "torch" in impl else "jax"]:
                for depth in arguments.depths or DEPTHS[network]:
                    case = {"network": network, "depth": depth, "impl": impl, "backend": backend}
                    with tempfile.TemporaryDirectory() as cache:
                        switch = cache if arguments.warm else "off"
                        rows.append({**case, "cache": "cold", **in_process(case, arguments.limit, switch)})
                        if arguments.warm:
                            rows.append({**case, "cache": "warm", **in_process(case, arguments.limit, switch)})
                    print(rows[-1], file=sys.stderr)
    rows = merged(arguments.out, rows) if arguments.add else rows
    report(arguments.out, rows, batch=BATCH, steps=STEPS, limit_seconds=arguments.limit)
    broken = [line for line in bounds(rows) if line.endswith("broken")]
    print(*bounds(rows), sep="\n")
    if broken:
        sys.exit(1)


def bounds(rows: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each bound whose cases were measured."""
    found = {(r["network"], r["impl"], r["depth"], r["cache"]): r for r in rows if r["backend"] == "jax" and r["step"]}

    def ratio(column: str, over: tuple[str, str, int], under: tuple[str, str, int]) -> float | None:
        pair = [found.get((*case, "cold"), {}).get(column) for case in (over, under)]
        return pair[0] / pair[1] if pair[0] and pair[1] else None

    checks = [
        (
            "compile of ResNet-1202 / ResNet-20",
            ratio("trace_compile_cpu", ("resnet", "scan", 1202), ("resnet", "scan", 20)),
            1.15,
        ),
        (
            "step scanned / unrolled at 110",
            ratio("step_cpu", ("resnet", "scan", 110), ("resnet", "unrolled", 110)),
            1.05,
        ),
        ("step scanned / stock at 110", ratio("step_cpu", ("resnet", "scan", 110), ("resnet", "stock", 110)), 1 / 1.8),
    ]
    for kind in ("dense", "transformer"):
        wide = (kind, "reversible", 1000)
        checks += [
            (f"memory of reversible {kind}, 1000 / 10 blocks", ratio("temp_mb", wide, (kind, "reversible", 10)), 1.05),
            (f"memory of {kind} at 1000, reversible / remat", ratio("temp_mb", wide, (kind, "remat", 1000)), 0.01),
            (
                f"memory of {kind} at 1000, sqrt / none",
                ratio("temp_mb", (kind, "sqrt", 1000), (kind, "scan", 1000)),
                0.02,
            ),
        ]
    built = found.get(("resnet", "scan", 1202, "cold"))
    checks.append(("seconds to build ResNet-1202", built["build"] if built else None, 2.0))
    return [
        f"{name}: {value:.3g} (bound {bound:.3g}) {'kept' if value <= bound else 'broken'}"
        for name, value, bound in checks
        if value is not None
    ]


def merged(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows and, before them, those of other cases that the file of results has from the same versions."""
    from _report import RESULTS, hardware, versions

    path = RESULTS / f"{name}.json"
    if not path.exists():
        return rows
    kept = json.loads(path.read_text())
    if (kept["versions"], kept["hardware"]) != (versions(), hardware()):
        raise SystemExit(f"{path} is of other versions or other hardware. Leave --add out, or choose another --out.")
    case = operator.itemgetter("network", "depth", "impl", "backend", "cache")
    measured = {case(row) for row in rows}
    return [row for row in kept["rows"] if case(row) not in measured] + rows


def in_process(case: dict[str, Any], limit: float, cache: str) -> dict[str, Any]:
    """Returns what `measure` finds in a fresh process, or Nones where it takes too long or fails."""
    environment = {
        "KERAS_BACKEND": case["backend"],
        "KERAS_RESIDUAL_COMPILATION_CACHE": cache,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, __file__, "--here", json.dumps(case)]
    try:
        done = subprocess.run(
            command, env=os.environ | environment, text=True, stdout=subprocess.PIPE, timeout=limit, check=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        print(f"{case}: {type(error).__name__}", file=sys.stderr)
        return dict.fromkeys(COLUMNS)
    return json.loads(done.stdout.splitlines()[-1])


COLUMNS = (
    "params",
    "build",
    "build_cpu",
    "first",
    "first_cpu",
    "step",
    "step_cpu",
    "compile_cpu",
    "peak_mb",
    "trace_compile",
    "trace_compile_cpu",
    "temp_mb",
)


def measure(network: str, depth: int, impl: str, backend: str) -> dict[str, Any]:
    """Returns the row of one case."""
    del backend
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH[network], *SHAPES[network])).astype("float32")
    y = rng.integers(10, size=BATCH[network])
    prepare(impl)
    make = keras_program
    if impl in PEERS[1:]:
        from _depth_peers import flax_program, torch_program

        make = flax_program if impl == "flax_scan" else torch_program
    (build, build_cpu), (step, params, compiled) = timed(lambda: make(network, depth, impl, x, y))
    (first, first_cpu), _ = timed(step)
    rest = [timed(step)[0] for _ in range(STEPS)]
    wall, cpu = (statistics.median(column) for column in zip(*rest, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    values = (params, build, build_cpu, first, first_cpu, wall, cpu, first_cpu - cpu, peak)
    values += compiled() if compiled else (None, None, None)
    return dict(zip(COLUMNS, values, strict=True))


def prepare(impl: str) -> None:
    """Imports what a case needs and starts its compiler, which no case is charged for."""
    if "torch" in impl:
        import torch

        torch.ones(2).sum()
        return
    import keras

    keras.ops.convert_to_numpy(keras.ops.ones(2) + 1)
    # Keras's serialisation imports TensorFlow wherever it is installed.
    keras.saving.serialize_keras_object(keras.layers.Dense(1))


def timed(function: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Returns seconds on the wall and of the processor, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


# --- Keras: ours, and written by hand --------------------------------------------------------------------------------


def keras_program(network: str, depth: int, impl: str, x: Any, y: Any) -> tuple[Any, int, Any]:
    """Returns the training step, the number of weights, and what measures its compilation."""
    import keras

    sys.setrecursionlimit(100_000)  # stock Keras walks its graph recursively
    model = stock_model(network, depth) if impl == "stock" else our_model(network, depth, impl)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)

    def step() -> Any:
        return model.train_on_batch(x, y)

    on_jax = keras.backend.backend() == "jax"
    return step, model.count_params(), (lambda: compiled_gradient(model, x, y)) if on_jax else None


def our_model(network: str, depth: int, impl: str) -> Any:
    import keras

    import keras_residual as kr

    choice: dict[str, Any] = {
        "scan": {"execution": "scan"},
        "unrolled": {"execution": "unrolled"},
        "remat": {"execution": "scan", "remat": "full"},
        "sqrt": {"execution": "scan", "remat": "sqrt"},
        "reversible": {"execution": "scan"},
    }[impl]
    topology = "reversible" if impl == "reversible" else "single"
    inputs = keras.Input(SHAPES[network])
    if network == "resnet":
        if impl != "reversible":
            return kr.create_model(f"cifar_resnet{depth}", input_shape=SHAPES[network], num_classes=10, **choice)
        x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
        for stage in range(3):
            filters = 16 * 2**stage
            if stage:
                x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
            block = kr.Residual(conv_branch(filters), norm="batch_norm")
            x = kr.ResidualStack(block, (depth - 2) // 6, topology=topology, **choice)(x)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
        return keras.Model(inputs, keras.layers.Dense(10)(x))
    blocks = [kr.Residual(branch, norm="layer_norm") for branch in branches(network)]
    x = kr.ResidualStack(blocks, depth, topology=topology, **choice)(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x) if network == "transformer" else x
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def conv_branch(filters: int) -> list[Any]:
    from keras import layers

    return [
        layers.ReLU(),
        layers.Conv2D(filters, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(filters, 3, padding="same", use_bias=False),
    ]


def branches(network: str) -> list[list[Any]]:
    from keras import layers

    if network == "dense":
        return [[layers.Dense(64, activation="relu"), layers.Dense(64)]]
    return [[layers.MultiHeadAttention(4, 16)], [layers.Dense(128, activation="gelu"), layers.Dense(64)]]


def stock_model(network: str, depth: int) -> Any:
    import keras
    from keras import layers

    inputs = keras.Input(SHAPES[network])
    if network == "resnet":
        x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        for stage in range(3):
            for block in range((depth - 2) // 6):
                filters, strides = 16 * 2**stage, 2 if stage and not block else 1
                skip = x if strides == 1 else layers.Conv2D(filters, 1, strides=2, use_bias=False)(x)
                x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
                x = layers.ReLU()(layers.BatchNormalization()(x))
                x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
                x = layers.ReLU()(layers.Add()([skip, layers.BatchNormalization()(x)]))
        return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    x = inputs
    for _ in range(depth):
        for branch in branches(network):
            skip, x = x, layers.LayerNormalization()(x)
            for layer in branch:
                x = layer(x, x) if isinstance(layer, layers.MultiHeadAttention) else layer(x)
            x = layers.Add()([skip, x])
    x = layers.GlobalAveragePooling1D()(x) if network == "transformer" else x
    return keras.Model(inputs, layers.Dense(10)(x))


def compiled_gradient(model: Any, x: Any, y: Any) -> tuple[float, float, float]:
    """Returns what tracing and compiling the gradient takes, and the megabytes it needs beside weights and inputs."""
    import jax

    trained = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]

    def loss(trained: Any, state: Any, x: Any, y: Any) -> Any:
        logits, state = model.stateless_call(trained, state, x, training=True)
        return model.loss(y, logits), state

    program = jax.jit(jax.grad(loss, has_aux=True))
    (wall, cpu), compiled = timed(lambda: program.lower(trained, state, x, y).compile())
    return wall, cpu, compiled.memory_analysis().temp_size_in_bytes / 2**20


if __name__ == "__main__":
    main()
