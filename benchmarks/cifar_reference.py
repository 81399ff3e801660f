"""ResNet-20 by the recipe `he2015_cifar`, ours on each backend and a plain PyTorch script: test accuracy and time.

    python benchmarks/cifar_reference.py ../shared/data/cifar10-jpeg
    python benchmarks/cifar_reference.py --who script torch --nets resnet20 --seeds 0 --epochs 1 --pictures 2000

Both train on the same batches: the same pictures held back, the same order, shifts and flips. The script below writes
out everything else in PyTorch: network, initialisation, schedule, steps, and the choice of the epoch by the pictures
held back. `plain20` and `plain56` are its networks without the shortcuts. An epoch is timed as a whole: its steps, the
pictures held back, and keeping the best weights. What counts is the time of the processor on one core, the median over
the epochs after the first, in which programs are compiled.

A run has a process of its own and is a row of the results as soon as it is done; a run that was interrupted goes on at
its last checkpoint. Rows that the same versions have made are not made again. All of them take hours, so `make bench`
leaves this script out. The folder's pictures are CIFAR-10 as JPEG files, on which every net does worse than on the
published pictures. The table in docs/training.md is written from the results of full runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

BACKENDS = ("torch", "jax", "tensorflow")
WHO = ("script", *BACKENDS)
NETS = ("resnet20", "plain20", "resnet56", "plain56")
EPOCHS, PICTURES = 8, 50_000
KEY = ("net", "who", "seed", "epochs", "pictures")


def main() -> None:
    shared = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", Path(__file__).parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=shared / "data" / "cifar10-jpeg")
    parser.add_argument("--who", nargs="+", default=WHO, choices=WHO)
    parser.add_argument("--nets", nargs="+", default=NETS, choices=NETS, help="all but resnet20 by the script alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="training pictures, the first of the file")
    parser.add_argument("--core", type=int, default=0, help="the core that all run on (default 0)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs under way are kept")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run(**json.loads(arguments.here))), flush=True)
        return
    from _report import kept, report, write, write_page

    rows = {tuple(row[key] for key in KEY): row for row in kept("cifar_reference")}
    whole = arguments.folder.resolve()
    folder = whole if arguments.pictures == PICTURES else beginning(whole, arguments.pictures, arguments.runs.resolve())
    for net, seed, who in product(arguments.nets, arguments.seeds, arguments.who):
        key = (net, who, seed, arguments.epochs, arguments.pictures)
        if (net != "resnet20" and who != "script") or (key in rows and not arguments.again):
            continue
        case = dict(zip(KEY, key, strict=True))
        place = arguments.runs.resolve() / "-".join(["cifar_reference", *map(str, key)])
        found = _in_process({**case, "folder": str(folder), "place": str(place)}, arguments.core)
        rows[key] = {**case, **found}
        write("cifar_reference", list(rows.values()))
        shutil.rmtree(place)
        print(rows[key], flush=True)
    report("cifar_reference", list(rows.values()))
    if text := table(list(rows.values())):
        write_page("training", "reference", text)


def _in_process(case: dict[str, Any], core: int) -> dict[str, Any]:
    backend = "torch" if case["who"] == "script" else case["who"]
    environment = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    call = [sys.executable, __file__, "--here", json.dumps({**case, "core": core})]
    done = subprocess.run(call, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def beginning(folder: Path, pictures: int, runs: Path) -> Path:
    """Returns a folder with the first training pictures of another, and the same share of its test pictures."""
    import pyarrow.parquet

    made = runs / f"{folder.name}-{pictures}"
    made.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", pictures), ("test", max(100, pictures // 5))):
        read = pyarrow.parquet.read_table(folder / f"{part}.parquet")
        pyarrow.parquet.write_table(read.slice(0, count), made / f"{part}.parquet")
    return made


def run(
    net: str, who: str, seed: int, epochs: int, pictures: int, folder: str, place: str, core: int
) -> dict[str, Any]:
    """Trains a net and returns its test accuracy and the seconds of an epoch; `place` keeps the training under way."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import keras_residual as kr

    config = kr.TrainConfig(recipe="he2015_cifar", epochs=epochs, seed=seed, xray=False, data={"source": folder})
    accuracy, seconds = script(config, net, Path(place)) if who == "script" else ours(config, net, Path(place))
    # The first epoch compiles; one that was interrupted is short, which the median does not see.
    usual = seconds[1:] or seconds
    return {"accuracy": accuracy, "epoch_cpu_seconds": round(statistics.median(usual), 3)}


def ours(config: Any, net: str, place: Path) -> tuple[float, list[float]]:
    """Returns test accuracy and the processor's seconds of each epoch, of `kr.train`."""
    import keras

    import keras_residual as kr

    class Seconds(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []
            self.before = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.before = time.process_time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds = [*self.seconds, time.process_time() - self.before]
            print(f"{place.name}: {len(self.seconds)}", logs, file=sys.stderr, flush=True)

    seconds = Seconds()
    if (place / "config.toml").exists():
        made = kr.train(resume=place, callbacks=[seconds])
    else:
        made = kr.train(config.updated({"model.name": f"cifar_{net}", "out": str(place)}), callbacks=[seconds])
    return made.metrics["test_accuracy"], seconds.seconds


def script(config: Any, net: str, place: Path) -> tuple[float, list[float]]:
    """Returns the same of a training written out in PyTorch."""
    import numpy as np
    import torch

    from keras_residual.data import Batches
    from keras_residual.training.making import make_augmentation
    from keras_residual.training.prepare import prepare

    prepared = prepare(config.updated({"model.name": "cifar_resnet20"}))
    data, learn, choose = prepared.dataset, prepared.learn, prepared.choose
    augment = make_augmentation(prepared.config.augment, classes=10)
    batches = Batches(data.x_train, data.y_train, 128, rows=learn, seed=config.seed, augment=augment)

    torch.manual_seed(config.seed)
    torch.set_num_threads(1)
    mean, deviation = (
        torch.tensor(value, dtype=torch.float32).view(1, 3, 1, 1)
        for value in (np.mean(data.x_train[learn], (0, 1, 2)), np.std(data.x_train[learn], (0, 1, 2)))
    )

    def tensor(pictures: Any) -> Any:
        return (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - mean) / deviation

    model = network(int(net[-2:]), residual=net.startswith("resnet")).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    total = config.epochs * batches.steps
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(total / 2), round(total * 3 / 4)], 0.1)

    def outputs(pictures: Any) -> Any:
        model.eval()
        with torch.no_grad():
            parts = [model(tensor(pictures[start : start + 128])) for start in range(0, len(pictures), 128)]
        return torch.cat(parts)

    done, seconds, best = 0, [], (-1.0, float("-inf"), {})
    place.mkdir(parents=True, exist_ok=True)
    checkpoint = place / "checkpoint.pt"
    if checkpoint.exists():
        done, seconds, best, *states = torch.load(checkpoint)
        for part, state in zip((model, optimizer, falls), states, strict=True):
            part.load_state_dict(state)
    for epoch in range(done, config.epochs):
        before = time.process_time()
        model.train()
        for step in range(epoch * batches.steps, (epoch + 1) * batches.steps):
            pictures, labels = batches.batch(step)
            loss = torch.nn.functional.cross_entropy(model(tensor(pictures)), torch.from_numpy(labels).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falls.step()
        logits, labels = outputs(data.x_train[choose]), torch.from_numpy(data.y_train[choose]).long()
        right = (logits.argmax(1) == labels).float().mean().item()
        surprise = torch.nn.functional.cross_entropy(logits, labels).item()
        if (right, -surprise) > best[:2]:
            best = (right, -surprise, {key: value.clone() for key, value in model.state_dict().items()})
        seconds.append(time.process_time() - before)
        print(f"{place.name}: {epoch + 1} {right:.4f} {surprise:.4f} {seconds[-1]:.1f}", file=sys.stderr, flush=True)
        states = [part.state_dict() for part in (model, optimizer, falls)]
        torch.save((epoch + 1, seconds, best, *states), place / "part.pt")
        (place / "part.pt").replace(checkpoint)
    model.load_state_dict(best[2])
    return (outputs(data.x_test).argmax(1).numpy() == data.y_test).mean().item(), seconds


def network(depth: int, *, residual: bool) -> Any:
    """Returns the net of He et al., 2015, section 4.2: 6n + 2 weighted layers, shortcuts of option A or none."""
    import torch
    from torch import nn
    from torch.nn.functional import pad

    class Block(nn.Module):
        def __init__(self, inputs: int, filters: int, strides: int) -> None:
            super().__init__()
            self.more = filters - inputs
            self.conv1 = nn.Conv2d(inputs, filters, 3, strides, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(filters)

        def forward(self, x: Any) -> Any:
            y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
            if not residual:
                return torch.relu(y)
            if self.more:
                x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
            return torch.relu(y + x)

    layers: list[Any] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    before = 16
    for filters in (16, 32, 64):
        for index in range((depth - 2) // 6):
            layers.append(Block(before, filters, 2 if index == 0 and filters > 16 else 1))
            before = filters
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the full runs as Markdown: a line for each net and who trained it; "" if there are none."""
    full = [row for row in rows if (row["epochs"], row["pictures"]) == (EPOCHS, PICTURES)]
    lines = []
    for net, who in product(NETS, WHO):
        runs = [row for row in full if (row["net"], row["who"]) == (net, who)]
        if not runs:
            continue
        right = [100 * row["accuracy"] for row in runs]
        spread = f" ± {statistics.stdev(right) / len(right) ** 0.5:.2f}" if len(right) > 1 else ""
        seconds, peer = _seconds(runs), _seconds([row for row in full if (row["net"], row["who"]) == (net, "script")])
        over = f"{seconds / peer:.2f}" if peer else ""
        said = "PyTorch script" if who == "script" else f"`kr.train`, {who}"
        lines.append(
            f"| {net} | {said} | {len(runs)} | {statistics.mean(right):.2f}{spread} | {seconds:.0f} | {over} |"
        )
    head = "| net | trained by | runs | test accuracy, % | CPU seconds an epoch | over the script's |"
    return "\n".join([head, "| --- | --- | ---: | ---: | ---: | ---: |", *lines]) if lines else ""


def _seconds(rows: list[dict[str, Any]]) -> float:
    return statistics.median(row["epoch_cpu_seconds"] for row in rows) if rows else 0.0


if __name__ == "__main__":
    main()
