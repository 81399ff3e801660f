"""What the command says of its backend; which one it takes is in `tests/backend/test_choice.py`."""

import subprocess
import sys

import pytest

from cli.command import PROGRAM, environment, run, said
from only_one_backend import environment as with_backends

pytestmark = pytest.mark.any_backend


def test_it_names_the_backend_and_why(tmp_path):
    done = run("models", "resnet18", cwd=tmp_path, env=environment(tmp_path, KERAS_BACKEND="torch"))
    assert done.returncode == 0
    assert done.stderr == "Backend: torch (KERAS_BACKEND names it)\n"


def test_a_wrong_name_in_the_environment_as_the_user_sees_it(tmp_path):
    done = run("train", cwd=tmp_path, env=environment(tmp_path, KERAS_BACKEND="jaxx"))
    assert done.returncode == 2
    assert said(done) == [
        "keras-residual: KERAS_BACKEND names 'jaxx', which keras-residual does not run on. "
        "Set it to jax or torch or tensorflow."
    ]
    assert list(tmp_path.iterdir()) == []


def test_no_backend_at_all_as_the_user_sees_it(tmp_path):
    command = [sys.executable, "-S", *PROGRAM[1:], "train"]
    done = subprocess.run(command, cwd=tmp_path, env=with_backends(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "keras-residual: Keras needs one of jax, torch, tensorflow, and none of them is installed: pip install jax\n"
    )


def test_help_loads_nothing_that_is_slow(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "keras_residual_cli", "train", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "--print-config" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded.isdisjoint({"keras", "numpy", "jax", "torch", "tensorflow", "matplotlib", "sklearn"})
