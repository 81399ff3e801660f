"""A model leaves Keras as a file that answers as the model does, and says what it is."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.layers import Dense

import keras_residual as kr
from deploy.nets import NETS, QUICK, close, made, rows
from keras_residual.deploy import verify
from keras_residual.deploy.child import ExportError
from keras_residual.deploy.formats import FORMATS
from keras_residual.deploy.formats.base import OPSETS
from keras_residual.deploy.signature import Port

ROOT = Path(__file__).parents[2]
FILES = {"onnx": "net.onnx", "openvino": "net.xml", "litert": "net.tflite", "saved_model": "net", "pt2": "net.pt2"}
HERE = {"torch": ("onnx", "openvino", "pt2"), "tensorflow": ("litert", "saved_model"), "jax": ("saved_model",)}
"""Formats that are written in the process; the others take seconds in one of their own."""


QUICK_CELLS = {("residual", name) for name in HERE[keras.backend.backend()]}
QUICK_CELLS |= {(net, HERE[keras.backend.backend()][0]) for net in QUICK}
CELLS = [
    pytest.param(net, name, marks=() if (net, name) in QUICK_CELLS else pytest.mark.slow)
    for net in NETS
    for name in FILES
]


def predicted(model, x):
    return model.predict(x, verbose=0)


@pytest.mark.parametrize(("net", "name"), CELLS)
def test_a_file_answers_as_the_model_does(net, name, tmp_path):
    model = made(net)
    report = kr.export(model, tmp_path / FILES[name])
    assert report.check.batch_sizes == (1, 5)
    assert report.format == name
    loaded = kr.load_exported(tmp_path / FILES[name])
    x = rows(model, 7)
    expected = predicted(model, x)
    found = loaded.predict(x, batch_size=3)  # two whole batches and the rest
    close(list(found.values()) if isinstance(found, dict) else found, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {FILES[name], f"{FILES[name]}.json", *({"net.bin"} if name == "openvino" else ())}
    )
    assert report.bytes > 4 * model.count_params()


@pytest.mark.slow
@pytest.mark.any_backend
def test_one_file_of_another_backend(tmp_path):
    """The rotated ones are more thorough; this one is run each time."""
    model = made("two of each")
    kr.export(model, tmp_path / "net.tflite")
    found = kr.load_exported(tmp_path / "net.tflite").predict(rows(model, 4))
    assert list(found) == ["Klasse_A", "tensor_2"]
    close(list(found.values()), predicted(model, rows(model, 4)))


@pytest.mark.any_backend
class TestNote:
    def test_it_lies_beside_the_file_and_in_it(self, tmp_path):
        labels = ["Katze", "犬", "a b"]
        model = keras.Sequential([keras.Input((4,)), Dense(3, activation="softmax")], name="tiere")
        report = kr.export(model, tmp_path / "net.onnx", labels=labels, features=["a", "b", "c", "d"])
        beside = json.loads((tmp_path / "net.onnx.json").read_text(encoding="utf-8"))
        loaded = kr.load_exported(tmp_path / "net.onnx")
        assert loaded.note == beside
        assert loaded.labels == labels
        assert beside["model"] == "tiere"
        assert beside["ending"] == "softmax"
        assert beside["features"] == ["a", "b", "c", "d"]
        assert beside["check"]["difference"] == report.check.difference
        assert beside["versions"]["keras"] == keras.__version__
        assert {"keras-residual", "onnxruntime", "torch"} <= set(beside["versions"])
        assert report.to_dict()["path"] == str(tmp_path / "net.onnx")
        assert str(report).startswith(f"{tmp_path / 'net.onnx'}: onnx, 0.0 MB; largest difference ")
        assert repr(loaded).startswith("<Exported onnx 'net.onnx': ")

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["openvino", "pt2"])
    def test_every_format_holds_it(self, name, tmp_path):
        kr.export(made("residual"), tmp_path / FILES[name], labels=["x", "y", "z"])
        (tmp_path / f"{FILES[name]}.json").unlink()
        assert kr.load_exported(tmp_path / FILES[name]).labels == ["x", "y", "z"]

    def test_a_file_of_another_program_has_none(self, tmp_path):
        onnx = pytest.importorskip("onnx")
        tensor = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [tensor("x", 1, ["n", 2])], [tensor("y", 1, ["n", 2])]
        )
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(made, tmp_path / "other.onnx")
        loaded = kr.load_exported(tmp_path / "other.onnx")
        assert (loaded.note, loaded.labels) == ({}, None)
        np.testing.assert_array_equal(loaded.predict([[1, 2]]), [[-1, -2]])


@pytest.mark.any_backend
class TestPredict:
    @pytest.fixture
    def loaded(self, tmp_path):
        kr.export(made("two of each"), tmp_path / "net.onnx")
        return kr.load_exported(tmp_path / "net.onnx")

    def test_inputs_by_name_and_in_order(self, loaded):
        model = made("two of each")
        words, size = rows(model, 6)
        names = [port.name for port in loaded.inputs]
        by_name = loaded.predict(dict(zip(names, (words, size), strict=True)))
        in_order = loaded.predict([words, size])
        for name, expected in zip(by_name, predicted(model, [words, size]), strict=True):
            np.testing.assert_array_equal(by_name[name], in_order[name])
            close(by_name[name], expected)

    def test_what_is_refused(self, loaded):
        words, size = np.zeros((2, 5), "int32"), np.zeros((2, 4), "float32")
        names = [port.name for port in loaded.inputs]
        for wrong, rule in [
            ({"x": words}, f"must be a dictionary with {', '.join(names)} or with .*, but received \\['x'\\]"),
            (words, f"must be 2 arrays in a list, for {', '.join(names)}, but received .*There are 1"),
            ([["a"] * 5, size], rf"must be numbers, for {names[0]}, but received 'str32'"),
            ([words, [[1], [1, 2]]], rf"must be what makes an array of float32, for {names[1]} of shape"),
            ([words, None], f"must be numbers, for {names[1]}, but received 'object'"),
            ([words, size[:1]], r"must be as many rows of each input, but received \[2, 1\]"),
            ([words, size[:, :3]], rf"must be for {names[1]} of shape \(None, 4\), but received \(2, 3\)"),
        ]:
            with pytest.raises(ValueError, match=rule):
                loaded.predict(wrong)

    def test_no_rows_give_no_rows(self, tmp_path):
        kr.export(made("residual"), tmp_path / "net.onnx")
        assert kr.load_exported(tmp_path / "net.onnx").predict(np.zeros((0, 6), "float32")).shape == (0, 3)

    def test_a_batch_size_that_the_file_fixes(self, tmp_path):
        model = made("residual")
        kr.export(model, tmp_path / "net.onnx", batch_size=4)
        loaded = kr.load_exported(tmp_path / "net.onnx")
        assert loaded.inputs[0].shape == (4, 6)
        close(loaded.predict(rows(model, 7)), predicted(model, rows(model, 7)))


@pytest.mark.any_backend
def test_names_of_the_model_are_kept_beside_those_of_the_file(tmp_path):
    """Each input and output is told from the others by what the model calls it, which few formats can write."""
    inputs = {name: keras.Input((3,), name=name) for name in ("ä", "ö", "x.1", "x_1", "1st")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, {"score": Dense(2, name="o2")(joined), "again": Dense(1, name="o1")(joined)})
    x = {name: np.random.default_rng(index).normal(size=(4, 3)).astype("f") for index, name in enumerate(inputs)}
    file = {"torch": "net.pt2", "tensorflow": "net.tflite", "jax": "net"}[keras.backend.backend()]
    for path in dict.fromkeys((tmp_path / "net.onnx", tmp_path / file)):
        kr.export(model, path)
        loaded = kr.load_exported(path)
        assert {port.own_name for port in loaded.inputs} == set(x)
        assert {port.own_name for port in loaded.outputs} == {"score", "again"}
        noted = json.loads((tmp_path / f"{path.name}.json").read_text(encoding="utf-8"))
        assert {port["own_name"] for port in noted["inputs"]} == set(x)
        found = loaded.predict(x)
        assert set(found) == {"score", "again"}
        again = loaded.predict({port.name: x[port.own_name] for port in loaded.inputs})
        for name, expected in predicted(model, x).items():
            close(found[name], expected)
            np.testing.assert_array_equal(found[name], again[name])


def _alike():
    a = keras.Input((4,))
    return keras.Model(a, {"a b": Dense(2)(a), "a_b": Dense(2)(a), "a_b_1": Dense(2)(a)})


def _on_both_sides():
    a = keras.Input((4,), name="image")
    return keras.Model({"image": a}, {"image": Dense(4)(a), "z": Dense(2)(a), "image_1": Dense(3)(a)})


def _cyrillic():
    a = keras.Input((4,), name="картина")
    return keras.Model({"картина": a}, {"ответ": Dense(2)(a)})


def _as_a_value_within():
    a = keras.Input((4,))
    return keras.Model(a, [keras.ops.argmax(a, -1), Dense(2)(a)])


def _as_places():
    a = keras.Input((4,))
    return keras.Model(a, [Dense(2, name="output_1")(a), Dense(2, name="output_0")(a)])


@pytest.mark.any_backend
@pytest.mark.parametrize("file", ["net.onnx", "net.pt2"])
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (_alike, ["a_b_0", "a_b_2", "a_b_1"]),
        (_on_both_sides, ["image_2", "image_1", "z"]),
        (_cyrillic, ["tensor_1"]),
        (_as_a_value_within, None),
        (_as_places, None),
    ],
)
def test_names_of_a_file_are_unique(make, names, file, tmp_path):
    model = make()
    x = rows(model, 6)
    x = dict.fromkeys(model.input, x) if isinstance(model.input, dict) else x
    kr.export(model, tmp_path / file)
    loaded = kr.load_exported(tmp_path / file)
    found, expected = loaded.predict(x), predicted(model, x)
    made = [port.name for port in loaded.outputs]
    assert names in (None, made)
    assert len({*made, *(port.name for port in loaded.inputs)}) == len(made) + 1
    if isinstance(expected, dict):
        expected = [expected[port.own_name] for port in loaded.outputs]
    for name, wanted in zip(made, expected, strict=True):
        close(found[name] if len(made) > 1 else found, wanted)


@pytest.mark.any_backend
def test_half_precision_of_a_model_that_was_loaded(tmp_path):
    """Its own dtype policy is that of the process, its layers keep theirs."""
    model = keras.Sequential(
        [keras.Input((6,)), Dense(8, dtype="mixed_float16"), Dense(3, dtype="mixed_float16")], name="half"
    )
    assert model.compute_dtype == "float32"
    assert kr.export(model, tmp_path / "net.pt2").check.bound == verify.BOUNDS["float16"]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("file", "refuses"), [("net.onnx", "ONNX Runtime"), ("net.tflite", "LiteRT"), ("net.xml", ""), ("net.pt2", "")]
)
def test_bfloat16(file, refuses, tmp_path):
    layers = [kr.Residual(Dense(6, dtype="mixed_bfloat16"), dtype="mixed_bfloat16"), Dense(3, dtype="mixed_bfloat16")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    if refuses:
        with pytest.raises(ValueError, match=f"of another dtype policy, since {refuses}.* bfloat16"):
            kr.export(model, tmp_path / file)
        assert list(tmp_path.iterdir()) == []
        return
    kr.export(model, tmp_path / file)
    x = rows(model, 7)
    expected = keras.ops.cast(model(x), "float32")
    close(kr.load_exported(tmp_path / file).predict(x).astype("float32"), expected, part=0.1)


@pytest.mark.any_backend
def test_pictures_in_where_the_file_standardises_them(tmp_path):
    model = made("convolutions")
    layer = kr.Preprocessing(size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    kr.export(model, tmp_path / "net.onnx", preprocessing=layer)
    loaded = kr.load_exported(tmp_path / "net.onnx")
    assert [(port.shape, port.dtype) for port in loaded.inputs] == [((None, 8, 8, 3), "uint8")]
    assert loaded.note["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), "uint8")
    standardised = (pictures / 255 - layer.mean) / np.array(layer.std)
    close(loaded.predict(pictures), predicted(model, standardised.astype("float32")), part=1e-3)


class Own(keras.Model):
    """A model whose class has a call of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = kr.Residual(Dense(4)), Dense(2)

    def call(self, inputs):
        return self.second(self.first(inputs["a"]) + inputs["b"])


@pytest.mark.any_backend
def test_a_model_of_a_class_of_the_users_own(tmp_path):
    model, x = Own(name="own"), {name: np.ones((3, 4), "float32") for name in "ab"}
    with pytest.raises(ValueError, match=r"`model` must be built, but received 'own'.* Call it on a batch first"):
        kr.export(model, tmp_path / "net.onnx")
    model(x)
    with pytest.raises(ValueError, match="`samples` must be given for a model whose class has a `call` of its own"):
        kr.export(model, tmp_path / "net.onnx")
    kr.export(model, tmp_path / "net.onnx", samples=x)
    loaded = kr.load_exported(tmp_path / "net.onnx")
    assert [port.name for port in loaded.inputs] == ["a", "b"]
    close(loaded.predict(x), predicted(model, x))


def _broken_row(row):
    x = np.random.default_rng(1).normal(size=(30, 8, 8, 3))
    x[row, 2, 1, 0] = np.inf
    return x


@pytest.mark.any_backend
class TestInt8:
    @pytest.fixture
    def model(self):
        return made("convolutions")

    @pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
    def test_it_agrees_on_rows_that_it_was_not_calibrated_on(self, model, name, tmp_path, caplog):
        report = kr.export(model, tmp_path / FILES[name], int8=rows(model, 120), agreement=0.8)
        assert 0.8 <= report.agreement <= 1
        assert not [record for record in caplog.records if "onnxruntime" in record.pathname]
        assert (b"DequantizeLinear" if name == "onnx" else b"FakeQuantize") in (tmp_path / FILES[name]).read_bytes()
        loaded = kr.load_exported(tmp_path / FILES[name])
        assert loaded.note["int8"]["agreement"] == report.agreement
        x = rows(model, 100, seed=11)
        assert verify.agreement(predicted(model, x), loaded.predict(x)) > 0.8

    @pytest.mark.filterwarnings("ignore:export. on the 10 rows")
    def test_too_little_agreement_leaves_nothing(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(verify, "agreement", lambda ours, theirs: 0.5)
        with pytest.raises(
            ExportError,
            match=r"agrees with the model in 50.0%, under the bound of 97.0%\. In 'dense.*' the class is the same in ",
        ):
            kr.export(model, tmp_path / "net.onnx", int8=rows(model, 32))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "given", "rule"),
        [
            ("onnx", np.zeros((15, 8, 8, 3)), "`int8` must be at least 16 rows"),
            ("onnx", np.zeros((30, 8, 8, 1)), "`int8` must be rows of shape"),
            ("onnx", [np.zeros((30, 8, 8, 3))] * 2, "`int8` must be rows of shape"),
            (
                "onnx",
                np.zeros((30, 8, 8, 3)),
                "`int8` must be rows that differ, since .*, but received '30 equal rows'",
            ),
            ("onnx", np.full((30, 8, 8, 3), np.nan), "`int8` must be finite numbers, for .*, but received 'row 0'"),
            ("onnx", _broken_row(3), "`int8` must be finite numbers, for .*, but received 'row 3'"),
            ("onnx", np.full((30, 8, 8, 3), "a"), "`int8` must be numbers, for "),
            ("pt2", np.zeros((30, 8, 8, 3)), "`int8` must be None where the format is neither 'onnx' nor 'openvino'"),
        ],
    )
    def test_what_is_refused(self, model, name, given, rule, tmp_path):
        with pytest.raises(ValueError, match=rule):
            kr.export(model, tmp_path / FILES[name], int8=given)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("units", "what"), [(3, "the same class"), (1, "the same output")])
    def test_agreement_that_says_nothing_is_told(self, units, what, tmp_path):
        model = keras.Sequential([keras.Input((4,)), Dense(units)])
        model.layers[0].set_weights([np.full((4, units), 1e-4 * (units > 1)), np.arange(units) + 1.0])
        with pytest.warns(UserWarning, match=f"^export: on the 16 rows of `int8` that .* the model gives {what} in '"):
            report = kr.export(model, tmp_path / "net.onnx", int8=rows(model, 50))
        assert report.agreement > 0.97


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("path", "how", "rule"),
    [
        ("net.h5", {}, "`path` must be a path that ends in .onnx .onnx., .xml"),
        ("net.onnx", {"format": "onx"}, "unknown name for `format`: 'onx'. Did you mean 'onnx'?"),
        ("net.onnx", {"format": "openvino"}, "`path` must be a path that ends in .xml, as format='openvino' has it"),
        ("net.onnx", {"agreement": "much"}, "`agreement` must be a share in"),
        ("net.onnx", {"bound": "x"}, "`bound` must be a number of at least 0, but received 'x'"),
        ("net.onnx", {"bound": -1}, "`bound` must be a number of at least 0"),
        ("net.onnx", {"bound": np.nan}, "`bound` must be a number of at least 0"),
        ("net.onnx", {"batch_size": 0}, "`batch_size` must be a whole number of at least 1"),
        ("net.onnx", {"batch_size": 1.5}, "`batch_size` must be a whole number of at least 1"),
        ("net.onnx", {"timeout": 0}, "`timeout` must be a number above 0"),
        ("net.onnx", {"opset": 17}, "`opset` must be a whole number from 18 to 25, but received 17"),
        ("net.onnx", {"opset": 999}, "`opset` must be a whole number from 18 to 25, but received 999"),
        ("net.onnx", {"format": 3}, "`format` must be None or one of onnx, openvino, litert, saved_model, pt2, but"),
        (f"{'n' * 300}.onnx", {}, "`path` must be a place where a file can be made, but received "),
        ("net.onnx", {"samples": np.zeros((0, 6))}, "`samples` must be one or more rows for input of shape"),
        ("net.onnx", {"samples": np.zeros((4, 5))}, "`samples` must be one or more rows for input of shape"),
        ("net.onnx", {"samples": np.full((4, 6), "a")}, "`samples` must be numbers, for input, but received 'str32'"),
        ("net.onnx", {"samples": [np.zeros((4, 6))] * 2}, "`samples` must be a batch for each input"),
        (
            "net.onnx",
            {"samples": np.array([[0.0] * 6, [0.0] * 5 + [np.inf]])},
            "`samples` must be finite numbers, for input, but received 'row 1'",
        ),
        ("net.onnx", {"agreement": 2}, "`agreement` must be a share in"),
        ("net.onnx", {"preprocessing": kr.Preprocessing(size=(8, 8))}, "`preprocessing` must be None for a model that"),
    ],
)
def test_calls_that_are_refused(path, how, rule, tmp_path):
    with pytest.raises((TypeError, ValueError), match=rule):
        kr.export(made("residual"), tmp_path / path, **how)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.any_backend
@pytest.mark.parametrize("opset", OPSETS)
def test_the_operators_are_those_that_were_asked_for(opset, tmp_path):
    onnx = pytest.importorskip("onnx")
    kr.export(made("convolutions"), tmp_path / "net.onnx", opset=opset)
    assert {one.domain: one.version for one in onnx.load(tmp_path / "net.onnx").opset_import}[""] == opset


@pytest.mark.any_backend
def test_a_file_of_other_operators_than_asked_for_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_residual.deploy.export.OPSETS", (1, 99))
    with pytest.raises(ExportError, match=r"these versions of PyTorch and onnxscript write opset 18, not 17\."):
        kr.export(made("convolutions"), tmp_path / "net.onnx", opset=17)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.any_backend
@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN in 18 of 18 values"), (np.inf, "NaN in |infinite")])
def test_a_model_that_gives_no_numbers_is_not_compared(value, said, tmp_path):
    model = made("residual")
    model.layers[-1].bias.assign(np.full(3, value))
    rule = f"`model` must be one that gives numbers for the rows that the file is tried with, but received .*{said}"
    with pytest.raises(ValueError, match=rule):
        kr.export(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def _foreign(path, *, inputs=(("x", 1, [None, 2]),), output=(1, [None, 2]), note=None):
    """Writes an ONNX file as another program may: one input handed on, or made a number of."""
    onnx = pytest.importorskip("onnx")
    ports = [onnx.helper.make_tensor_value_info(*port) for port in inputs]
    node = onnx.helper.make_node(
        "Identity" if output[1] else "ReduceSum", ["x"], ["y"], **({} if output[1] else {"keepdims": 0})
    )
    graph = onnx.helper.make_graph([node], "g", ports, [onnx.helper.make_tensor_value_info("y", *output)])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    if note is not None:
        onnx.helper.set_model_props(made, {"keras_residual.json": note})
    onnx.save(made, path)
    return path


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "note", ["[]", "3", "null", '{"inputs": 3}', '{"inputs": [{}], "outputs": [{}]}', '{"labels": 3}', "{"]
)
def test_a_note_that_is_none_of_ours(note, tmp_path):
    path = _foreign(tmp_path / "net.onnx", note=note)
    with pytest.raises(ValueError, match="load_exported: `path` must be a file that onnx can run, but received"):
        kr.load_exported(path)


@pytest.mark.any_backend
@pytest.mark.parametrize("port", [("x", 1, []), ("x", 1, None), ("x", 8, [None, 2])])
def test_files_that_take_no_rows_of_numbers(port, tmp_path):
    path = _foreign(tmp_path / "net.onnx", inputs=[port], output=port[1:] if port[2] else (port[1], None))
    with pytest.raises(
        ValueError, match=r"`path` must be a model that takes rows of numbers, but received .* Its input x"
    ):
        kr.load_exported(path)


@pytest.mark.any_backend
def test_an_output_that_is_one_number(tmp_path):
    found = kr.load_exported(_foreign(tmp_path / "net.onnx", output=(1, [])))
    with pytest.raises(ValueError, match="must be a model of which each output is an array with the rows first"):
        found.predict(np.ones((3, 2)))


@pytest.mark.any_backend
@pytest.mark.parametrize("fixed", [None, 4])
def test_rows_of_any_number_and_batches_of_a_whole_one(fixed, tmp_path):
    x = np.arange(18.0).reshape(9, 2)
    found = kr.load_exported(_foreign(tmp_path / "net.onnx", inputs=[("x", 1, [fixed, 2])], output=(1, [fixed, 2])))
    for count in (0, 1, 4, 9):
        np.testing.assert_array_equal(found.predict(x[:count]), x[:count])
    for size in (0, -1, 1.5, None, True):
        with pytest.raises((TypeError, ValueError), match="`batch_size` must be a whole number of at least 1"):
            found.predict(x, size)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("dtype", "value", "rule"),
    [
        ("uint8", 0.5, r"whole numbers from 0 to 255, for x of dtype uint8, but received 0\.5"),
        ("uint8", -1, "whole numbers from 0 to 255, for x of dtype uint8, but received -1"),
        ("uint8", 256.0, "whole numbers from 0 to 255"),
        ("uint8", np.nan, "whole numbers from 0 to 255, for x of dtype uint8, but received nan"),
        ("int64", 2.0**63, "whole numbers from -9223372036854775808"),
        ("int32", 2**31, "whole numbers from -2147483648 to 2147483647"),
        ("bool", 2, "booleans, for x of dtype bool, but received 2"),
        ("float32", 1e300, r"numbers from -3\.4.* for x of dtype float32, but received 1e\+300"),
        ("float32", 1 + 2j, "numbers, for x, but received 'complex128'"),
        ("float32", None, "numbers, for x, but received 'object'"),
        ("float32", "1", "numbers, for x, but received 'str"),
    ],
)
def test_an_input_holds_what_was_passed_or_is_refused(dtype, value, rule):
    port = Port("x", (None, 2), dtype)
    with pytest.raises(ValueError, match=f"load_exported: `x` must be {rule}"):
        port.array("load_exported", "x", [[1, 1], [1, value]])


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "float64", "bool"])
@pytest.mark.parametrize("given", ["bool", "uint8", "int8", "int64", "float32", "float64", "object"])
def test_what_an_input_holds_is_taken_as_it_is(dtype, given):
    x = np.array([[0, 1], [1, 0]]).astype(given)
    found = Port("x", (None, 2), dtype).array("load_exported", "x", x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x)


@pytest.mark.any_backend
def test_calls_of_load_exported_that_are_refused(tmp_path):
    path = _foreign(tmp_path / "net.onnx")
    for wrong in (3, None, "", "a\0"):
        with pytest.raises((TypeError, ValueError), match="load_exported: `path` must be a path"):
            kr.load_exported(wrong)
    with pytest.raises(FileNotFoundError, match=r"There is no file '/nnn.*\.onnx'"):
        kr.load_exported(f"/{'n' * 5000}.onnx")
    for wrong in ("2", -1, 0, 10**9):
        with pytest.raises((TypeError, ValueError), match="load_exported: `threads` must be a whole number from 1 to"):
            kr.load_exported(path, threads=wrong)


@pytest.mark.any_backend
def test_what_is_no_model(tmp_path):
    with pytest.raises(TypeError, match=r"export: `model` must be a keras\.Model, but received 'model\.keras'"):
        kr.export("model.keras", tmp_path / "net.onnx")


@pytest.mark.any_backend
@pytest.mark.parametrize("name", list(FILES))
def test_files_that_are_none_of_the_format(name, tmp_path):
    path = tmp_path / FILES[name]
    path.mkdir() if name == "saved_model" else path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=f"load_exported: `path` must be a file that {name} can run, but received"):
        kr.load_exported(path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        kr.load_exported(tmp_path / f"missing-{FILES[name]}")


@pytest.mark.any_backend
def test_openvino_tells_its_makers_nothing(tmp_path):
    """It would when it is imported, in a fork of the process that exports, and JAX must not be forked."""
    (tmp_path / "net.xml").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="a file that openvino can run"):
        kr.load_exported(tmp_path / "net.xml")
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.any_backend
def test_agreement_is_of_classes_or_of_numbers():
    ours = np.array([[1.0, 1.2], [3.0, 1.0], [0.0, 2.0], [5.0, 0.0]])
    assert verify.agreement(ours, ours + np.array([0.3, 0])) == 0.75
    numbers = np.arange(10.0)[:, None]
    assert verify.agreement(numbers, numbers + 0.1) == pytest.approx(1 - 0.1 / numbers.std())
    assert verify.agreement(np.ones((3, 1)), np.ones((3, 1))) == 1
    assert verify.agreement(numbers, -100 * numbers) == 0


@pytest.mark.any_backend
def test_a_column_that_is_lost_counts_though_the_largest_is_found():
    """Two numbers of different size: int8 keeps the large one, and which is the larger says nothing."""
    rng = np.random.default_rng(5)
    ours = np.column_stack([rng.normal(size=60), 1000 + 300 * rng.normal(size=60)])
    assert verify.agreement(ours, ours * [0, 1]) == 0
    assert verify.agreement(ours, ours * [0.4, 1]) == pytest.approx(
        1 - 0.6 * np.sqrt(np.mean(ours[:, 0] ** 2)) / ours[:, 0].std()
    )
    assert verify.agreement(ours, ours + np.array([0.1, 3])) == 1
    # Of a softmax a rare class may be lost, and the classes are the same.
    likely = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.3, 0]]) + [-1e-4, 0, 1e-4] * rng.uniform(size=(3, 1))
    assert verify.agreement(likely, likely * [1, 1, 0]) == 1


@pytest.mark.any_backend
def test_a_class_that_never_wins_may_have_a_score_that_hardly_varies():
    rng = np.random.default_rng(5)
    ours = rng.normal(size=(300, 5)) * [1, 1.2, 0.8, 1, 0.019] - [0, 0, 0, 0, 2]
    found = ours + 0.02 * rng.normal(size=ours.shape)
    assert verify.agreement(ours, found) == (ours.argmax(-1) == found.argmax(-1)).mean() > 0.95
    # One that is far off though it never wins, and one that varies as the others do.
    assert verify.agreement(ours, found - [0, 0, 0, 0, 3]) == 0
    assert verify.agreement(ours, ours * [0, 1, 1, 1, 1]) == 0
    assert verify.disagreement("scores", ours, ours * [1, 1, 0, 1, 1]).startswith("In 'scores' the class is the same")
    assert verify.disagreement("scores", ours, ours * [1, 1, 0, 1, 1]).endswith(
        "% of the rows, but column 2 is off by half of its deviation or more."
    )
    # A small number beside two large ones, each of which is the larger at times.
    numbers = np.column_stack([rng.normal(size=60), *(1000 + 300 * rng.normal(size=(2, 60)))])
    assert verify.agreement(numbers, numbers * [0, 1, 1]) == 0


def test_every_format_is_tried_here():
    assert set(FILES) == set(FORMATS)


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]


def shown(part):
    """Returns the rows of a table of the documentation as lists of cells, without the header."""
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    lines = page.partition(f"<!-- {part}, by ")[2].partition(f"<!-- end of {part} -->")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][2:]


@pytest.mark.any_backend
class TestMeasured:
    def test_every_cell_ran_and_was_compared(self):
        rows = {(row["net"], row["backend"], row["format"]): row for row in results("export")}
        refused = [row for row in rows.values() if row["reason"]]
        assert len(refused) <= 0.05 * len(rows)
        assert all(row["difference"] <= 2e-4 for row in rows.values() if not row["reason"])
        assert all(row["reason"].startswith("ExportError: ") for row in refused)
        cells = {
            (net, backend, name): cell
            for net, backend, *found in shown("cells")
            for name, cell in zip(FORMATS, found, strict=True)
        }
        assert len(cells) == 12 * 3 * len(FORMATS)
        filled = {key: "refused" if row["reason"] else f"{row['difference']:.1e}" for key, row in rows.items()}
        assert cells == filled

    def test_a_real_net_answers_as_in_keras(self):
        rows = results("exported_answers")
        assert {row["file"] for row in rows} == {"keras", *FORMATS, "onnx-int8", "openvino-int8"}
        for row in rows:
            if row["file"].endswith("int8"):
                assert row["agreement"] >= 0.975
            else:
                assert (row["right"], row["agreement"]) == (8103, 1)
        assert [cells[2:4] for cells in shown("answers")] == [
            [f"{row['right']:,}", f"{row['agreement']:.4f}"] for row in rows
        ]


SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", ROOT.parent / "shared"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_real_net_answers_real_pictures_one_by_one(name, tmp_path):
    """`benchmarks/exported_answers.py` has all 10,000."""
    weights, test = SHARED / "weights/resnet20-12fca82f.th", SHARED / "data/cifar10-jpeg/test.parquet"
    if not (weights.exists() and test.exists()):
        pytest.skip(f"needs {weights} and {test}; KERAS_RESIDUAL_TEST_DATA names the folder that holds them")
    parquet, picture = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("PIL.Image")
    files = parquet.read_table(test)["img"][:400].to_pylist()
    x = np.stack([np.asarray(picture.open(io.BytesIO(file["bytes"]))) for file in files])
    x = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10, weights=weights)
    kr.export(model, tmp_path / FILES[name])
    found, expected = kr.load_exported(tmp_path / FILES[name]).predict(x), predicted(model, x.astype("float32"))
    close(found, expected)
    np.testing.assert_array_equal(np.argmax(found, -1), np.argmax(expected, -1))
