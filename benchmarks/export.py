"""Which nets leave Keras in which format from which backend, and how far each file's answers are from the model's.

    python benchmarks/export.py
    python benchmarks/export.py --backends torch --formats onnx pt2 --nets residual resnet18

Every file is run by its own runtime and compared before `kr.export` returns; a cell is the largest difference over the
deviation of the outputs, or the reason of a refusal. Each backend has a process of its own. Rows of earlier runs are
kept where a cell is not asked for again, so that the table can be made in parts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BACKENDS = ("jax", "torch", "tensorflow")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite", "saved_model": "", "pt2": ".pt2"}


def _vectors(layer: Callable[[Any], Any]) -> Any:
    import keras

    inputs = keras.Input((16,))
    return keras.Model(inputs, keras.layers.Dense(4)(layer(inputs)))


def _block(**how: Any) -> Any:
    from keras.layers import Dense

    import keras_residual as kr

    return kr.Residual([Dense(16, activation="relu"), Dense(16)], norm="layer_norm", **how)


def _stack(**how: Any) -> Any:
    import keras_residual as kr

    return _vectors(kr.ResidualStack(_block(), depth=6, **how))


def _zoo(name: str, shape: tuple[int, ...]) -> Any:
    import keras_residual as kr

    return kr.create_model(name, input_shape=shape, num_classes=10)


def _vit_like() -> Any:
    import keras
    from keras.layers import Dense

    import keras_residual as kr

    x = inputs = keras.Input((16, 32))
    for _ in range(2):
        attended = keras.layers.LayerNormalization()(x)
        x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(4, 8)(attended, attended)])
        x = kr.Residual([Dense(64, activation="gelu"), Dense(32)], norm="layer_norm")(x)
    return keras.Model(inputs, Dense(10)(keras.layers.GlobalAveragePooling1D()(x)))


def _mobilenet() -> Any:
    import keras

    return keras.applications.MobileNetV3Small((64, 64, 3), weights=None, include_top=False, pooling="avg")


NETS: dict[str, Callable[[], Any]] = {
    "residual": lambda: _vectors(_block(drop_path_rate=0.1)),
    "scanned stack": lambda: _stack(execution="scan"),
    "unrolled stack": lambda: _stack(execution="unrolled"),
    "mhc": lambda: _stack(topology="mhc"),
    "resnet18": lambda: _zoo("resnet18", (64, 64, 3)),
    "cifar_resnet20": lambda: _zoo("cifar_resnet20", (32, 32, 3)),
    "resnest14d": lambda: _zoo("resnest14d", (64, 64, 3)),
    "skresnet18": lambda: _zoo("skresnet18", (64, 64, 3)),
    "tabular_resnet": lambda: _zoo("tabular_resnet", (16,)),
    "series_resnet": lambda: _zoo("series_resnet", (64, 2)),
    "ViT-like": _vit_like,
    "MobileNetV3Small": _mobilenet,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--formats", nargs="+", default=list(SUFFIXES), choices=SUFFIXES)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--out", default="export", help="name of the file of results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        for name in arguments.nets:
            for cell in cells(name, arguments.formats):
                print(json.dumps(cell), flush=True)
        return
    from _report import RESULTS, report

    path = RESULTS / f"{arguments.out}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    known = {(row["net"], row["format"], row["backend"]): row for row in rows}
    for backend in arguments.backends:
        call = [sys.executable, __file__, "--here", "--formats", *arguments.formats, "--nets", *arguments.nets]
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment) as process:
            for line in process.stdout or ():
                if not line.startswith("{"):
                    continue
                cell = json.loads(line)
                known[cell["net"], cell["format"], backend] = {"backend": backend, **cell}
                ordered = [known[key] for net in NETS for key in known if key[0] == net]
                report(arguments.out, ordered)


def cells(name: str, formats: list[str]) -> Any:
    import keras
    import numpy as np

    import keras_residual as kr

    keras.utils.set_random_seed(0)
    model = NETS[name]()
    rng = np.random.default_rng(0)
    for variable in model.variables:  # as no layer starts with: a new head of the zoo gives zeros
        if "variance" in variable.path:
            variable.assign(rng.uniform(0.5, 2, tuple(variable.shape)))
        elif keras.backend.is_float_dtype(variable.dtype):
            variable.assign(variable + 0.1 * rng.standard_normal(tuple(variable.shape)))
    for format in formats:
        start = time.process_time() + _children()
        cell: dict[str, Any] = {
            "net": name,
            "format": format,
            "difference": None,
            "megabytes": None,
            "cpu_seconds": 0.0,
        }
        with tempfile.TemporaryDirectory() as folder:
            try:
                report = kr.export(model, Path(folder, f"net{SUFFIXES[format]}"), format)
                cell["difference"] = report.check.difference / report.check.deviation
                cell["megabytes"] = report.bytes / 1e6
                reason = ""
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        cell["cpu_seconds"] = round(time.process_time() + _children() - start, 1)
        yield {**cell, "reason": reason}


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
