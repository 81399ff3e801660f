"""What `import keras_residual` adds to `import keras`: the median over fresh interpreters, on each backend.

    python benchmarks/import_time.py --runs 9

Ends with status 1 where the median is over the bound.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from _report import report

BOUND_SECONDS = 0.3
PROGRAM = """
from time import perf_counter
start = perf_counter()
import keras
between = perf_counter()
import keras_residual
print(between - start, perf_counter() - between)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="fresh interpreters a backend (default 9)")
    parser.add_argument("--backends", nargs="+", default=["jax", "torch", "tensorflow"])
    arguments = parser.parse_args()
    rows = []
    for backend in arguments.backends:
        measure(backend)  # writes the byte code, so that no run pays for it
        keras_seconds, added_seconds = zip(*(measure(backend) for _ in range(arguments.runs)), strict=True)
        rows.append(
            {
                "backend": backend,
                "keras_s": round(statistics.median(keras_seconds), 4),
                "added_s": round(statistics.median(added_seconds), 4),
                "added_max_s": round(max(added_seconds), 4),
            }
        )
    report("import_time", rows, runs=arguments.runs, bound_seconds=BOUND_SECONDS)
    if any(row["added_s"] > BOUND_SECONDS for row in rows):
        sys.exit(f"`import keras_residual` adds more than {BOUND_SECONDS} s.")


def measure(backend: str) -> tuple[float, float]:
    """Returns the seconds that `import keras` took, and then `import keras_residual`."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, text=True, stdout=subprocess.PIPE, check=True
    )
    keras_seconds, added_seconds = map(float, done.stdout.split()[-2:])
    return keras_seconds, added_seconds


if __name__ == "__main__":
    main()
