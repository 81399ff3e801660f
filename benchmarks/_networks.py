"""ResNets of this library and of others, each in a process of its own that does one thing when it is asked to.

The processes of one comparison wait for their turn, so that each peer runs right after the others and a change of the
machine's pace meets all of them. What counts is the time of the processor, on one core.

All run with the same thresholds of the allocator. By default glibc moves them by what a process happened to free
before, and one that never freed a large array returns its pages after each call and faults them in again for the next:
ResNet-18 on JAX then takes 9 ms of the system's time a picture, whoever built it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BACKENDS = ("torch", "jax", "tensorflow")
NETWORKS = ("resnet18", "resnet50", "keras_resnet50")
PEERS = ("ours", "keras_applications", "keras_hub", "timm")
SIZE, CLASSES = 224, 1000
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


def peers(network: str, backend: str) -> list[str]:
    """Returns who has a network on a backend."""
    if network == "keras_resnet50":  # the net of keras.applications under our name for it
        return ["ours", "keras_applications"]
    without = set() if backend == "torch" else {"timm"}
    without |= set() if network == "resnet50" else {"keras_applications"}
    return [peer for peer in PEERS if peer not in without]


def compared(
    script: str, network: str, backend: str, *, batch: int, runs: int, core: int, limit: float
) -> list[dict[str, Any]]:
    """Returns a row a peer: the median of the processor's seconds, and the ratio of ours to it.

    Args:
        script: File whose `work` says what is timed.
        network: A name of `NETWORKS`.
        backend: Keras's backend.
        batch: Number of pictures.
        runs: Number of times that each peer is asked.
        core: The core that all run on, one after another.
        limit: Seconds after which a peer that is not ready is left out.
    """
    case = {"network": network, "backend": backend, "batch": batch, "core": core}
    seconds = in_turns(script, [{"peer": name, **case} for name in peers(network, backend)], runs=runs, limit=limit)
    rows = []
    for peer, own in seconds.items():
        ratio = over(seconds["ours"], own) if "ours" in seconds else None
        cpu_ms = round(1000 * statistics.median(own), 2)
        case = {"network": network, "backend": backend, "batch": batch, "peer": peer}
        rows.append({**case, "cpu_ms": cpu_ms, "ours_over_it": ratio})
    return rows


def in_turns(script: str, cases: list[dict[str, Any]], *, runs: int, limit: float) -> dict[str, list[float]]:
    """Returns the processor's seconds of each run of each peer, one after another in every round.

    Args:
        script: File whose `work` says what is timed.
        cases: What `answer` takes, one a peer; one that does not start is left out.
        runs: Number of times that each peer is asked.
        limit: Seconds after which a peer that is not ready is left out.
    """
    asked: list[_Peer] = []
    try:
        for case in cases:
            peer = _Peer(script, case)
            print(f"{case}: {peer.start(limit)}", file=sys.stderr)
            if peer.ready:
                asked.append(peer)
        for _ in range(runs):
            for peer in asked:
                peer.ask()
    finally:
        for peer in asked:
            peer.stop()
    return {peer.case["peer"]: peer.seconds for peer in asked}


def over(ours: list[float], theirs: list[float]) -> float:
    """Returns the median of the ratios of runs that followed one another, so that the machine's pace cancels."""
    return round(statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)), 3)


@dataclass
class _Peer:
    script: str
    case: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    ready: bool = False

    def start(self, limit: float) -> str:
        """Starts the process and waits until it has warmed up."""
        environment = {
            "KERAS_BACKEND": self.case["backend"],
            "KERAS_RESIDUAL_COMPILATION_CACHE": "off",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_NUM_THREADS": "1",
        }
        environment |= ALLOCATOR
        command = ["timeout", str(limit), sys.executable, self.script, "--here", json.dumps(self.case)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=os.environ | environment, **pipes)
        answer = self._answer()
        self.ready = answer == "ready"
        return answer or "failed"

    def ask(self) -> None:
        """Has it done once more."""
        print(file=self.process.stdin, flush=True)
        self.seconds.append(float(self._answer()))

    def stop(self) -> None:
        """Ends the process."""
        self.process.communicate()  # which ends its input

    def _answer(self) -> str:
        for line in self.process.stdout or ():
            if line.startswith("> "):
                return line[2:].strip()
        return ""


def answer(case: dict[str, Any], work: Callable[..., Callable[[], Any]], warm_up: int = 3) -> None:
    """Does what is timed each time that a line comes in; to be called in the process of a peer.

    Args:
        case: Peer, network, backend, batch and core.
        work: Takes the peer, the network and the batch, and returns what is timed.
        warm_up: Number of times that it is done before.
    """
    os.sched_setaffinity(0, {case["core"]})
    try:
        run = work(case["peer"], case["network"], case["batch"])
    except ModuleNotFoundError as error:
        print(f"> absent: {error}", flush=True)
        return
    for _ in range(warm_up):
        run()
    print("> ready", flush=True)
    for _ in sys.stdin:
        before = time.process_time()
        run()
        print(f"> {time.process_time() - before}", flush=True)


def pictures(batch: int) -> tuple[Any, Any]:
    """Returns noise in the place of standardised pictures, and classes."""
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, SIZE, SIZE, 3)).astype("float32"), rng.integers(CLASSES, size=batch)


def randomise(model: Any) -> None:
    """Gives a Keras model weights and statistics as no layer starts with: a new head of the zoo gives zeros."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "variance" in variable.path:
            variable.assign(rng.uniform(0.5, 2, tuple(variable.shape)))
        elif keras.backend.is_float_dtype(variable.dtype):
            variable.assign(variable + 0.1 * rng.standard_normal(tuple(variable.shape)))


def keras_model(peer: str, network: str) -> Any:
    """Returns a model of a Keras library with logits and new weights."""
    shape = (SIZE, SIZE, 3)
    if peer == "ours":
        import keras_residual as kr

        return kr.create_model(network, input_shape=shape, num_classes=CLASSES)
    if peer == "keras_applications":
        import keras

        return keras.applications.ResNet50(weights=None, classes=CLASSES, classifier_activation=None)
    from keras_hub import models  # pyright: ignore

    depths = {"resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3]}[network]
    backbone = models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=depths,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block" if network == "resnet18" else "bottleneck_block",
        image_shape=shape,
    )
    return models.ResNetImageClassifier(backbone=backbone, num_classes=CLASSES)


def timm_model(network: str) -> Any:
    """Returns timm's model with new weights, in the channels-last memory that is quickest on a CPU."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    from import_timm import import_timm

    model = import_timm().create_model(network, num_classes=CLASSES)
    return model.to(memory_format=torch.channels_last)
