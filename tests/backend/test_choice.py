"""Which backend is taken where: what Keras takes if it is installed, else one that is, else one line that says why."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_residual._backend.choice import BACKENDS, BackendChoice, choose, is_installed, keras_file
from only_one_backend import environment, python

UNSAID = "installed; tensorflow, which Keras would take, is not"


def home(tmp_path, content=None):
    """The variables that lead Keras to a configuration file with this content, or to none."""
    if content is not None:
        (tmp_path / "keras.json").write_text(content)
    return {"KERAS_HOME": str(tmp_path)}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("named", "in_file", "installed", "expected"),
    [
        ("torch", "jax", BACKENDS, BackendChoice("torch", "KERAS_BACKEND names it")),
        (None, "jax", BACKENDS, BackendChoice("jax", "{file} names it")),
        ("", "torch", BACKENDS, BackendChoice("torch", "{file} names it")),
        (None, None, BACKENDS, BackendChoice("tensorflow", "the default of Keras")),
        (None, None, ("torch", "jax"), BackendChoice("jax", UNSAID)),
        (None, None, ("torch",), BackendChoice("torch", UNSAID)),
        # Keras has written this file itself, when it was imported for the first time.
        (None, "tensorflow", ("jax",), BackendChoice("jax", UNSAID)),
        (None, "numpy", ("jax", "tensorflow"), BackendChoice("jax", UNSAID.replace("tensorflow", "numpy"))),
    ],
)
def test_what_was_said_counts_then_what_is_installed(named, in_file, installed, expected, tmp_path):
    environ = home(tmp_path, None if in_file is None else json.dumps({"backend": in_file}))
    if named is not None:
        environ["KERAS_BACKEND"] = named
    reason = expected.reason.format(file=tmp_path / "keras.json")
    assert choose(environ, installed=installed.__contains__) == BackendChoice(expected.backend, reason)


@pytest.mark.any_backend
@pytest.mark.parametrize("content", ["", "{", "[]", '{"backend": 3}', "[" * 100_000])
def test_a_broken_file_names_nothing(content, tmp_path):
    assert choose(home(tmp_path, content), installed={"jax"}.__contains__).backend == "jax"


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("named", "installed", "message"),
    [
        ("jax", ("torch",), "KERAS_BACKEND names 'jax', which is not installed. Set it to torch, or: pip install jax"),
        (
            "numpy",
            BACKENDS,
            "KERAS_BACKEND names 'numpy', which keras-residual does not run on. Set it to jax or torch or tensorflow.",
        ),
        (
            "a\x1b[2J",
            ("jax",),
            r"KERAS_BACKEND names 'a\x1b[2J', which keras-residual does not run on. Set it to jax.",
        ),
        (None, (), "Keras needs one of jax, torch, tensorflow, and none of them is installed: pip install jax"),
        ("jax", (), "Keras needs one of jax, torch, tensorflow, and none of them is installed: pip install jax"),
    ],
)
def test_no_backend_to_be_had(named, installed, message, tmp_path):
    environ = home(tmp_path) | ({} if named is None else {"KERAS_BACKEND": named})
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        choose(environ, installed=installed.__contains__)


@pytest.mark.any_backend
def test_a_folder_with_the_name_of_a_backend_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "some_backend").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("some_backend")
    assert is_installed("json")


@pytest.mark.any_backend
def test_the_file_is_where_keras_looks(tmp_path, monkeypatch):
    assert keras_file({"KERAS_HOME": str(tmp_path)}) == tmp_path / "keras.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keras_file({}) == tmp_path / ".keras" / "keras.json"
    monkeypatch.setenv("HOME", "/proc/no/home")
    assert keras_file({}) == Path("/tmp/.keras/keras.json")


SAY = "import keras_residual, keras; print(keras.backend.backend())"
# As in a notebook: what fails leaves what it has imported so far, and the next cell is run all the same.
KERAS_FIRST = f"""
try:
    import keras
except ImportError as error:
    print(error)
{SAY}
"""


@pytest.mark.slow
def test_an_environment_with_one_backend_that_nobody_has_named(tmp_path):
    backend = keras.backend.backend()
    alone = environment(tmp_path, backend)
    done = run(KERAS_FIRST, alone)
    failed = [] if backend == "tensorflow" else ["No module named 'tensorflow'"]
    assert done.stdout.splitlines() == [*failed, backend], done.stderr
    # Now there is a file of Keras's that names tensorflow.
    assert json.loads((tmp_path / "home" / ".keras" / "keras.json").read_text())["backend"] == "tensorflow"
    done = run(SAY, alone)
    assert done.stdout.splitlines() == [backend], done.stderr


@pytest.mark.any_backend
def test_an_environment_without_a_backend(tmp_path):
    done = run("import keras_residual", environment(tmp_path))
    assert done.stderr.splitlines()[-1] == (
        "ImportError: Keras needs one of jax, torch, tensorflow, and none of them is installed: pip install jax"
    )


@pytest.mark.any_backend
def test_a_backend_that_the_program_has_chosen_stays():
    code = f"import os\nos.environ['KERAS_BACKEND'] = 'torch'\nimport keras\n{SAY}"
    code += "; print(keras_residual._backend.CHOICE)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=300)
    assert done.stdout.split() == ["torch", "None"], done.stderr


def run(code, variables):
    return subprocess.run(python(code), env=variables, text=True, capture_output=True, timeout=300)
