"""The programs in examples/ do what they say; each raises by itself where it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", ROOT.parent / "shared"))


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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
