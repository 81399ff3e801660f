"""What classifying a batch costs, ours and others: milliseconds of the processor on one core.

    python benchmarks/inference.py
    python benchmarks/inference.py --backends torch --networks resnet50 --batches 1 --runs 31

KerasHub is left out where it is not installed. On PyTorch a model is called without gradients; on JAX and TensorFlow
it is `predict_on_batch`, compiled as Keras does by default. `ours_over_it` is the median of the ratios of runs that
followed one another. keras.applications has ResNet-50 in its first form, whose strides lie in the 1×1 convolutions, and
which takes 6 % fewer multiplications: `keras_resnet50` is that net, of ours and of theirs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import _networks as networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=networks.BACKENDS, choices=networks.BACKENDS)
    parser.add_argument("--networks", nargs="+", default=networks.NETWORKS, choices=networks.NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--runs", type=int, default=15, help="times that each is asked for one picture (default 15)")
    parser.add_argument("--runs-of-batches", type=int, default=5, help="the same for more than one (default 5)")
    parser.add_argument("--core", type=int, default=0, help="the core that all run on (default 0)")
    parser.add_argument("--limit", type=float, default=600, help="seconds of a peer's process (default 600)")
    parser.add_argument("--out", default="inference", help="name of the file of results")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        networks.answer(json.loads(arguments.here), work)
        return
    from _report import report

    rows: list[dict[str, Any]] = []
    for backend in arguments.backends:
        for network in arguments.networks:
            for batch in arguments.batches:
                runs = arguments.runs if batch == 1 else arguments.runs_of_batches
                chosen: dict[str, Any] = {"batch": batch, "runs": runs, "core": arguments.core}
                rows += networks.compared(__file__, network, backend, limit=arguments.limit, **chosen)
                report(arguments.out, rows, runs=arguments.runs, runs_of_batches=arguments.runs_of_batches, cores=1)


def work(peer: str, network: str, batch: int) -> Callable[[], Any]:
    """Returns the call that is timed."""
    x, _ = networks.pictures(batch)
    if peer == "timm":
        import torch

        model = networks.timm_model(network).eval()
        maps = torch.from_numpy(x).permute(0, 3, 1, 2)
        return torch.no_grad()(lambda: model(maps))
    import keras

    model = networks.keras_model(peer, network)
    if keras.backend.backend() != "torch":
        return lambda: model.predict_on_batch(x)
    import torch

    given = torch.from_numpy(x)
    return torch.no_grad()(lambda: model(given, training=False))


if __name__ == "__main__":
    main()
