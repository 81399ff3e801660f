"""Which nets leave Keras in which format from which backend, and how far each file's answers are from the model's.

    python benchmarks/export.py
    python benchmarks/export.py --backends torch --formats onnx pt2 --nets residual resnet18 --again

Every file is run by its own runtime and compared before `kr.export` returns; a cell is the largest difference over the
deviation of the outputs, or the reason of a refusal. Each backend has one process, and one more for each framework that
writes for it. A cell is written to the results as soon as it is there: what was interrupted goes on where it stopped.
Cells that the same versions have filled are not filled again without `--again`. The table in docs/export.md is written
from the results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
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


def _stack(depth: int = 6, **how: Any) -> Any:
    import keras_residual as kr

    return _vectors(kr.ResidualStack(_block(), depth, **how))


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
    "mhc": lambda: _stack(2, topology="mhc"),  # each block of it is a hundred operations
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
    parser.add_argument("--again", action="store_true", help="fill cells again that are filled")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        from keras_residual.deploy.child import keeping_children

        with keeping_children():
            for name, formats in json.loads(arguments.here).items():
                for cell in cells(name, formats):
                    print(json.dumps(cell), flush=True)
        return
    from _report import kept, report, write, write_page

    known = {(row["net"], row["format"], row["backend"]): row for row in kept("export")}
    asked = product(arguments.nets, arguments.formats, arguments.backends)
    left = [key for key in asked if arguments.again or key not in known]
    for backend in arguments.backends:
        wanted = {net: [f for n, f, b in left if (n, b) == (net, backend)] for net in arguments.nets}
        for cell in _of_backend(backend, {net: formats for net, formats in wanted.items() if formats}):
            known[cell["net"], cell["format"], backend] = {"backend": backend, **cell}
            write("export", _in_order(known))
            print(f"{backend} {cell['net']} {cell['format']}: {cell['reason'] or cell['difference']}", flush=True)
    report("export", _in_order(known))
    write_page("export", "cells", table(_in_order(known)))


def _of_backend(backend: str, wanted: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    if not wanted:
        return
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    call = [sys.executable, __file__, "--here", json.dumps(wanted)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield from (json.loads(line) for line in process.stdout or () if line.startswith("{"))
            process.wait()
        finally:
            process.kill()
    if process.returncode:
        raise SystemExit(f"The process of {backend} ended with status {process.returncode}.")


def _in_order(known: dict[tuple[str, str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [known[key] for key in product(NETS, SUFFIXES, BACKENDS) if key in known]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the cells as Markdown: a line for each net and backend, a column for each format."""
    found = {(row["net"], row["backend"], row["format"]): row for row in rows}
    lines = [f"| net | from | {' | '.join(SUFFIXES)} |", f"| --- | --- |{' ---: |' * len(SUFFIXES)}"]
    for net, backend in product(NETS, BACKENDS):
        made = [found.get((net, backend, format)) for format in SUFFIXES]
        shown = ["" if cell is None else "refused" if cell["reason"] else f"{cell['difference']:.1e}" for cell in made]
        lines.append(f"| {net} | {backend} | {' | '.join(shown)} |")
    refused = [f"- {r['net']} from {r['backend']} as {r['format']}: {r['reason']}" for r in rows if r["reason"]]
    return "\n".join([*lines, *([""] if refused else []), *refused])


def cells(name: str, formats: list[str]) -> Iterator[dict[str, Any]]:
    """Yields what came of a net in each format, from the backend of this process."""
    import keras
    from _networks import randomise

    import keras_residual as kr

    keras.utils.set_random_seed(0)
    model = NETS[name]()
    randomise(model)
    for format in formats:
        found, reason = {"difference": None, "megabytes": None}, ""
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = kr.export(model, Path(folder, f"net{SUFFIXES[format]}"), format)
                found = {"difference": made.check.difference / made.check.deviation, "megabytes": made.bytes / 1e6}
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        yield {"net": name, "format": format, **found, "reason": reason}


if __name__ == "__main__":
    main()
