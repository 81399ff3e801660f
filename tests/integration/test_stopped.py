"""Runs that end early: a full disk, a read-only place, Ctrl-C. What was complete is kept and said."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from cli.command import PROGRAM, environment, fingerprint, run, said
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.saved import load_saved
from keras_residual.training.stopped import keeping
from keras_residual_cli import app
from memory_disk import mounted

__all__ = ["mounted"]


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
        f"Kept in {out}: model.keras, history.csv, config.toml, trained_on.npz, log.txt. "
        f"Go on with: keras-residual train --resume {out}",
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
    assert line.endswith(f"No epoch was finished. Kept in {out}: log.txt.")
    assert fingerprint(disk)["thesis.txt"] == before["thesis.txt"]


@pytest.mark.any_backend
def test_a_place_that_is_read_only(mounted, capsys, monkeypatch):
    disk = mounted("ro,size=1m")
    monkeypatch.chdir(disk)
    assert app.run(["train", "wine", "--epochs", "1"]) == 1
    assert app.run(["train", "wine", "--epochs", "1", "--out", "here"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    reason = "Read-only file system. Choose another"
    assert first == f"keras-residual: {reason} place for the run: --out DIR. It cannot be made here: runs"
    assert second == f"keras-residual: The run directory 'here' cannot be made: {reason}: --out DIR."


@pytest.fixture
def heeding_ctrl_c():
    """A shell that runs the tests in the background has told them, and so their children, to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def saved_step(tmp_path):
    return max(int(path.stem.removeprefix("step-")) for path in (tmp_path / "run" / "last").glob("*.npz"))


def start(tmp_path, *arguments, under=(), **how):
    """Starts the command with words that come as they are said."""
    return subprocess.Popen(
        [*under, *PROGRAM, "train", "wine", "--epochs", "5000", "--set", "xray=false", "--out", "run", *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how,
    )


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGINT, "Ctrl-C"),
        pytest.param(signal.SIGTERM, "SIGTERM", marks=pytest.mark.any_backend),
        pytest.param(signal.SIGHUP, "SIGHUP", marks=pytest.mark.any_backend),
    ],
)
def test_what_asks_for_an_end_keeps_what_was_complete(number, name, tmp_path):
    process = start(tmp_path)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert [line for line in errors.splitlines() if not line.startswith("Backend: ")] == [
        f"keras-residual: Stopped by {name}. "
        "Kept in run: model.keras, history.csv, config.toml, trained_on.npz, last, log.txt. "
        f"Saved after step {saved_step(tmp_path)}. Go on with: keras-residual train --resume run"
    ]
    assert (tmp_path / "run" / "log.txt").read_text().splitlines()[-1].endswith(f" Stopped by {name}.")
    assert epochs_in(tmp_path / "run" / "history.csv") >= 2
    # Where it was asked to stop, and not where a checkpoint happened to be due: 8 steps an epoch.
    assert saved_step(tmp_path) >= 16
    if number != signal.SIGINT:
        return
    # What was kept can be used like the result of a whole run.
    done = run("evaluate", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert said(done)[1].startswith("Test loss")


IN_A_TERMINAL = [
    sys.executable,
    "-c",
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])",
]
"""Makes its standard input the terminal whose Ctrl-C counts, then becomes the command behind it."""

ENOUGH = 10
"""Seconds in which the command has ended: a fifth of one on a machine that has nothing else to do."""


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize("when", [b"compiling", b"epoch [0-9]+/"], ids=["first step", "later"])
def test_ctrl_c_in_a_terminal(when, tmp_path):
    master, slave = pty.openpty()
    process = start(
        tmp_path, "--set", "batch_size=128", under=IN_A_TERMINAL, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    shown, asked = b"", 0.0
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not asked and re.search(when, shown):
            os.write(master, b"\x03")
            asked = time.monotonic()
    assert process.wait(timeout=120) == 1
    assert time.monotonic() - asked < ENOUGH
    said_last = shown.splitlines()[-1].rpartition(b"keras-residual: ")[2]
    # The very first moment is before there is a run directory.
    kept = rb"( No epoch was finished\.)? Kept in run: [a-z_., ]*log\.txt\."
    kept += rb"(( Saved after step \d+\.)? Go on with: keras-residual train --resume run)?"
    assert re.fullmatch(rb"Stopped by Ctrl-C\." + (b"(%b)?" if when == b"compiling" else b"%b") % kept, said_last)
    assert b"\x1b[?25h" in shown  # the cursor is there again


@pytest.mark.any_backend
@pytest.mark.usefixtures("heeding_ctrl_c")
def test_an_interrupt_that_keras_swallows_comes_again_at_the_next_batch(tmp_path):
    directory = RunDirectory(tmp_path)
    before = signal.getsignal(signal.SIGINT)

    def work(look):
        with keeping(directory) as heeding:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            getattr(heeding, look)(0)
            pytest.fail("went on")

    for look in ("on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin", "on_epoch_end"):
        with pytest.raises(KeyboardInterrupt) as caught:
            work(look)
        assert caught.value.__notes__ == [f"No epoch was finished. Kept in {tmp_path}: log.txt."]
    # At the end of the work at the latest.
    with pytest.raises(KeyboardInterrupt), keeping(directory), contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert directory.log_file.read_text().count("Stopped by Ctrl-C.\n") == 5
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.any_backend
def test_another_thread_trains_without_touching_signals(tmp_path):
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with keeping(RunDirectory(tmp_path)):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


# One call of C in which Python looks at no signal, as when a program is compiled.
DEAF = """
import hashlib, sys, types
from keras_residual_cli import signals
stopped = types.ModuleType("keras_residual.training.stopped")
stopped.leave = lambda by: [f"Kept when {by} came."]
sys.modules["keras_residual.training.stopped"] = stopped
signals.heed()
print("deaf now", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.mark.any_backend
@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_work_that_does_not_notice_is_ended_at_once(number, name):
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "deaf now\n"
    time.sleep(0.5)  # until it is
    process.send_signal(number)
    _, errors = process.communicate(timeout=ENOUGH)
    assert (process.returncode, errors) == (1, f"keras-residual: Stopped by {name}. Kept when {name} came.\n")


@pytest.mark.slow
@pytest.mark.any_backend
def test_what_the_caller_has_switched_off_stays_off(tmp_path):
    # As nohup does, and a shell for what runs in the background.
    ignoring = lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)]  # noqa: E731
    process = start(tmp_path, "--epochs", "3", preexec_fn=ignoring)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
