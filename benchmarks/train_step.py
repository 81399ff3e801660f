"""What a training step costs, ours and others: milliseconds of the processor on one core.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --backends torch --networks resnet18 --batches 32

A step is `train_on_batch` with cross-entropy and SGD with momentum, compiled as Keras does by default; for timm it is
written by hand. KerasHub is left out where it is not installed. `ours_over_it` is the median of the ratios of steps
that followed one another. ResNet-50 gets batches of at most 8, since a step of 32 takes tens of seconds on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import _networks as networks

MOST = {"resnet18": 32, "resnet50": 8, "keras_resnet50": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=networks.BACKENDS, choices=networks.BACKENDS)
    parser.add_argument("--networks", nargs="+", default=networks.NETWORKS, choices=networks.NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--runs", type=int, default=7, help="steps of each (default 7)")
    parser.add_argument("--core", type=int, default=0, help="the core that all run on (default 0)")
    parser.add_argument("--limit", type=float, default=900, help="seconds of a peer's process (default 900)")
    parser.add_argument("--out", default="train_step", help="name of the file of results")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        networks.answer(json.loads(arguments.here), work, warm_up=2)
        return
    from _report import report

    rows: list[dict[str, Any]] = []
    for backend in arguments.backends:
        for network in arguments.networks:
            for batch in dict.fromkeys(min(batch, MOST[network]) for batch in arguments.batches):
                chosen: dict[str, Any] = {"batch": batch, "runs": arguments.runs, "core": arguments.core}
                rows += networks.compared(__file__, network, backend, limit=arguments.limit, **chosen)
                report(arguments.out, rows, runs=arguments.runs, cores=1)


def work(peer: str, network: str, batch: int) -> Callable[[], Any]:
    """Returns the step that is timed."""
    x, y = networks.pictures(batch)
    if peer == "timm":
        return _torch_step(networks.timm_model(network).train(), x, y)
    import keras

    model = networks.keras_model(peer, network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return lambda: model.train_on_batch(x, y)


def _torch_step(model: Any, x: Any, y: Any) -> Callable[[], Any]:
    import torch

    maps, classes = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(maps), classes)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    main()
