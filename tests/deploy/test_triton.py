"""The folder that NVIDIA Triton serves: what is in it, and what it replaces."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.layers import Dense

import keras_residual as kr
from cli.command import fingerprint
from deploy.nets import made, rows
from keras_residual.deploy.child import ExportError
from keras_residual.deploy.formats import FORMATS
from keras_residual.deploy.signature import Port
from keras_residual.deploy.triton import check_serve_folder, config_of, model_name, serve_folder
from keras_residual_cli import app

pytestmark = pytest.mark.any_backend

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.-]+|[][{}:,]')


def read(text):
    """Returns what a protobuf text has as dictionaries and lists; a key that comes twice is an error."""
    tokens = TOKEN.findall(re.sub(r"^#.*$", "", text, flags=re.MULTILINE))

    def value():
        first = tokens.pop(0)
        if first == "{":
            return message("}")
        if first == "[":
            found = []
            while tokens[0] != "]":
                found.append(value())
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return found
        return json.loads(first) if first[0] == '"' or first.lstrip("-").isdigit() else first

    def message(end):
        found = {}
        while tokens and tokens[0] != end:
            name = tokens.pop(0)
            if tokens[0] == ":":
                tokens.pop(0)
            assert name not in found
            found[name] = value()
        if end:
            tokens.pop(0)
        return found

    return message("")


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,), name="x"), kr.Residual(Dense(4)), Dense(3)])


LABELS = ["cat", "dog\n or wolf", "Katze, süß"]


@pytest.fixture
def out(tmp_path):
    """A folder for files, in which a repository is made."""
    return tmp_path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file that was exported once, into a repository too."""
    folder = tmp_path_factory.mktemp("exported")
    kr.export(classifier(), folder / "my net.onnx", labels=LABELS, serve_folder=folder / "models")
    return folder / "my net.onnx"


def check_content(file, *, backend, files, x):
    folder, suffix = file.parent / "models" / "my_net", file.suffix
    assert tree(file.parent / "models") == sorted(
        f"my_net/{name}" for name in (*(f"1/model{end}" for end in files), "config.pbtxt", "labels.txt", "note.json")
    )
    assert read((folder / "config.pbtxt").read_text()) == {
        "name": "my_net",
        "backend": backend,
        "default_model_filename": f"model{suffix}",
        "max_batch_size": 32,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "output_0", "data_type": "TYPE_FP32", "dims": [3], "label_filename": "labels.txt"}],
        "dynamic_batching": {"max_queue_delay_microseconds": 1000},
    }
    assert (folder / "labels.txt").read_text(encoding="utf-8") == "cat\ndog or wolf\nKatze, süß\n"
    assert json.loads((folder / "note.json").read_text())["labels"] == LABELS
    served = kr.load_exported(folder / "1" / f"model{suffix}")
    np.testing.assert_allclose(served.predict(x), kr.load_exported(file).predict(x))


def test_what_is_in_it(exported):
    check_content(exported, backend="onnxruntime", files=[".onnx"], x=rows(classifier(), 5))


@pytest.mark.slow
def test_openvino_with_its_weights(out):
    kr.export(classifier(), out / "my net.xml", labels=LABELS, serve_folder=out / "models")
    check_content(out / "my net.xml", backend="openvino", files=[".bin", ".xml"], x=rows(classifier(), 5))


@pytest.mark.slow
def test_several_inputs_and_outputs_by_the_names_of_the_file(out):
    kr.export(made("two of each"), out / "net.onnx", serve_folder=out / "models")
    found = read((out / "models" / "net" / "config.pbtxt").read_text())
    loaded = kr.load_exported(out / "models" / "net" / "1" / "model.onnx")
    for kind in ("input", "output"):
        assert [port["name"] for port in found[kind]] == [port.name for port in getattr(loaded, f"{kind}s")]
    assert [port["data_type"] for port in found["input"]] == ["TYPE_INT32", "TYPE_FP32"]
    assert not (out / "models" / "net" / "labels.txt").exists()


def test_a_batch_size_that_the_file_fixes_is_an_axis_of_the_model():
    found = read(config_of(FORMATS["onnx"], "net", [Port("x", (3, 4), "float32")], [Port("y", (3, 2), "int64")], None))
    assert (found["max_batch_size"], found["input"][0]["dims"]) == (0, [3, 4])
    assert found["output"] == [{"name": "y", "data_type": "TYPE_INT64", "dims": [3, 2]}]
    assert "dynamic_batching" not in found


def test_weights_beside_an_onnx_file_keep_their_name(out):
    for name in ("net.onnx", "net.onnx.data"):
        (out / name).write_text(name)
    with serve_folder(FORMATS["onnx"], [out / "net.onnx.data", out / "net.onnx"], ([], []), {}, out / "net.onnx",
                      out / "models") as publish:  # fmt: skip
        publish()
    assert tree(out / "models") == ["net/1/model.onnx", "net/1/net.onnx.data", "net/config.pbtxt", "net/note.json"]


def test_sizes_that_are_open_and_outputs_of_one_number_a_row():
    inputs = [Port("x", (None, None, 8), "float16"), Port("on", (None, 2), "bool"), Port("u", (None, 1), "uint8")]
    found = read(config_of(FORMATS["onnx"], 'a "net"', inputs, [Port("y", (None,), "float64")], ["a", "b"]))
    assert found["name"] == 'a "net"'
    assert [port["data_type"] for port in found["input"]] == ["TYPE_FP16", "TYPE_BOOL", "TYPE_UINT8"]
    assert found["input"][0]["dims"] == [-1, 8]
    assert found["output"] == [{"name": "y", "data_type": "TYPE_FP64", "dims": [1], "reshape": {"shape": []}}]


@pytest.mark.parametrize(("file", "name"), [("net.v2.onnx", "net.v2"), ("сеть.onnx", "model"), ("../a b.xml", "a_b")])
def test_a_name_that_every_file_system_has(file, name, out):
    assert model_name(out / file) == name


class TestPlaces:
    @pytest.fixture
    def write(self, exported, out):
        """Puts the file that was exported into a repository, as an export to `net.onnx` does."""

        def put(labels=None, **how):
            check_serve_folder(FORMATS["onnx"], out / "net.onnx", out / "models", overwrite=how.get("overwrite", False))
            ports = [Port("x", (None, 4), "float32")], [Port("y", (None, 3), "float32")]
            note = {"labels": labels}
            with serve_folder(FORMATS["onnx"], [exported], ports, note, out / "net.onnx", out / "models") as publish:
                assert not (out / "models" / "net" / "1" / "model.onnx").exists() or how.get("overwrite")
                if how.get("fails"):
                    raise KeyboardInterrupt
                publish()

        return put

    def test_others_stay(self, write, out):
        other = out / "models" / "other"
        other.mkdir(parents=True)
        (other / "config.pbtxt").write_text("mine")
        write()
        assert (other / "config.pbtxt").read_text() == "mine"
        assert names(out / "models") == ["net", "other"]
        assert names(out) == ["models"]

    def test_one_of_the_same_name_is_replaced_where_it_is_ours(self, write, out):
        write(labels=["a", "b", "c"])
        before = fingerprint(out)
        with pytest.raises(FileExistsError) as caught:
            write()
        assert str(caught.value) == (
            f"export: '{out / 'models' / 'net'}' exists. Choose another folder, or replace it with overwrite=True (on "
            "the command line --overwrite)."
        )
        assert fingerprint(out) == before
        write(overwrite=True)
        assert set(fingerprint(out)) == set(before) - {str(Path("models", "net", "labels.txt"))}

    @pytest.mark.parametrize("file", ["config.pbtxt", "2", "thesis.txt"])
    def test_what_is_not_ours_is_not_replaced(self, file, write, out):
        write()
        model = out / "models" / "net"
        (model / file).write_text("mine")
        before = fingerprint(out)
        with pytest.raises(FileExistsError) as caught:
            write(overwrite=True)
        assert str(caught.value) == (
            f"export: '{model}' is not from keras-residual, or holds more than it wrote, and is not replaced. Choose "
            "another folder, or export to a file of another name."
        )
        assert fingerprint(out) == before

    @pytest.mark.parametrize("there", [False, True])
    def test_what_is_broken_off_leaves_all_as_it_was(self, there, write, out):
        if there:
            write(labels=["a", "b", "c"])
        before = fingerprint(out)
        with pytest.raises(KeyboardInterrupt):
            write(overwrite=there, fails=True)
        assert fingerprint(out) == before
        assert names(out) == ["models"] * there

    @pytest.mark.slow
    def test_an_export_that_fails_leaves_the_old_one(self, out):
        kr.export(made("residual"), out / "net.onnx", serve_folder=out / "models")
        before = fingerprint(out)
        with pytest.raises(ExportError):
            kr.export(made("residual"), out / "net.onnx", serve_folder=out / "models", overwrite=True, bound=0.0)
        assert fingerprint(out) == before

    @pytest.mark.parametrize(
        ("file", "folder", "line"),
        [
            ("net.pt2", "models", "export: `serve_folder` must be None where the format is neither 'onnx' nor 'openv"),
            ("net.onnx", "nowhere/models", "export: there is no folder "),
            ("net.onnx", "mine.txt", "export: '"),
            ("net.onnx", "net.onnx", "export: `serve_folder` must be another path than that of the file"),
        ],
    )
    def test_places_that_are_wrong(self, file, folder, line, out):
        (out / "mine.txt").write_text("mine")
        with pytest.raises((ValueError, OSError)) as caught:
            kr.export(classifier(), out / file, serve_folder=out / folder)
        assert str(caught.value).startswith(line)
        assert names(out) == ["mine.txt"]


class TestCommand:
    def arguments(self, out):
        classifier().save(out / "net.keras")
        return ["export", str(out / "net.keras"), str(out / "net.onnx"), "--serve-folder"]

    def test_a_folder_that_cannot_be(self, out, capfd):
        assert app.run([*self.arguments(out), str(out / "nowhere" / "models")]) == 2
        assert "there is no folder" in capfd.readouterr().err
        assert names(out) == ["net.keras"]

    @pytest.mark.slow
    def test_it_says_what_it_did(self, out, capfd):
        assert app.run([*self.arguments(out), str(out / "models")]) == 0
        assert "a model repository of Triton, with this model in it" in capfd.readouterr().out
        assert tree(out / "models") == ["net/1/model.onnx", "net/config.pbtxt", "net/note.json"]
