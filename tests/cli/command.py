"""Runs the command as a user does: another process, its exit status, what it wrote where."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = [sys.executable, "-m", "keras_residual_cli"]


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    """The user's environment with a home of the test's own for Keras."""
    return os.environ | {"KERAS_HOME": str(tmp_path / "keras-home"), "COLUMNS": "200", **changes}


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=env or environment(cwd),
        capture_output=True,
        text=True,
        timeout=300,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on standard error beside the one that names the backend."""
    return [line for line in done.stderr.splitlines() if not line.startswith("Backend: ")]


def fingerprint(folder: Path) -> dict[str, str]:
    """The content of every file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
