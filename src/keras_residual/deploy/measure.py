"""What running a model costs, measured in a process of its own.

python -m keras_residual.deploy.measure JOB.json
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual.deploy.child import environment_of
from keras_residual.deploy.formats import FORMATS

try:
    import resource
except ModuleNotFoundError:  # on Windows
    resource = None

LEAST_RUNS = 3
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Speed:
    """How quickly batches of one size are answered.

    Args:
        batch_size: Rows in a batch.
        milliseconds: Median time of a batch.
        rows_per_second: `batch_size` over that time.
    """

    batch_size: int
    milliseconds: float
    rows_per_second: float


@dataclass(frozen=True)
class Cost:
    """What it costs to run a model.

    Args:
        load_seconds: Time to load it, without importing its runtime.
        megabytes: Peak memory of the process beyond what it had before it loaded the model; None where the
            system does not say.
        speeds: How quickly batches are answered.
    """

    load_seconds: float
    megabytes: float | None
    speeds: tuple[Speed, ...]


def measure(
    path: Path,
    format: str | None,
    batches: Sequence[Sequence[np.ndarray]],
    *,
    threads: int,
    seconds: float,
    folder: Path,
) -> Cost:
    """Returns what a model costs, from a new process.

    Args:
        path: The model: a `.keras` file, or an exported one.
        format: Name of the format; None for `.keras`.
        batches: One batch of each size, an array for each input.
        threads: Number of threads.
        seconds: Time for which batches of one size are run.
        folder: A folder for what is told to the process.

    Raises:
        RuntimeError: If it fails.
    """
    arrays: Any = {f"{i}_{k}": array for i, batch in enumerate(batches) for k, array in enumerate(batch)}
    np.savez(folder / "batches.npz", **arrays)
    job = {
        "path": str(path.resolve()),
        "format": format,
        "batches": [len(batch) for batch in batches],
        "arrays": str(folder / "batches.npz"),
        "threads": threads,
        "seconds": seconds,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder / "job.json")],
        capture_output=True,
        text=True,
        check=False,
        env=environment_of(keras.backend.backend())
        | {"OMP_NUM_THREADS": str(threads), "TF_NUM_INTRAOP_THREADS": str(threads)},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"the process ended with status {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Cost(**{**found, "speeds": tuple(Speed(**speed) for speed in found["speeds"])})


def _main(job: Mapping[str, Any]) -> dict[str, Any]:
    with np.load(job["arrays"]) as held:
        batches = [[held[f"{i}_{k}"] for k in range(count)] for i, count in enumerate(job["batches"])]
    before = _peak()
    start = time.perf_counter()
    run = _loaded(Path(job["path"]), job["format"], job["threads"])
    loaded = time.perf_counter() - start
    speeds = []
    for batch in batches:
        run(batch)
        run(batch)
        times, end = [], time.perf_counter() + job["seconds"]
        while len(times) < LEAST_RUNS or time.perf_counter() < end:
            start = time.perf_counter()
            run(batch)
            times.append(time.perf_counter() - start)
        median = statistics.median(times)
        speeds.append(Speed(len(batch[0]), 1000 * median, len(batch[0]) / median))
    after = _peak()
    return asdict(Cost(loaded, None if before is None or after is None else (after - before) / 1e6, tuple(speeds)))


def _loaded(path: Path, format: str | None, threads: int) -> Callable[[Sequence[np.ndarray]], Any]:
    if format is not None:
        return FORMATS[format].load(path, threads).run
    model: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda batch: model.predict_on_batch(keras.tree.pack_sequence_as(model.input, list(batch)))


def _peak() -> int | None:
    """Returns the most bytes that this process has had in memory; None where the system does not say."""
    if _STATUS.is_file():  # the other count begins with what the parent had
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return 1024 * int(found[1]) if found else None
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(_main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
