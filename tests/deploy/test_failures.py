"""Exports that fail: what the user sees, and that nothing is left behind and nothing lost."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
from keras.layers import Dense

import keras_residual as kr
from cli.command import PROGRAM, environment, fingerprint
from deploy.nets import close, made, rows
from keras_residual import _atomic
from keras_residual.deploy import child
from keras_residual.deploy.child import ExportError
from keras_residual_cli import signals
from memory_disk import mounted

__all__ = ["mounted"]

pytestmark = pytest.mark.any_backend

OWN_LAYER = """
import os, keras
from keras import ops

@keras.saving.register_keras_serializable("own")
class Strange(keras.layers.Layer):
    def __init__(self, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what

    def get_config(self):
        return {**super().get_config(), "what": self.what}

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        elsewhere = keras.backend.backend() == "tensorflow"
        if self.what == "killed" and elsewhere:
            os.kill(os.getpid(), 9)
        if self.what == "slow" and elsewhere:
            import time
            time.sleep(60)
        if self.what == "outside":
            return ops.convert_to_tensor(ops.convert_to_numpy(x) * 2)
        if self.what == "batch":
            return x - ops.mean(x, axis=0, keepdims=True)
        if self.what == "fixed batch":
            return ops.reshape(x, (int(x.shape[0]) if x.shape[0] is not None else -1, 4))
        return x * 3 if elsewhere and self.what == "other" else x
"""


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """Makes a net around a layer of the user's own, of a module that another process can import."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "own_layers.py").write_text(OWN_LAYER)
    monkeypatch.syspath_prepend(code)
    monkeypatch.delitem(sys.modules, "own_layers", raising=False)
    import own_layers  # pyright: ignore[reportMissingImports]

    def make(what):
        inputs = keras.Input((4,))
        x = own_layers.Strange(what, name="odd")(Dense(4, name="before")(inputs))
        return keras.Model(inputs, Dense(2, name="after")(x))

    yield make
    sys.modules.pop("own_layers")


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def failing(model, path, **how):
    """Returns what the export says that it failed of; nothing new lies beside the path then."""
    before = fingerprint(path.parent)
    with pytest.raises(ExportError) as caught:
        kr.export(model, path, **how)
    assert fingerprint(path.parent) == before
    assert left(path.parent) == sorted({name.partition(os.sep)[0] for name in before})
    return str(caught.value)


class TestOwnLayers:
    @pytest.mark.slow
    def test_one_whose_module_the_other_process_imports(self, strange, out):
        model = strange("plain")
        kr.export(model, out / "net.tflite")
        x = rows(model, 3)
        np.testing.assert_allclose(kr.load_exported(out / "net.tflite").predict(x), model.predict(x, verbose=0), 1e-4)

    @pytest.mark.slow
    def test_one_that_the_other_process_cannot_import(self, strange, out, monkeypatch):
        model = strange("plain")
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("code")])
        assert failing(model, out / "net.tflite") == (
            "Writing litert by tensorflow failed: a class or function of the model is in the module 'own_layers', "
            "which the process that writes the file cannot import (No module named 'own_layers'). Put its folder on "
            "PYTHONPATH, or export on this backend."
        )

    def test_one_of_the_program_itself(self, strange, out, monkeypatch):
        model = strange("plain")
        monkeypatch.setattr(type(model.get_layer("odd")), "__module__", "__main__")
        assert failing(model, out / "net.tflite") == (
            "The model has a class or function of the program that runs, which the process that writes litert cannot "
            "import. Move it to a module of its own, or export on the tensorflow backend."
        )


class TestOtherProcess:
    @pytest.mark.slow
    def test_it_is_killed(self, strange, out):
        assert failing(strange("killed"), out / "net.tflite") == (
            "Writing litert by tensorflow failed: its process was killed by SIGKILL, as a system does that runs out of "
            "memory."
        )

    def test_it_takes_too_long(self, strange, out):
        said = failing(strange("slow"), out / "net.tflite", timeout=0.5)
        assert said == "Writing litert was not done after 0.5 s. Pass a longer `timeout=`, or a smaller model."

    @pytest.mark.slow
    def test_it_answers_otherwise(self, strange, out):
        said = failing(strange("other"), out / "net.tflite", find_difference=True)
        assert said.startswith("The litert file answers otherwise than the model: largest difference ")
        assert "The first layer that differs is 'odd': largest difference " in said
        assert said.endswith("It is not kept.")


@pytest.mark.slow
class TestProcessesThatAreKept:
    def test_one_writes_after_another(self, strange, out):
        """What failed leaves it as it was, and one that has ended is made anew."""
        with child.keeping_children():
            kr.export(strange("plain"), out / "first.tflite")
            (process,) = children_of(os.getpid())
            assert "Writing litert by tensorflow failed: " in failing(strange("outside"), out / "second.tflite")
            kr.export(strange("plain"), out / "second.tflite")
            assert children_of(os.getpid()) == [process]
            os.kill(process, signal.SIGKILL)
            assert "its process was killed by SIGKILL" in failing(strange("plain"), out / "third.tflite")
            kr.export(strange("plain"), out / "third.tflite")
            (other,) = children_of(os.getpid())
        assert other != process
        assert children_of(os.getpid()) == []


class TestModels:
    def test_what_cannot_be_traced(self, strange, out):
        said = failing(strange("outside"), out / "net.pt2")
        assert said.startswith("Writing pt2 by torch failed: ")

    def test_an_output_that_depends_on_the_batch(self, strange, out):
        model = strange("batch")
        kr.export(model, out / "net.onnx")
        x = rows(model, 9)
        found = kr.load_exported(out / "net.onnx").predict(x)
        np.testing.assert_allclose(found, model.predict_on_batch(x), rtol=1e-4, atol=1e-5)

    def test_a_batch_that_the_program_fixes(self, strange, out):
        said = failing(strange("fixed batch"), out / "net.onnx")
        assert said.startswith("Writing onnx by torch failed: ")

    @pytest.mark.parametrize("file", ["net.pt2", pytest.param("net.tflite", marks=pytest.mark.slow)])
    def test_a_recurrent_layer_whose_batch_is_open(self, file, out):
        model = keras.Sequential([keras.Input((5, 3)), keras.layers.SimpleRNN(4), Dense(2)])
        said = failing(model, out / file)
        kind, backend = ("pt2", "torch") if file == "net.pt2" else ("litert", "tensorflow")
        assert said == (
            f"Writing {kind} by {backend} failed: the batch cannot be left open, as with a recurrent layer. Pass "
            "`batch_size=`, or make recurrent layers with unroll=True."
        )
        kr.export(model, out / file, batch_size=4)
        unrolled = keras.layers.SimpleRNN(4, unroll=True)
        kr.export(keras.Sequential([keras.Input((5, 3)), unrolled, Dense(2)]), out / file, overwrite=True)

    @pytest.mark.slow
    def test_an_operator_that_litert_lacks(self, out):
        x = inputs = keras.Input((4, 4))
        model = keras.Model(inputs, keras.ops.linalg.det(x))
        assert failing(model, out / "net.tflite") == (
            "Writing litert by tensorflow failed: LiteRT has no operator for MatrixDeterminant; export to another "
            "format, or make the model without that operation."
        )


class TestPlaces:
    def test_a_link_stays_and_what_it_points_to_is_replaced(self, out):
        (out / "versions").mkdir()
        (out / "versions" / "one.pt2").write_text("mine")
        (out / "net.pt2").symlink_to("versions/one.pt2")
        kr.export(made("residual"), out / "net.pt2", overwrite=True)
        assert (out / "net.pt2").is_symlink()
        assert kr.load_exported(out / "versions" / "one.pt2").note == kr.load_exported(out / "net.pt2").note

    @pytest.mark.slow
    def test_an_empty_folder_is_a_place_for_a_saved_model(self, out):
        (out / "net").mkdir()
        kr.export(made("residual"), out / "net")
        assert kr.load_exported(out / "net").format == "saved_model"
        assert left(out) == ["net", "net.json"]

    def test_what_is_there_is_not_replaced(self, out):
        model = made("residual")
        for name in ("net.onnx", "net.onnx.json"):
            (out / name).write_text("mine")
            with pytest.raises(FileExistsError) as caught:
                kr.export(model, out / "net.onnx")
            taken = out / name
            assert str(caught.value) == (
                f"export: '{taken}' exists. Choose another path, or replace it with overwrite=True (on the command "
                "line --overwrite)."
            )
            assert taken.read_text() == "mine"
            taken.unlink()
        (out / "net.bin").write_text("mine")
        with pytest.raises(FileExistsError, match=r"net\.bin' exists"):
            kr.export(model, out / "net.xml")
        assert left(out) == ["net.bin"]

    def test_it_is_replaced_by_a_good_one_only(self, out):
        model, path = made("residual"), out / "net.onnx"
        path.write_text("mine")
        assert "answers otherwise" in failing(model, path, overwrite=True, bound=0.0)
        kr.export(model, path, overwrite=True)
        assert kr.load_exported(path).format == "onnx"
        assert left(out) == ["net.onnx", "net.onnx.json"]

    @pytest.mark.parametrize("name", ["mine", "mine.onnx"])
    def test_a_folder_of_something_else_is_not_replaced(self, name, out):
        (out / name).mkdir()
        (out / name / "thesis.txt").write_text("mine")
        with pytest.raises(FileExistsError) as caught:
            kr.export(made("residual"), out / name, overwrite=True)
        kind = "onnx" if name.endswith("onnx") else "saved_model"
        assert str(caught.value) == (
            f"export: '{out / name}' is a folder that holds something else and not replaced by a {kind} model. Choose "
            "another path."
        )
        assert (out / name / "thesis.txt").read_text() == "mine"

    @pytest.mark.parametrize(
        "suffix", [".pt2", *(pytest.param(end, marks=pytest.mark.slow) for end in (".onnx", ".xml", ".tflite", ""))]
    )
    def test_a_name_with_spaces_and_letters_of_others(self, suffix, out):
        folder = out / "мои сети (neu)"
        folder.mkdir()
        path, model = folder / f"сеть № 1 – café{suffix}", made("residual")
        kr.export(model, path, labels=["да", "ни да, ни нет", "нет"])
        loaded, x = kr.load_exported(path, "saved_model" if not suffix else None), rows(model, 3)
        close(loaded.predict(x), model.predict(x, verbose=0))
        assert loaded.labels == ["да", "ни да, ни нет", "нет"]

    def test_no_folder(self, out):
        with pytest.raises(FileNotFoundError, match=r"there is no folder '.*nowhere'\. Make it first"):
            kr.export(made("residual"), out / "nowhere" / "net.onnx")

    @pytest.mark.parametrize("name", ["net.onnx", "net.pt2", "net.xml"])
    def test_a_disk_that_is_full(self, name, mounted):
        disk = mounted("size=1m")
        (disk / "thesis.txt").write_bytes(os.urandom(1000 * 1024))
        assert failing(made("convolutions"), disk / name) == (
            f"The disk of '{disk}' is full, so the {name_of(name)} model was not written. Free space, or choose "
            "another path."
        )

    @pytest.mark.slow
    def test_a_disk_that_is_full_for_the_other_process(self, mounted):
        disk = mounted("size=1m")
        (disk / "thesis.txt").write_bytes(os.urandom(930 * 1024))
        said = failing(made("convolutions"), disk / "net.tflite")
        assert said.startswith(f"The disk of '{disk}' is full, so the litert model was not written.")

    def test_a_place_that_is_read_only(self, mounted):
        disk = mounted("ro,size=1m")
        with pytest.raises(ValueError, match="`path` must be a place where a file can be made") as caught:
            kr.export(made("residual"), disk / "net.onnx")
        assert str(caught.value).endswith(f"'{disk / 'net.onnx'}' (str). {os.strerror(errno.EROFS)}.")

    def test_what_a_killed_process_left_goes_after_a_day(self, out):
        with _atomic.folder_beside(out / "net.onnx") as folder:
            name = folder.name
        stale = out / name
        stale.mkdir()
        (stale / "half").write_text("of a net")
        with _atomic.folder_beside(out / "net.onnx"):
            assert stale.exists()
        os.utime(stale, (time.time() - 2 * 86400,) * 2)
        with _atomic.folder_beside(out / "net.onnx"):
            assert not stale.exists()


def name_of(file):
    return {"net.onnx": "onnx", "net.pt2": "pt2", "net.xml": "openvino"}[file]


class TestPackages:
    @pytest.mark.parametrize(
        ("file", "missing", "extra"),
        [
            ("net.onnx", "onnxscript", "export"),
            ("net.onnx", "onnxruntime", "export"),
            ("net.xml", "openvino", "openvino"),
            ("net.tflite", "ai_edge_litert", "litert"),
            ("net.tflite", "tensorflow", "tensorflow"),
            ("net", "tensorflow", "tensorflow"),
        ],
    )
    def test_one_is_missing(self, file, missing, extra, out, monkeypatch):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(ImportError) as caught:
            kr.export(made("residual"), out / file)
        assert str(caught.value) == (
            f"'{missing}' is not installed. This feature of keras-residual needs it: pip install "
            f"'keras-residual[{extra}]'"
        )
        assert left(out) == []

    def test_int8_of_openvino_needs_one_more(self, out, monkeypatch):
        monkeypatch.setitem(sys.modules, "nncf", None)
        model = made("residual")
        with pytest.raises(ImportError, match="'nncf' is not installed"):
            kr.export(model, out / "net.xml", int8=rows(model, 32))


SLOW = """
import sys
import keras_residual as kr, keras
sys.path.insert(0, sys.argv[1])
import own_layers
inputs = keras.Input((4,))
model = keras.Model(inputs, own_layers.Strange("slow")(inputs))
kr.export(model, sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_process_that_exports_is_ended(number, tmp_path, out):
    (tmp_path / "own_layers.py").write_text(OWN_LAYER)
    with heeding([sys.executable, "-c", textwrap.dedent(SLOW), tmp_path, out / "net.tflite"]) as process:
        children = end(process, number, out)
    until(lambda: not any(map(alive, children)))
    if number == signal.SIGINT:
        assert left(out) == []


@pytest.mark.parametrize(
    "file", ["net.tflite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("net", "net.onnx"))]
)
def test_ctrl_c_in_the_command(file, tmp_path, out):
    """It comes while another process writes, or this one."""
    made("residual").save(tmp_path / "net.keras")
    (out / "net.onnx.bak").write_text("mine")
    with heeding([*PROGRAM, "export", tmp_path / "net.keras", out / file], env=environment(tmp_path)) as process:
        children = end(process, signal.SIGINT, out, elsewhere=file != "net.onnx")
        errors = process.stderr.read()
    assert process.returncode == 1
    words = [line for line in errors.splitlines() if not line.startswith("Backend: ")]
    assert words == ["keras-residual: Stopped by Ctrl-C."]
    until(lambda: not any(map(alive, children)))
    assert left(out) == ["net.onnx.bak"]


def test_an_end_at_once_leaves_neither_process_nor_folder(out, monkeypatch):
    """Where the work does not notice Ctrl-C, as in a compiler, another thread ends the command."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    words = os.open(os.devnull, os.O_WRONLY)
    with _atomic.folder_beside(out / "net.tflite"), child.keeping_children(), child._writer("tensorflow"):
        (process,) = children_of(os.getpid())
        signals._end_at_once("Stopped by Ctrl-C.", words)
        assert not alive(process)
        assert left(out) == []
    os.close(words)
    assert ended == [1]


@contextlib.contextmanager
def heeding(command, **how):
    """Yields a process that Ctrl-C ends; a shell that runs the tests in the background has told them to ignore it."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **how,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process, number, out, *, elsewhere=True):
    """Sends a signal when the writing has begun, and returns the processes that the process had."""
    # The folder is there when this process starts, the job when it has given it to another.
    sign = "job.json" if elsewhere else ".keras-residual-"
    until(lambda: any(path.name.startswith(sign) for path in out.rglob("*")), process=process)
    children = children_of(process.pid)
    process.send_signal(number)
    process.wait(timeout=60)
    return children


def until(holds, seconds=120, process=None):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.05)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - no file of ours
        return [int(child) for child in file.read().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
