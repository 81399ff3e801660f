"""Augmentation of pictures of 500 × 375 and 224 × 224 pixels, ours and others': pictures a second of one core.

    python benchmarks/augment.py
    python benchmarks/augment.py --peers ours timm --pictures 50 --rounds 3

Two chains: a crop resized to 224 with a flip, from decoded pictures of 500 × 375; and RandAugment of two changes of
magnitude 9, from 224 × 224. All peers get the same pictures, made of smooth noise and edges, in turns: a round is all
pictures once by each peer, so that a change of the machine's pace meets all of them. What counts is the time of the
processor; `ours_over_it` is the median of the ratios of the rounds. Every peer gets pictures as it likes them best:
ours and Keras's arrays, timm and torchvision PIL pictures, with what makes arrays of their results. Keras's layers
change a batch on the PyTorch backend, and get fewer pictures. kornia is left out where it is not installed.
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

CHAINS = ("crop and flip", "RandAugment")
PEERS = ("ours", "timm", "torchvision", "kornia", "keras")
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--core", type=int, default=0, help="the core that all run on (default 0)")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.here:
        environment = {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        told = json.dumps({name: getattr(arguments, name) for name in ("peers", "pictures", "rounds", "core")})
        raise SystemExit(
            subprocess.run(
                [sys.executable, __file__, "--here", told], env=os.environ | environment, check=False
            ).returncode
        )
    from _report import report, write_page

    told = json.loads(arguments.here)
    rows = measured(**told)
    report("augment", rows, pictures=told["pictures"], rounds=told["rounds"], cores=1, other_versions=other_versions())
    if set(told["peers"]) >= {"ours", "timm", "torchvision", "keras"}:
        write_page("training", "augmentation", table(rows))


def measured(peers: list[str], pictures: int, rounds: int, core: int) -> list[dict[str, Any]]:
    """Returns a row for each chain and peer."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    rows = []
    for chain in CHAINS:
        made = {
            peer: WORK[peer](chain, drawn(pictures, *((375, 500) if chain == CHAINS[0] else (SIZE, SIZE))))
            for peer in peers
        }
        work = {peer: each for peer, each in made.items() if each is not None}
        for run, _ in work.values():
            run()
        seconds: dict[str, list[float]] = {peer: [] for peer in work}
        for _ in range(rounds):
            for peer, (run, count) in work.items():
                before = time.process_time()
                run()
                seconds[peer].append((time.process_time() - before) / count)
        for peer, own in seconds.items():
            over = statistics.median(theirs / mine for mine, theirs in zip(seconds.get("ours", own), own, strict=True))
            speed = round(1 / statistics.median(own), 2)
            rows.append({"chain": chain, "peer": peer, "pictures_a_second": speed, "ours_over_it": round(over, 2)})
    return rows


def drawn(count: int, height: int, width: int) -> list[Any]:
    """Returns pictures that are smooth but for some edges."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        small = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(3):
            corner, opposite = ((int(rng.integers(width)), int(rng.integers(height))) for _ in range(2))
            cv2.rectangle(picture, corner, opposite, tuple(map(int, rng.integers(0, 256, 3))), 3)
        found.append(picture)
    return found


Work = tuple[Callable[[], Any], int]


def ours(chain: str, pictures: list[Any]) -> Work:
    import cv2

    from keras_residual.data import Augmentation

    cv2.setNumThreads(1)
    augment = (
        Augmentation(sizes=((0, SIZE),), crop=0.08, flip=True)
        if chain == CHAINS[0]
        else Augmentation(policy="randaugment", operations=2, magnitude=9, magnitude_spread=0.5)
    )
    return lambda: [augment.picture(p, seed=0, epoch=0, index=i) for i, p in enumerate(pictures)], len(pictures)


def timm(chain: str, pictures: list[Any]) -> Work:
    without_operators()
    import numpy as np
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision.transforms import Compose, RandomHorizontalFlip

    own = [Image.fromarray(picture) for picture in pictures]
    change = (
        Compose([RandomResizedCropAndInterpolation(SIZE, interpolation="bilinear"), RandomHorizontalFlip()])
        if chain == CHAINS[0]
        else rand_augment_transform("rand-m9-n2-mstd0.5-inc1", {"interpolation": Image.Resampling.BILINEAR})
    )
    return lambda: [np.asarray(change(picture)) for picture in own], len(own)


def torchvision(chain: str, pictures: list[Any]) -> Work:
    without_operators()
    import numpy as np
    from PIL import Image
    from torchvision.transforms import v2

    own = [Image.fromarray(picture) for picture in pictures]
    change = (
        v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()])
        if chain == CHAINS[0]
        else v2.RandAugment(2, 9, interpolation=v2.InterpolationMode.BILINEAR)
    )
    return lambda: [np.asarray(change(picture)) for picture in own], len(own)


def kornia(chain: str, pictures: list[Any]) -> Work | None:
    try:
        import kornia.augmentation as augmentation
    except ImportError:
        return None
    import numpy as np
    import torch

    torch.set_num_threads(1)
    batch = torch.from_numpy(np.stack(pictures[:32])).permute(0, 3, 1, 2).float() / 255
    change = (
        augmentation.AugmentationSequential(
            augmentation.RandomResizedCrop((SIZE, SIZE)), augmentation.RandomHorizontalFlip()
        )
        if chain == CHAINS[0]
        else augmentation.auto.RandAugment(2, 9)
    )
    return lambda: change(batch), len(batch)


def keras(chain: str, pictures: list[Any]) -> Work:
    import keras
    import numpy as np
    import torch

    torch.set_num_threads(1)
    few = np.stack(pictures[: 16 if chain == CHAINS[0] else 1]).astype("float32")
    layers = keras.layers
    if chain == CHAINS[0]:
        # It has no crop of a random area: what comes nearest crops at a random place, after a resize.
        change: Any = keras.Sequential(
            [layers.Resizing(256, 340, antialias=True), layers.RandomCrop(SIZE, SIZE), layers.RandomFlip("horizontal")]
        )
    else:
        change = layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.9)
    return lambda: change(few, training=True), len(few)


WORK: dict[str, Callable[[str, list[Any]], Work | None]] = {
    "ours": ours, "timm": timm, "torchvision": torchvision, "kornia": kornia, "keras": keras,
}  # fmt: skip


def without_operators() -> None:
    """Lets torchvision be imported where its build lacks the operators, of which augmentation needs none."""
    import torch

    try:
        without_operators.library = torch.library.Library("torchvision", "DEF")  # kept alive
        for schema in ("nms(Tensor d, Tensor s, float t) -> Tensor", "qnms(Tensor d, Tensor s, float t) -> Tensor"):
            without_operators.library.define(schema)
    except RuntimeError:
        return


def other_versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("opencv-python-headless", "torchvision", "pillow", "kornia"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as Markdown: a line a peer, two columns a chain."""
    found = {(row["chain"], row["peer"]): row for row in rows}
    lines = [
        f"| | {' | '.join(f'{chain}, pictures a second | ours over it' for chain in CHAINS)} |",
        f"| --- |{' ---: |' * 2 * len(CHAINS)}",
    ]
    for peer in PEERS:
        own = [found.get((chain, peer)) for chain in CHAINS]
        if any(own):
            shown = [f"{row['pictures_a_second']:,.0f} | {row['ours_over_it']:.2f}" if row else " | " for row in own]
            lines.append(f"| {peer} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
