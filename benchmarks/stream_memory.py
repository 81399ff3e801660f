"""Peak memory of a training by the size of its data: what does not fit into `data.memory` costs no more.

Writes pictures and tables of two sizes, trains on each for some steps in a process of its own, and prints the peak of
its resident memory. `python benchmarks/stream_memory.py [pictures] [tables]`
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PICTURES, ROWS, FEATURES = (5_000, 40_000), (1_000_000, 10_000_000), 10
SIDE = 64


def write_pictures(folder: Path, count: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
    few = rng.integers(0, 256, (50, 8, 8, 3)).astype(np.uint8)
    for number in range(count):
        pixels = few[number % 50].copy()
        pixels[0, 0] = (number % 251, number // 251 % 251, number // 63_001)
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        picture.save(folder / ("cat", "dog")[number % 2] / f"{number}.jpg", quality=90)


def write_table(path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, schema = np.random.default_rng(0), None
    names = [*(f"x{column}" for column in range(FEATURES)), "y"]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as writer:
        for _ in range(0, rows, 250_000):
            block = rng.normal(size=(FEATURES, 250_000))
            writer.write_table(pa.table([*block, block.sum(axis=0)], names))
    del schema


def train(source: str, out: str, memory: int) -> None:
    """Trains for a second of steps or so; prints the peak in MiB and the seconds."""
    from keras_residual import TrainConfig
    from keras_residual.training.train import train as run

    began = time.perf_counter()
    table = source.endswith(".parquet")
    settings = [f"data.source={source}", f"data.memory={memory}", "epochs=1", "xray=false"]
    settings += ["data.target=y", "batch_size=8192", "data.test_fraction=0.01"] if table else ["batch_size=128"]
    settings += ["data.validation_fraction=0.01"] if table else ["model.name=cifar_resnet20"]
    result = run(TrainConfig(out=out).with_overrides(settings))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    told = {"peak_mib": round(peak), "seconds": round(time.perf_counter() - began, 1), "steps": result.metrics["steps"]}
    print(json.dumps(told))


def measured(source: Path, memory: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as out:
        call = [sys.executable, __file__, "--train", str(source), f"{out}/run", str(memory)]
        text = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    return json.loads(text.splitlines()[-1])


def compare(write, name: str, sizes: tuple[int, int], memory: int) -> float:
    """Prints the peaks for two sizes and returns the larger one's share of the smaller one's."""
    peaks = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            source = Path(folder) / name
            write(source, size)
            found = measured(source, memory)
        peaks.append(found["peak_mib"])
        print(f"{name} {size:>10,}: {json.dumps(found)}", flush=True)
    print(f"{name}: {peaks[1] / peaks[0]:.3f} times the memory for {sizes[1] / sizes[0]:g} times the data")
    return peaks[1] / peaks[0]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        wanted = sys.argv[1:] or ["pictures", "tables"]
        if "pictures" in wanted:
            compare(write_pictures, "pictures", PICTURES, 32)
        if "tables" in wanted:
            compare(write_table, "table.parquet", ROWS, 512)
