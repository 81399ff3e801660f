"""A model's weights become a checkpoint that timm loads, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from keras_residual import _atomic, _optional
from keras_residual._errors import bad_argument, listed, unknown_name
from keras_residual.weights.files import local_path
from keras_residual.weights.names import NAME_MAPS, name_map, slots, to_theirs

_WRITER = "write_safetensors"
_WRITABLE = {
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "bfloat16", "float32", "float64", "complex64",
}  # fmt: skip


def save_weights(model: keras.Model, path: str | Path, *, names: str = "auto", overwrite: bool = False) -> None:
    """Writes a model's weights to a `.safetensors` file with PyTorch's names and layouts.

    timm loads the file with `strict=True` into its model of the same name.

    Args:
        model: One of `create_model`, `ResNet` or `ResNetV2`, however its stacks are executed.
        path: The file; its folder must exist.
        names: The naming scheme: one of `NAME_MAPS`, or `"auto"` for that of timm's model of this structure, and for
            small pictures that of the usual CIFAR checkpoints.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: If the map of names is unknown, or has no names for some of the model's weights.
        FileExistsError: If the file exists and `overwrite` is False.

    Example:
        >>> model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10)
        >>> save_weights(model, "resnet20.safetensors")
    """
    write_safetensors(path, state_dict(model, names=names), {"format": "pt"}, overwrite=overwrite)


def state_dict(model: keras.Model, *, names: str = "auto") -> dict[str, np.ndarray]:
    """Returns a model's weights by PyTorch's names and in PyTorch's layouts; arguments as in `save_weights`."""
    if names != "auto" and names not in NAME_MAPS:
        raise unknown_name("save_weights", "names", names, ["auto", *NAME_MAPS])
    chosen = name_map(map_for(model) if names == "auto" else names)
    found: dict[str, np.ndarray] = {}
    nameless = []
    for slot in slots(model):
        name = chosen(slot.path)
        if name is None:
            nameless.append(slot.path)
            continue
        found[name] = to_theirs(slot, name)
        if name.endswith(".running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = np.zeros((), "int64")
    if nameless:
        rule = f"a model whose weights {chosen.name!r} has names for"
        raise bad_argument("save_weights", "model", rule, model.name, f"It has none for {listed(nameless)}.")
    return found


def map_for(model: keras.Model) -> str:
    """Returns the map of names that timm's model of this structure has."""
    paths = [slot.path for slot in slots(model)]
    blocks = [path for path in paths if path.startswith("stage")]
    if not any(path.startswith("stage4_") for path in blocks):
        return "cifar"
    if not any(path.startswith("stem_norm/") or path.startswith("stem_norm3/") for path in paths):
        return "timm_resnetv2"
    if model.name.startswith("legacy_"):
        return "timm_senet"
    kinds = {"/path0_conv/": "timm_sknet", "/conv2/conv0/": "timm_res2net"}
    name = next((name for part, name in kinds.items() if any(part in path for path in blocks)), "timm")
    shortcuts = [getattr(layer, "shortcut_layer", None) for layer in model.layers]
    pools = any(_pools(shortcut) for shortcut in shortcuts)
    return f"{name}_avg_pool" if pools else name


def _pools(shortcut: keras.Layer | None) -> bool:
    if isinstance(shortcut, keras.Sequential):
        return any("pool" in layer.name for layer in shortcut.layers)
    return getattr(shortcut, "pool", None) is not None


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes arrays to a `.safetensors` file atomically: at every moment it is complete or absent.

    Args:
        path: The file; its folder must exist.
        tensors: Arrays of any shape by name: booleans, integers, floats of 16 to 64 bits, complex64.
        metadata: Texts by name, for the header of the file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FileExistsError: If the file exists and `overwrite` is False.
        ValueError: If the folder is missing, or the file format cannot hold the values.
        OSError: If the disk is full or cannot be written to.
        ImportError: If safetensors is not installed; it comes with the extra `hub`.

    Example:
        >>> from keras_residual.weights.save import write_safetensors
        >>> write_safetensors("weights.safetensors", {"fc.weight": np.ones((2, 3), "float32")})
    """
    path = local_path(path)
    arrays = {name: _array(name, value) for name, value in tensors.items()}
    if not arrays:
        raise bad_argument(_WRITER, "tensors", "a dictionary with an array at least", dict(tensors))
    for name, text in (metadata or {}).items():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise bad_argument(
                _WRITER, "metadata", "texts by name", metadata, "Turn other values into text: json.dumps."
            )
    if not path.parent.is_dir():
        raise bad_argument(_WRITER, "path", "in a folder that exists", str(path), "Make the folder, or choose another.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{_WRITER}: {str(path)!r} exists. Pass `overwrite=True`, or choose another name.")
    safetensors, numpy = (_optional.require(name, extra="hub") for name in ("safetensors", "safetensors.numpy"))
    with _atomic.replacing(path) as beside:
        try:
            numpy.save_file(arrays, beside, dict(metadata or {}) or None)
        except safetensors.SafetensorError as error:
            raise OSError(f"{_WRITER}: {str(path)!r} could not be written ({error}).") from None


def _array(name: str, value: np.ndarray) -> np.ndarray:
    # Not ascontiguousarray, which makes a vector of a scalar.
    array = np.asarray(value, order="C")
    if array.dtype.name not in _WRITABLE:
        raise bad_argument(
            _WRITER, f"tensors[{name!r}]", f"of one of the types {', '.join(sorted(_WRITABLE))}", array.dtype.name
        )
    return array
