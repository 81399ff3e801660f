"""What depth costs: building, compiling, a step and memory of deep stacks, ours and those of others.

    python benchmarks/depth_cost.py                          # what two cores do in some minutes
    python benchmarks/depth_cost.py --network resnet --depths 20 110 1202 --impl scan stock

The peers of other libraries want `pip install --group bench`.

Every case runs in a process of its own, with the compilation cache off unless `--warm` is given. `trace_compile` is
tracing and compiling the gradient alone, before the first step; `compile` is the first training step less a later one,
and `compile_kernel` what the kernel takes of that, which at great depth hands out gigabytes for the first time. `temp`
is what XLA says that the compiled gradient needs beside weights and inputs. Times are wall-clock seconds and, in the
columns with `cpu`, seconds of processor time; those of a step, and of a gradient that compiles quickly, are medians.
`conv`, a stack of RevNet's blocks, is there for its memory and only compiled. What does not finish within `--limit`
seconds is a row without numbers, and so is, untried, what is deeper. Where the cases that a bound is about were
measured, it is checked, and the status is 1 where one is broken.
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

BATCH = {"resnet": 32, "conv": 32, "dense": 128, "transformer": 16}
SHAPES = {"resnet": (32, 32, 3), "conv": (32, 32, 16), "dense": (64,), "transformer": (32, 64)}
DEPTHS = {"resnet": (20, 56, 110, 302, 1202)} | dict.fromkeys(("conv", "dense", "transformer"), (10, 100, 1000))
OURS = ("scan", "unrolled", "remat", "sqrt", "reversible", "reversible_remat")
PEERS = ("stock", "flax_scan", "torch_eager", "torch_compile")
STEPS = 5
COMPILES = 3
LONG_COMPILATION = 10
"""Seconds of compiling after which a case is not compiled again."""


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
            if network == "conv" and impl in PEERS:
                continue
            for backend in arguments.backends if impl in (*OURS, "stock") else ["torch" if "torch" in impl else "jax"]:
                in_time = True
                for depth in arguments.depths or DEPTHS[network]:
                    case = {"network": network, "depth": depth, "impl": impl, "backend": backend}
                    if not in_time:
                        rows.append({**case, "cache": "cold", **dict.fromkeys(COLUMNS)})
                        continue
                    with tempfile.TemporaryDirectory() as cache:
                        switch = cache if arguments.warm else "off"
                        rows.append({**case, "cache": "cold", **in_process(case, arguments.limit, switch)})
                        if arguments.warm:
                            rows.append({**case, "cache": "warm", **in_process(case, arguments.limit, switch)})
                    in_time = rows[-1]["build"] is not None
                    print(rows[-1], file=sys.stderr)
    rows = merged(arguments.out, rows) if arguments.add else rows
    report(arguments.out, rows, batch=BATCH, steps=STEPS, limit_seconds=arguments.limit)
    broken = [line for line in bounds(rows) if line.endswith("broken")]
    print(*bounds(rows), sep="\n")
    if broken:
        sys.exit(1)


def bounds(rows: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each bound whose cases were measured."""
    found = {(r["network"], r["impl"], r["depth"], r["cache"]): r for r in rows if r["backend"] == "jax"}

    def of(column: str, network: str, impl: str, depth: int, cache: str = "cold") -> float | None:
        return found.get((network, impl, depth, cache), {}).get(column)

    def ratio(column: str, over: tuple[str, str, int], under: tuple[str, str, int]) -> float | None:
        pair = of(column, *over), of(column, *under)
        return pair[0] / pair[1] if pair[0] and pair[1] else None

    def over_stock() -> float | None:
        """Returns what compiling ResNet-1202 takes over what stock Keras would, on the line through its depths."""
        stock = [(depth, of("trace_compile_cpu", "resnet", "stock", depth)) for depth in DEPTHS["resnet"]]
        known = [(depth, seconds) for depth, seconds in stock if seconds]
        ours = of("trace_compile_cpu", "resnet", "scan", 1202)
        if len(known) < 2 or not ours:
            return None
        slope, start = statistics.linear_regression(*zip(*known, strict=True))
        return ours / (start + 1202 * slope)

    def beyond_a_step(whole: str, part: str) -> float | None:
        """Returns a column of the warm first step less another one."""
        pair = [of(column, "resnet", "scan", 1202, "warm") for column in (whole, part)]
        return None if pair[0] is None or pair[1] is None else pair[0] - pair[1]

    scanned = "resnet", "scan"
    checks = [
        ("compiling ResNet-1202 / ResNet-20", ratio("trace_compile_cpu", (*scanned, 1202), (*scanned, 20)), 1.15),
        ("compiling ResNet-1202 / stock Keras's, extrapolated", over_stock(), 1 / 20),
        ("seconds to build ResNet-1202", of("build", *scanned, 1202), 2.0),
        (
            "seconds of a first step with a warm cache beyond a step, ResNet-1202",
            beyond_a_step("first", "step"),
            2.0,
        ),
        (
            "processor seconds of it that are not the kernel's",
            beyond_a_step("compile_cpu", "compile_kernel"),
            2.0,
        ),
        ("step scanned / unrolled at 110", ratio("step_cpu", (*scanned, 110), ("resnet", "unrolled", 110)), 1.05),
        ("step scanned / stock at 110", ratio("step_cpu", (*scanned, 110), ("resnet", "stock", 110)), 1 / 1.8),
    ]
    for kind in BATCH:
        deep = {impl: (kind, impl, 1000) for impl in OURS}
        # One block's own work is what the reversible stack needs: next to streams, most in a small Dense block.
        bound = 1 / 100 if kind == "conv" else 1 / 60
        # Of a Dense block two tensors are kept, so that of a thousand blocks the least that groups can keep is 1/31.
        of_none = 1 / 15 if kind == "dense" else 1 / 50
        checks += [
            (
                f"memory of a reversible {kind} stack, 1000 / 10 blocks",
                ratio("temp_mb", deep["reversible"], (kind, "reversible", 10)),
                1.05,
            ),
            (
                f"memory of a reversible {kind} stack of 1000 / the same with remat",
                ratio("temp_mb", deep["reversible"], deep["reversible_remat"]),
                bound,
            ),
            (f"memory of {kind} at 1000, sqrt / none", ratio("temp_mb", deep["sqrt"], deep["scan"]), of_none),
        ]
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
    "compile_kernel",
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
    (build, build_cpu, _), (step, params, compiled) = timed(lambda: make(network, depth, impl, x, y))
    # Before the first step, since what is compiled after many gigabytes were handed out and given back takes longer.
    of_compilation = compiled() if compiled else (None, None, None)
    of_steps: tuple[Any, ...] = (None,) * 7
    if network != "conv":
        (first, first_cpu, first_kernel), _ = timed(step)
        rest = [timed(step)[0] for _ in range(STEPS)]
        wall, cpu, kernel = (statistics.median(column) for column in zip(*rest, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        of_steps = (first, first_cpu, wall, cpu, first_cpu - cpu, first_kernel - kernel, peak)
    values = (params, build, build_cpu, *of_steps, *of_compilation)
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


def timed(function: Callable[[], Any]) -> tuple[tuple[float, float, float], Any]:
    """Returns seconds on the wall, of the processor, and those of them in the kernel; and the result."""
    wall, cpu, kernel = time.perf_counter(), time.process_time(), os.times().system
    result = function()
    return (time.perf_counter() - wall, time.process_time() - cpu, os.times().system - kernel), result


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
        "reversible_remat": {"execution": "scan", "remat": "full"},
    }[impl]
    topology = "reversible" if impl.startswith("reversible") else "single"
    inputs = keras.Input(SHAPES[network])
    if network == "resnet":
        if topology == "single":
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
    norm = "batch_norm" if network == "conv" else "layer_norm"
    blocks = [kr.Residual(branch, norm=norm) for branch in branches(network)]
    x = kr.ResidualStack(blocks, depth, topology=topology, **choice)(inputs)
    x = pooled(network, x)
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

    if network == "conv":
        return [conv_branch(16), conv_branch(16)]  # RevNet's F and G
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
            skip, x = x, (layers.BatchNormalization if network == "conv" else layers.LayerNormalization)()(x)
            for layer in branch:
                x = layer(x, x) if isinstance(layer, layers.MultiHeadAttention) else layer(x)
            x = layers.Add()([skip, x])
    return keras.Model(inputs, layers.Dense(10)(pooled(network, x)))


def pooled(network: str, x: Any) -> Any:
    from keras import layers

    pools = {"conv": layers.GlobalAveragePooling2D, "transformer": layers.GlobalAveragePooling1D}
    return pools[network]()(x) if network in pools else x


def compiled_gradient(model: Any, x: Any, y: Any) -> tuple[float, float, float]:
    """Returns what tracing and compiling the gradient takes, and the megabytes it needs beside weights and inputs."""
    import jax

    trained = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]

    def loss(trained: Any, state: Any, x: Any, y: Any) -> Any:
        logits, state = model.stateless_call(trained, state, x, training=True)
        return model.loss(y, logits), state

    found: list[tuple[float, float, float]] = []
    memory = 0.0
    while len(found) < COMPILES and sum(wall for wall, *_ in found) < LONG_COMPILATION:
        program = jax.jit(jax.grad(lambda *given: loss(*given), has_aux=True))  # another one, that nothing is known of
        seconds, compiled = timed(lambda program=program: program.lower(trained, state, x, y).compile())
        found.append(seconds)
        memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
        if os.environ["KERAS_RESIDUAL_COMPILATION_CACHE"] != "off":
            break  # the next one would be found in the cache
    wall, cpu, _ = (statistics.median(column) for column in zip(*found, strict=True))
    return wall, cpu, memory


if __name__ == "__main__":
    main()
