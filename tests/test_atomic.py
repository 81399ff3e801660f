"""A file is the old one or the new one, at whatever moment the writing ends."""

import os
import secrets
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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


@pytest.mark.slow
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


def written(path, content="new"):
    _atomic.write_text(path, content)
    return path.read_text()


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_of_two_writers_each_writes_a_whole_file(tmp_path):
    path = tmp_path / "history.csv"
    with _atomic.replacing(path) as first, _atomic.replacing(path) as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["history.csv"]


def test_threads_do_not_mix_what_they_write(tmp_path):
    path, contents = tmp_path / "history.csv", [letter * 100_000 for letter in "abcd"]

    def write_many(content):
        for _ in range(20):
            _atomic.write_text(path, content)
            assert path.read_text() in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        for result in [pool.submit(write_many, content) for content in contents]:
            result.result()
    assert names(tmp_path) == ["history.csv"]


def test_nobody_can_know_the_temporary_name(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    with _atomic.replacing(tmp_path / "history.csv") as first, _atomic.replacing(tmp_path / "history.csv") as second:
        assert first.name != second.name
        for part in (str(os.getpid()), "history"):
            assert part not in first.name
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    with _atomic.replacing(tmp_path / "history.csv") as beside:
        pass
    beside.symlink_to(victim)
    with pytest.raises(FileExistsError):
        _atomic.write_text(tmp_path / "history.csv", "new")
    assert (victim.read_text(), beside.is_symlink()) == ("mine", True)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_the_permissions_stay(tmp_path, mode):
    path = tmp_path / "history.csv"
    path.touch()
    path.chmod(mode)
    with _atomic.replacing(path) as beside:
        assert stat.S_IMODE(beside.stat().st_mode) & ~mode == 0
        # As safetensors does it.
        beside.unlink()
        beside.touch(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_has_the_permissions_that_the_user_gives_to_new_files(tmp_path, umask):
    before = os.umask(umask)
    try:
        written(tmp_path / "history.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "history.csv").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("target", ["other/real.csv", "/absolute"])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, target, there):
    real = tmp_path / target.lstrip("/")
    real.parent.mkdir(exist_ok=True)
    if there:
        real.write_text("old")
    link, second = tmp_path / "link.csv", tmp_path / "second.csv"
    link.symlink_to(real if target.startswith("/") else target)
    second.symlink_to("link.csv")
    assert written(second) == "new"
    assert (link.is_symlink(), second.is_symlink(), real.read_text()) == (True, True, "new")
    assert names(real.parent) == sorted({real.name, *(["link.csv", "second.csv"] * (real.parent == tmp_path))})


def test_links_that_lead_back_to_themselves_are_left_alone(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="links lead back to themselves"):
        written(tmp_path / "a")
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("length", [252, 255])
@pytest.mark.parametrize("name", ["{}.keras", "{}.weights.h5", "a.{}", "{}"])
def test_a_name_may_be_as_long_as_the_file_system_has_them(tmp_path, name, length):
    path = tmp_path / name.format("x" * (length - len(name) + 2))
    assert len(path.name) == length
    assert written(path) == "new"
    assert written(path, "newer") == "newer"


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "model"])
def test_the_temporary_name_keeps_the_suffix(tmp_path, name):
    with _atomic.replacing(tmp_path / name) as beside:
        assert beside.suffixes == (tmp_path / name).suffixes


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, reason in (("pipe", "Not a regular file"), ("folder", "Is a directory")):
        with pytest.raises(OSError, match=reason):
            written(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["folder", "pipe"]


def test_a_file_that_may_not_be_written_to_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "history.csv"
    path.write_text("old")
    path.chmod(0o444)
    # Root may write to everything.
    monkeypatch.setattr(os, "access", lambda path, how: how != os.W_OK)
    with pytest.raises(PermissionError):
        written(path)
    assert (path.read_text(), names(tmp_path)) == ("old", ["history.csv"])


@pytest.mark.slow
def test_leftovers_of_killed_processes_go_after_a_day(tmp_path):
    path = tmp_path / "model.keras"
    subprocess.run([sys.executable, "-c", KILLED_IN_MID_WRITE, str(path)], timeout=60)
    (leftover,) = tmp_path.iterdir()
    assert written(path) == "new"
    assert names(tmp_path) == sorted([leftover.name, "model.keras"]), "it may still be written"
    others = [".keras-residual-notes.keras", f"{leftover.name[1:]}", "x" + leftover.name]
    for name in (leftover.name, *others):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / f"{_atomic._PREFIX}{'0' * 16}").mkdir()
    assert written(path) == "new"
    assert names(tmp_path) == sorted([*others, "model.keras", f"{_atomic._PREFIX}{'0' * 16}"])
