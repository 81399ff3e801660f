"""Runs the tests on each backend, on all cores, and ends with one table.

    python tools/run_tests.py
    python tools/run_tests.py --run all --backends torch jax -- tests/layers -x
    python tools/run_tests.py --run rest:$(git rev-parse HEAD)

`--run` is what tests/conftest.py knows: "quick", "all", or a share of the rest that follows from the name of a commit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
# In the environment that runs this: what two sets of releases compile and say is kept apart.
LOGS = Path(sys.prefix) / "logs"
# Compiling takes most of JAX's time, so the processes of a run share what they have compiled, and the next run has it.
PROGRAMS = Path(sys.prefix) / "xla"
MOST_PROGRAMS = 50_000
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(PROGRAMS),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
NOTHING_TO_RUN = 5  # pytest's exit status where no test was chosen


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="quick")
    parser.add_argument("--backends", nargs="+", default=["torch", "jax", "tensorflow"])
    parser.add_argument("tests", nargs="*", help="arguments for pytest, behind --")
    arguments = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    if PROGRAMS.exists() and sum(1 for _ in PROGRAMS.iterdir()) > MOST_PROGRAMS:  # of sources that are no more
        shutil.rmtree(PROGRAMS)
    rows, failed, skipped = [], [], Counter()
    for backend in arguments.backends:
        print(f"\n== {backend}", flush=True)
        status, seconds, cases = run(backend, arguments.run, arguments.tests)
        found = Counter(kind for _, kind, _ in cases)
        wrong = status not in (0, NOTHING_TO_RUN)
        rows.append((backend, found["passed"], found["failed"] or int(wrong), found["skipped"], f"{seconds:.0f} s"))
        failed += [f"{backend}  {name}" for name, kind, _ in cases if kind == "failed"]
        skipped.update(reason for _, kind, reason in cases if kind == "skipped")
    print("\n== Skipped, and why")
    for reason, count in skipped.most_common():
        print(f"{count:5}  {reason}")
    print("\n== Failed", *(failed or ["nothing"]), sep="\n")
    print(f"\n{'':12}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>8}")
    for backend, *numbers in rows:
        print("{:12}{:>8}{:>8}{:>9}{:>8}".format(backend, *numbers))
    return int(any(row[2] for row in rows))


def run(backend: str, what: str, tests: list[str]) -> tuple[int, float, list[tuple[str, str, str]]]:
    """Returns the exit status, the seconds, and of each test its name, what became of it, and why it was skipped."""
    results = LOGS / f"{backend}.xml"
    results.unlink(missing_ok=True)
    start = time.monotonic()
    # One thread each: a backend's own threads only wait for one another where all cores are taken.
    status = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "auto",
            "--dist",
            "worksteal",
            "-r",
            "fE",
            "--junitxml",
            results,
            *tests,
        ],
        cwd=ROOT,
        env=os.environ | CACHE | {"KERAS_BACKEND": backend, "KERAS_RESIDUAL_TESTS": what, "OMP_NUM_THREADS": "1"},
    ).returncode
    return status, time.monotonic() - start, list(cases(results)) if results.exists() else []


def cases(results: Path) -> Iterator[tuple[str, str, str]]:
    """Yields what pytest wrote of each test."""
    for case in ElementTree.parse(results).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        skip = case.find("skipped")
        broken = case.find("failure") is not None or case.find("error") is not None
        kind = "failed" if broken else "passed" if skip is None else "skipped"
        yield name, kind, "" if skip is None else skip.get("message", "")


if __name__ == "__main__":
    sys.exit(main())
