"""A file is the old one or the new one, at whatever moment the writing ends."""

import os
import signal
import subprocess
import sys

import pytest

from keras_residual import _atomic

pytestmark = pytest.mark.any_backend

KILLED_IN_MID_WRITE = """
import os, signal, sys
from pathlib import Path
from keras_residual import _atomic
with _atomic.replacing(Path(sys.argv[1])) as beside:
    with beside.open("wb") as file:
        file.write(b"half of the ne")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_replaces(tmp_path):
    path = tmp_path / "history.csv"
    _atomic.write_text(path, "old")
    _atomic.write_text(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.csv"]


def test_a_kill_in_mid_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED_IN_MID_WRITE, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_an_error_in_mid_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")

    def write_and_fail():
        with _atomic.replacing(path) as beside:
            beside.write_bytes(b"half")
            raise OSError("disk")

    with pytest.raises(OSError, match=r"^disk$"):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_the_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    steps = []
    monkeypatch.setattr(os, "fsync", lambda handle: steps.append(("fsync", path.exists())))
    _atomic.write_bytes(path, b"new")
    assert steps == [("fsync", False), ("fsync", True)]
