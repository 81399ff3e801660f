"""Runs that end early: a full disk, a read-only place, Ctrl-C. What was complete is kept and said."""

import os
import signal
import subprocess

import numpy as np
import pytest

from cli.command import PROGRAM, environment, fingerprint, run, said
from keras_residual.training.saved import load_saved
from keras_residual_cli import app


@pytest.fixture
def mounted(tmp_path):
    """Mounts a memory disk; skips, with the system's reason, where that is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no memory disk can be mounted: {done.stderr.strip()}")
        return disk

    yield mount
    if os.path.ismount(disk):
        subprocess.run(["umount", disk], check=True)


def epochs_in(history):
    return len(history.read_text().splitlines()) - 1


@pytest.mark.any_backend
def test_a_disk_that_fills_up(mounted, capsys):
    disk = mounted("size=1m")
    # Room for one model of the table's net and not for a second beside it.
    (disk / "thesis.txt").write_bytes(os.urandom(600 * 1024))
    before = fingerprint(disk)["thesis.txt"]
    out = disk / "run"
    status = app.run(["train", "wine", "--epochs", "8", "--out", str(out)])
    (line,) = capsys.readouterr().err.splitlines()
    assert (status, line) == (
        1,
        f"keras-residual: Training stopped: the disk of {out} is full. Free space, or choose another place: --out DIR. "
        f"Kept in {out}: model.keras, history.csv.",
    )
    assert np.isfinite(load_saved(out).model.predict(np.zeros((1, 13)), verbose=0)).all()
    assert epochs_in(out / "history.csv") >= 1
    assert fingerprint(disk)["thesis.txt"] == before
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.any_backend
def test_a_disk_that_is_full(mounted, capsys):
    disk = mounted("size=64k")
    (disk / "thesis.txt").write_bytes(os.urandom(64 * 1024))
    before = fingerprint(disk)
    out = disk / "run"
    assert app.run(["train", "wine", "--epochs", "1", "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"keras-residual: Training stopped: the disk of {out} is full. ")
    assert line.endswith(f"{out} holds nothing of use yet.")
    assert fingerprint(disk)["thesis.txt"] == before["thesis.txt"]


@pytest.mark.any_backend
def test_a_place_that_is_read_only(mounted, capsys, monkeypatch):
    disk = mounted("ro,size=1m")
    monkeypatch.chdir(disk)
    assert app.run(["train", "wine", "--epochs", "1"]) == 1
    assert app.run(["train", "wine", "--epochs", "1", "--out", "here"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    reason = "Read-only file system. Choose another place for the run: --out DIR. It cannot be made here"
    assert first == f"keras-residual: {reason}: runs"
    assert second == f"keras-residual: {reason}: here"


@pytest.fixture
def heeding_ctrl_c():
    """A shell that runs the tests in the background has told them, and so their children, to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_keeps_what_was_complete(tmp_path):
    process = subprocess.Popen(
        [*PROGRAM, "train", "wine", "--epochs", "5000", "--out", "run"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert [line for line in errors.splitlines() if not line.startswith("Backend: ")] == [
        "keras-residual: Stopped by Ctrl-C. Kept in run: model.keras, history.csv."
    ]
    assert epochs_in(tmp_path / "run" / "history.csv") >= 2
    # What was kept can be used like the result of a whole run.
    done = run("evaluate", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert said(done)[0].startswith("Test loss")
