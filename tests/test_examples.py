"""The programs in examples/ do what they say; each raises by itself where it does not."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", ROOT.parent / "shared"))


def run(name: str, *arguments: str, backend: str = "jax") -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    # What they show of depth holds where a stack is scanned, which it is on JAX.
    done = subprocess.run(
        command, env=os.environ | {"KERAS_BACKEND": backend}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.any_backend
def test_two_hundred_blocks_learn_with_connections_and_not_without() -> None:
    told = run("thousand_blocks.py", "--depth", "200").splitlines()
    assert told[0].startswith("residual: 200 blocks (scan)")
    assert told[1].startswith("plain   : 200 blocks (scan)")


@pytest.mark.any_backend
def test_the_deep_resnet_learns_at_little_depth() -> None:
    pictures = SHARED / "data/cifar10-jpeg/test.parquet"
    if not pictures.exists():
        pytest.skip(f"needs {pictures}; KERAS_RESIDUAL_TEST_DATA names the folder that holds it")
    assert "peak memory" in run("resnet1202.py", str(pictures), "--depth", "20", "--steps", "20")


@pytest.mark.any_backend
def test_published_weights_beat_training_from_scratch() -> None:
    weights = SHARED / "weights/resnet20-12fca82f.th"
    pictures = [SHARED / f"data/cifar10-jpeg/{part}.parquet" for part in ("train", "test")]
    if not all(path.exists() for path in (weights, *pictures)):
        pytest.skip(f"needs {weights} and {pictures}; KERAS_RESIDUAL_TEST_DATA names the folder that holds them")
    short = ["--epochs", "4", "--pictures", "100"]
    told = run("finetune_cifar.py", str(weights), *map(str, pictures), *short, backend="torch")
    assert "points more" in told


def names_and_change(report: str) -> tuple[list[str], list[str], list[str]]:
    """Returns the columns of a report, its blocks, and the first change that it advises: what no rounding moves."""
    lines = report.splitlines()
    columns = next(re.split("┃", line)[1:-1] for line in lines if line.startswith("┃"))
    blocks = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    changes = re.findall(r"Change: (.*?)\. Why:", " ".join(report.split()))
    return [column.strip() for column in columns], blocks, changes[:1]


@pytest.mark.any_backend
def test_a_plain_net_learns_once_it_has_shortcuts_and_the_page_shows_both_reports() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "surgery_reports.py"))
    told = run("residualize_digits.py")
    assert told.startswith("plain:    40 blocks")
    text = (ROOT / "docs" / "surgery.md").read_text(encoding="utf-8")
    shown = re.findall(r"```text\n(X-ray of .*?)```", text, flags=re.DOTALL)
    made = [tool["shortened"](report) for report in tool["reports"](told)]
    assert len(made) == 2
    assert [names_and_change(r) for r in shown] == [names_and_change(r) for r in made], "run tools/surgery_reports.py"
