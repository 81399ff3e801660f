"""What building a network costs, ours and others: seconds of the processor on one core, in a fresh process each.

    python benchmarks/build.py
    python benchmarks/build.py --backends jax --networks resnet50

`build` is the model with new weights, and `loaded` is that and then all weights set from arrays. The backend has been
imported and has computed something before. On JAX ResNet-50 must take at most a tenth of `keras.applications.ResNet50`;
the status is 1 where it does not. KerasHub is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import _networks as networks

BOUND = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=networks.BACKENDS, choices=networks.BACKENDS)
    parser.add_argument("--networks", nargs="+", default=networks.NETWORKS, choices=networks.NETWORKS)
    parser.add_argument("--runs", type=int, default=3, help="processes a case (default 3)")
    parser.add_argument("--core", type=int, default=0, help="the core that all run on (default 0)")
    parser.add_argument("--out", default="build", help="name of the file of results")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(**json.loads(arguments.here))))
        return
    from _report import report

    rows: list[dict[str, Any]] = []
    for backend in arguments.backends:
        for network in arguments.networks:
            cases = [
                {"peer": peer, "network": network, "backend": backend, "core": arguments.core}
                for peer in networks.peers(network, backend)
            ]
            found = [[in_process(case) for case in cases] for _ in range(arguments.runs)]
            for case, runs in zip(cases, zip(*found, strict=True), strict=True):
                times = [run for run in runs if run]
                if times:
                    medians = {key: round(statistics.median(run[key] for run in times), 3) for key in times[0]}
                    rows.append({"network": network, "backend": backend, "peer": case["peer"], **medians})
    report(arguments.out, rows, runs=arguments.runs, cores=1)
    on_jax = {row["peer"]: row for row in rows if (row["network"], row["backend"]) == ("resnet50", "jax")}
    if {"ours", "keras_applications"} <= set(on_jax):
        stock = on_jax["keras_applications"]["build"]
        ratios = {key: on_jax["ours"][key] / stock for key in ("build", "loaded")}
        for key, ratio in ratios.items():
            print(f"{key} of ResNet-50 on JAX / build of Keras's: {ratio:.3f} (bound {BOUND})")
        if max(ratios.values()) > BOUND:
            sys.exit(1)


def in_process(case: dict[str, Any]) -> dict[str, float] | None:
    """Returns what `measure` finds in a fresh process, or None where the peer is absent or fails."""
    environment = {
        "KERAS_BACKEND": case["backend"],
        "KERAS_RESIDUAL_COMPILATION_CACHE": "off",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, "--here", json.dumps(case)]
    done = subprocess.run(command, env=os.environ | environment, text=True, stdout=subprocess.PIPE, check=False)
    print(f"{case}: {done.stdout.splitlines()[-1] if not done.returncode else 'absent or failed'}", file=sys.stderr)
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def measure(peer: str, network: str, backend: str, core: int) -> dict[str, float]:
    """Returns the seconds of one case."""
    del backend
    os.sched_setaffinity(0, {core})
    if peer == "timm":
        import torch

        torch.ones(2).sum()
        networks.timm_model("resnet10t")  # imports
        before = time.process_time()
        model = networks.timm_model(network)
        built = time.process_time() - before
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        before = time.process_time()
        model.load_state_dict(weights)
        return {"build": built, "loaded": built + time.process_time() - before}
    import keras
    import numpy as np

    keras.ops.convert_to_numpy(keras.ops.ones(2) + 1)
    # Keras's serialisation imports TensorFlow wherever it is installed.
    keras.saving.serialize_keras_object(keras.layers.Dense(1))
    if peer == "ours":
        import keras_residual  # noqa: F401
    elif peer == "keras_hub":
        import keras_hub  # noqa: F401 # pyright: ignore
    before = time.process_time()
    model = networks.keras_model(peer, network)
    built = time.process_time() - before
    weights = [np.zeros(variable.shape, "float32") for variable in model.weights]
    before = time.process_time()
    model.set_weights(weights)
    return {"build": built, "loaded": built + time.process_time() - before}


if __name__ == "__main__":
    main()
