"""Which backend the command takes, and what it says where it cannot have one."""

import json
import re
import subprocess
import sys

import pytest

from cli.command import environment, said
from keras_residual_cli.backend import BACKENDS, Choice, choose, is_installed, keras_file
from keras_residual_cli.failure import CallError

pytestmark = pytest.mark.any_backend


def file_naming(tmp_path, backend):
    path = tmp_path / "keras.json"
    path.write_text(json.dumps({"backend": backend}))
    return path


def having(*backends):
    return backends.__contains__


def test_the_environment_comes_first(tmp_path):
    found = choose({"KERAS_BACKEND": "torch"}, file_naming(tmp_path, "jax"), having(*BACKENDS))
    assert found == Choice("torch", "KERAS_BACKEND names it")


def test_then_the_file_of_keras(tmp_path):
    path = file_naming(tmp_path, "tensorflow")
    assert choose({}, path, having(*BACKENDS)) == Choice("tensorflow", f"{path} names it")


@pytest.mark.parametrize(
    ("installed", "first"), [(BACKENDS, "jax"), (("tensorflow", "torch"), "torch"), (("tensorflow",), "tensorflow")]
)
def test_then_the_first_that_is_installed(tmp_path, installed, first):
    found = choose({}, tmp_path / "keras.json", having(*installed))
    assert found == Choice(first, "the first installed of jax, torch, tensorflow")


@pytest.mark.parametrize("named", ["tensorflow", "numpy"])
def test_a_file_that_names_what_is_not_there_is_passed_over_aloud(tmp_path, named):
    path = file_naming(tmp_path, named)
    reason = f"{path} names {named}, which is not installed; the first of those that are"
    assert choose({}, path, having("torch")) == Choice("torch", reason)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"backend": 3}'])
def test_a_broken_file_names_nothing(tmp_path, content):
    path = tmp_path / "keras.json"
    path.write_text(content)
    assert choose({}, path, having("jax")).backend == "jax"


@pytest.mark.parametrize(
    ("environ", "installed", "message"),
    [
        (
            {"KERAS_BACKEND": "jax"},
            ("torch",),
            "KERAS_BACKEND names 'jax', which is not installed: pip install 'keras-residual[jax]'",
        ),
        (
            {"KERAS_BACKEND": "jaxx"},
            BACKENDS,
            "KERAS_BACKEND names 'jaxx'; keras-residual runs on jax, torch, tensorflow.",
        ),
        ({}, (), "No backend is installed. Install one of jax, torch, tensorflow: pip install 'keras-residual[jax]'"),
    ],
)
def test_no_backend_to_be_had(tmp_path, environ, installed, message):
    with pytest.raises(CallError, match=f"^{re.escape(message)}$"):
        choose(environ, tmp_path / "keras.json", having(*installed))


def test_a_folder_with_the_name_of_a_backend_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "some_backend").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("some_backend")
    assert is_installed("json")


def test_the_file_is_where_keras_looks(tmp_path):
    assert keras_file({"KERAS_HOME": str(tmp_path)}) == tmp_path / "keras.json"


def test_a_wrong_name_in_the_environment_as_the_user_sees_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "keras_residual_cli", "train"],
        cwd=tmp_path,
        env=environment(tmp_path, KERAS_BACKEND="jaxx"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert said(done) == ["keras-residual: KERAS_BACKEND names 'jaxx'; keras-residual runs on jax, torch, tensorflow."]
    assert list(tmp_path.iterdir()) == []


def test_help_loads_nothing_that_is_slow(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "keras_residual_cli", "train", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "--print-config" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded.isdisjoint({"keras", "numpy", "jax", "torch", "tensorflow", "matplotlib", "sklearn"})
