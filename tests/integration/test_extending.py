"""What another package can add: a topology, a depth rule, a merge, a source of data, a format to export to."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_residual as kr
from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual.data import load_dataset
from keras_residual.deploy.formats import FORMATS

PACKAGE = '''
import keras
import keras_residual as kr
import numpy as np


@keras.saving.register_keras_serializable(package="outside")
class LeakyLink(kr.topologies.Link):
    """The streams `(x, m)` become `(x + g F(x), (1 - leak) x + leak m)`."""

    def __init__(self, leak, **kwargs):
        super().__init__(**kwargs)
        self.leak = leak

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")

    def coefficients(self, rows, context):
        transport = ((1, 0), (1 - self.leak, self.leak))
        return kr.topologies.Coefficients(read=(1, 0), transport=transport, write=(self.gain, 0))


@keras.saving.register_keras_serializable(package="outside")
class Leaky(kr.topologies.Topology):
    """A stream and a leaky mean of it, which is added at the end."""

    def __init__(self, leak=0.5, **kwargs):
        super().__init__(**kwargs)
        self.leak = leak

    def begin(self, x):
        return x, x

    def end(self, rows):
        return rows[0] + rows[1]

    def link(self, place):
        return LeakyLink(self.leak, name=place.link_name, dtype=self.dtype_policy)


@keras.saving.register_keras_serializable(package="outside")
class PowerOfDepth(kr.depth_rules.DepthRule):
    """Scales each of `L` branches by `L ** -power`."""

    name = "power_of_depth"

    def __init__(self, power=0.5):
        self.power = power

    def plan(self, *, depth, per_block):
        scale = np.full((depth, per_block), (depth * per_block) ** -self.power)
        return kr.depth_rules.DepthPlan(branch_scale=scale)


@keras.saving.register_keras_serializable(package="outside")
class SharpMax(kr.Merge):
    """`max(skip, sharpness * branch)`."""

    def __init__(self, sharpness=1.0, **kwargs):
        super().__init__(**kwargs)
        self.sharpness = sharpness

    def merge(self, skip, branch):
        return keras.ops.maximum(skip, self.sharpness * branch)


class Ramps:
    """Pictures that brighten to the right or downwards, each made when it is asked for."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        ramp = np.broadcast_to(np.arange(8, dtype=np.uint8) * 30 + index, (8, 8))
        return (ramp if index % 2 else ramp.T)[..., None], index % 2
'''

FORMAT = """
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
from keras_residual.deploy.formats.base import NOTE, Format, Port, Program


class Archive(Format):
    name = "archive"
    suffix = ".archive"
    writer = "program"

    def write(self, model, signature, path, options):
        model.save(f"{path}.keras")
        Path(f"{path}.keras").rename(path)

    def load(self, path, threads=None):
        return Loaded(path)

    def annotate(self, path, note):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(NOTE, json.dumps(note))


class Loaded(Program):
    def __init__(self, path):
        with zipfile.ZipFile(path) as archive:
            self.note = json.loads(archive.read(NOTE)) if NOTE in archive.namelist() else {}
        copy = path.with_suffix(".keras")
        copy.write_bytes(path.read_bytes())
        self.model = keras.saving.load_model(copy)
        copy.unlink()
        self.inputs = [Port("x", self.model.input_shape, "float32")]
        self.outputs = [Port("y", self.model.output_shape, "float32")]

    def run(self, arrays):
        return [np.asarray(self.model.predict_on_batch(arrays[0]))]
"""

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
DEPTH = 3


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside_package").mkdir()
    (folder / "outside_package" / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("outside_package")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["outside_package"]


def block() -> kr.Residual:
    return kr.Residual(layers.Dense(4, activation="tanh", name="dense"), name="block")


def branches(stack: kr.ResidualStack) -> list[Any]:
    weights = stack.get_stacked_weights()
    kernels, biases = weights["block/dense/kernel"], weights["block/dense/bias"]
    return [lambda x, k=k, b=b: np.tanh(x @ k + b) for k, b in zip(kernels, biases, strict=True)]


def saved_and_loaded(layer: keras.Layer, folder: Path) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), layer])
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
def test_a_topology(outside: ModuleType, execution: str, tmp_path: Path) -> None:
    stack = kr.ResidualStack(block(), DEPTH, topology=outside.Leaky(leak=0.25), execution=execution)
    stack.build(X.shape)
    gains = np.array([0.5, 2.0, -1.0], "float32")
    stack.set_stacked_weights({"link_0/gain": gains})
    x, m = X, X
    for gain, branch in zip(gains, branches(stack), strict=True):
        x, m = x + gain * branch(x), 0.75 * x + 0.25 * m
    assert_close(stack(X), x + m, 1e-5)
    _, found = gradients(stack, [X], stack.trainable_variables)
    assert all(gradient is not None and np.any(gradient) for gradient in found)
    assert_close(saved_and_loaded(stack, tmp_path)(X), x + m, 1e-5)


def test_a_depth_rule(outside: ModuleType, tmp_path: Path) -> None:
    stack = kr.ResidualStack(block(), DEPTH, depth_rule=outside.PowerOfDepth(power=2.0))
    stack.build(X.shape)
    x = X
    for branch in branches(stack):
        x = x + branch(x) / DEPTH**2
    assert_close(stack(X), x, 1e-5)
    assert_close(saved_and_loaded(stack, tmp_path)(X), x, 1e-5)


def test_a_merge(outside: ModuleType, tmp_path: Path) -> None:
    layer = kr.Residual(layers.Dense(4, name="dense"), merge=outside.SharpMax(sharpness=3.0))
    found = to_numpy(layer(X))
    kernel, bias = layer.branch[0].get_weights()
    assert_close(found, np.maximum(X, 3 * (X @ kernel + bias)), 1e-5)
    assert_close(saved_and_loaded(layer, tmp_path)(X), found, 1e-6)


@pytest.mark.any_backend
def test_a_source_of_data(outside: ModuleType) -> None:
    dataset = load_dataset(outside.Ramps(), seed=1)
    assert (len(dataset.x_train), len(dataset.x_test), dataset.input_shape) == (32, 8, (8, 8, 1))
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        pictures = np.asarray(x[np.arange(len(x))], "int64")
        assert np.array_equal(pictures[:, 0, 7, 0] > pictures[:, 7, 0, 0], np.asarray(y) == 1)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the format is written from PyTorch")
def test_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_format.py").write_text(FORMAT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "archive", importlib.import_module("outside_format").Archive())
    model = keras.Sequential([keras.Input((4,)), block()])
    report = kr.export(model, tmp_path / "net.archive")
    assert (report.format, report.check.batch_sizes) == ("archive", (1, 5))
    assert_close(kr.load_exported(tmp_path / "net.archive").predict(X), model(X), 1e-6)
