"""SavedModels and LiteRT files: written and run by TensorFlow."""

from __future__ import annotations

import re
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

SIGNATURE = "serving_default"


def write_saved_model(model: Any, path: Path, signature: Any) -> None:
    """Writes a SavedModel whose signature has the names of ours.

    Args:
        model: A built model of the TensorFlow backend, or of JAX.
        path: The folder.
        signature: The model's `Signature`.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        _name_plainly(model)
    archive: Any = keras.export.ExportArchive()
    archive.track(model)

    def serve(*tensors: Any) -> dict[str, Any]:
        outputs = signature.call(model, tensors)
        return {port.name: output for port, output in zip(signature.outputs, outputs, strict=True)}

    specs = [tf.TensorSpec(port.shape, port.dtype, name=port.name) for port in signature.inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.add_endpoint(SIGNATURE, serve, input_signature=specs)
        archive.write_out(path, verbose=False)


def _name_plainly(model: Any) -> None:
    """Takes what TensorFlow does not have in its names, such as blanks and umlauts, from those of layers and variables.

    A model with such names comes from another backend: TensorFlow would not have called it.
    """
    for layer in model._flatten_layers():
        layer.name = _plain(layer.name)
    for variable in model.variables:
        value = getattr(variable, "_value", None)
        if isinstance(value, tf.Variable):
            value._handle_name = _plain(value.name)  # pyright: ignore[reportAttributeAccessIssue]


def _plain(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.:>/-]", "_", name)
    return plain if plain[:1].isalnum() else f"layer{plain}"


def write_litert(model: Any, path: Path, signature: Any) -> None:
    """Writes a LiteRT file by way of a SavedModel.

    Args:
        model: A built model of the TensorFlow backend.
        path: The file.
        signature: The model's `Signature`.
    """
    folder = path.with_name("for-litert")
    write_saved_model(model, folder, signature)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(_converted(folder))
    shutil.rmtree(folder)


def _converted(folder: Path) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


class LoadedSavedModel:
    """A SavedModel, ready to run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._loaded = tf.saved_model.load(str(path))
        self._serve = self._loaded.signatures[SIGNATURE]

    def ports(self) -> tuple[list[tuple[str, Any, str]], list[tuple[str, Any, str]]]:
        """Returns name, shape and dtype of the inputs and outputs, each sorted by name."""
        given = self._serve.structured_input_signature[1]
        made = self._serve.structured_outputs
        return tuple(  # pyright: ignore[reportReturnType]
            [(name, tuple(spec.shape), spec.dtype.name) for name, spec in sorted(specs.items())]
            for specs in (given, made)
        )

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for one array of each input, by their names."""
        outputs = self._serve(**{name: tf.constant(array) for name, array in arrays.items()})
        return {name: output.numpy() for name, output in outputs.items()}


def use_threads(threads: int) -> None:
    """Lets TensorFlow run on so many threads, if it has not run yet."""
    with suppress(RuntimeError):  # it runs already
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
