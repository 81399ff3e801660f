"""Where things are kept, and that nothing is kept anywhere for a user without a home folder."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import keras
import platformdirs
import pytest

from keras_residual import _backend
from keras_residual._places import cache_folder, expanded
from keras_residual.compilation_cache import disable_compilation_cache, enable_compilation_cache


@pytest.fixture
def homeless(monkeypatch):
    """Makes this process that of a user without HOME and without an entry in the list of users."""

    def no_entry(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert os.path.expanduser("~") == "~"  # noqa: PTH111


@pytest.mark.any_backend
@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_no_cache_folder_and_a_path_stays_as_it_is(monkeypatch):
    assert cache_folder() is None
    assert expanded("~/pictures") == Path("~/pictures")
    assert expanded("pictures") == Path("pictures")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *names, **how: Path("~/.cache/keras-residual"))
    assert cache_folder() is None  # as former versions have it


@pytest.mark.any_backend
def test_a_home_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert tmp_path in cache_folder().parents
    assert expanded("~/pictures") == tmp_path / "pictures"
    assert expanded("~nobody-of-this-name/pictures") == Path("~nobody-of-this-name/pictures")


@pytest.fixture
def without_a_cache():
    """Puts the cache aside that the tests may have for themselves."""
    cache = _backend.compilation_cache()
    folder = None if cache is None else cache.folder()
    if cache is not None and folder:
        cache.disable()
    yield
    if cache is not None and folder:
        cache.enable(Path(folder))


@pytest.mark.usefixtures("homeless", "without_a_cache")
@pytest.mark.parametrize("folder", [None, "~/own"])
def test_without_a_home_nothing_is_kept_of_what_was_compiled(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_RESIDUAL_COMPILATION_CACHE", "")
    try:
        assert enable_compilation_cache(folder) is None
    finally:
        disable_compilation_cache()
    assert list(tmp_path.iterdir()) == []


HOMELESS = """
import os, pwd, sys
def no_entry(user):
    raise KeyError(user)
pwd.getpwuid = no_entry
os.environ.pop("HOME", None)
os.environ.pop("XDG_CACHE_HOME", None)
from keras_residual_cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.any_backend
def test_a_user_without_a_home_trains_and_evaluates(tmp_path):
    variables = os.environ | {"KERAS_HOME": str(tmp_path / "keras"), "KERAS_BACKEND": keras.backend.backend()}
    variables.pop("KERAS_RESIDUAL_COMPILATION_CACHE", None)
    for words in (["train", "wine", "--epochs", "1", "--out", "run"], ["evaluate", "run"]):
        command = [sys.executable, "-c", HOMELESS, *words]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keras", "run"]
    assert (tmp_path / "run" / "report.html").stat().st_size > 500_000  # with what draws the X-ray
