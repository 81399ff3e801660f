"""Weights from a checkpoint into a model: all of them or none."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_residual._errors import bad_argument, bad_checkpoint, listed, printable, shown, unknown_name, wrong_type
from keras_residual.weights.hub import open_location
from keras_residual.weights.names import LEAVES, NAME_MAPS, NameMap, Slot, assign, name_map, slots, to_ours

_HEAD = "head/"
_AFTER_STAGES = ("head/", "head_norm/")
_FIRST_KERNELS = ("stem_conv/kernel", "stem_conv1/kernel")


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """The result of `load_weights`.

    Args:
        source: Where the weights came from.
        names: The map of names that was used, one of `NAME_MAPS`.
        loaded: Number of weights that were set.
        new: Paths of weights that keep their initial values: those of a head for other classes.
        adapted: Paths of weights that were changed to fit: the first kernel, for channels other than RGB.
        doubtful: Weights that no training produces, by the names in the checkpoint:
            `"bn1.running_var has a negative variance"`.
    """

    source: str
    names: str
    loaded: int
    new: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()


def load_weights(
    model: keras.Model,
    location: str | Path,
    *,
    names: str = "auto",
    new_head: bool = False,
    ema: bool = False,
    strict: bool = False,
) -> LoadedWeights:
    """Sets a model's weights to those of a checkpoint; raises before anything is changed.

    If the model does not have three input channels, its first kernel is derived from the checkpoint's three: their sum
    for one channel, else their repetition, scaled so that equal channels give the same output. A head in the checkpoint
    is ignored if the model has none.

    Weights that no training produces are loaded with a warning that names them: values that are not finite, or too
    large for the model's type, negative variances, and integers, that is, quantised weights without their scales.

    Args:
        model: One of `create_model`, `ResNet` or `ResNetV2`, however its stacks are executed.
        location: A file (`.safetensors`, `.pth`, `.th`, `.bin`, `.npz`), a folder as the Hugging Face Hub has it, or a
            repository, `"hf://timm/resnet50.a1_in1k"`.
        names: The checkpoint's naming scheme: one of `NAME_MAPS`, or `"auto"` for the best fit.
        new_head: Whether the head keeps its initial values if the checkpoint's is for other classes.
        ema: Whether to read the averaged weights of a training program's checkpoint.
        strict: Whether to refuse such weights. A name or a shape that does not fit is always refused.

    Returns:
        A summary of what was loaded.

    Raises:
        CheckpointError: If the file cannot be read, or weights are missing, left over, of the wrong shape or, with
            `strict`, doubtful; the message lists them. The model keeps its weights.
        ValueError: If the map of names is unknown.

    Example:
        >>> model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10)
        >>> kr.save_weights(model, "resnet20.safetensors")
        >>> load_weights(model, "resnet20.safetensors").names
        'cifar'
    """
    if names != "auto" and names not in NAME_MAPS:
        raise unknown_name("load_weights", "names", names, ["auto", *NAME_MAPS])
    if not isinstance(location, (str, Path)) or not str(location):
        rule = "a file, a folder or a repository, such as 'hf://timm/resnet50.a1_in1k'"
        raise (bad_argument if isinstance(location, str) else wrong_type)("load_weights", "location", rule, location)
    found = open_location(location, ema=ema)
    return set_weights(model, found.tensors, source=found.source, names=names, new_head=new_head, strict=strict)


def set_weights(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    *,
    source: str,
    names: str = "auto",
    new_head: bool = False,
    strict: bool = False,
) -> LoadedWeights:
    """Sets a model's weights to arrays by name, as `load_weights` does."""
    places = slots(model)
    chosen = best_map(places, tensors) if names == "auto" else name_map(names)
    wanted = {slot: chosen(slot.path) for slot in places}
    values, new, adapted, wrong, missing = {}, [], [], [], []
    for slot, name in wanted.items():
        if name is None or name not in tensors:
            if new_head and slot.path.startswith(_HEAD):
                new.append(slot.path)
                continue
            missing.append(f"{printable(name)} (for {slot.path})" if name else slot.path)
            continue
        value = to_ours(slot, tensors[name])
        if slot.path in _FIRST_KERNELS and value.shape != slot.shape:
            value = _for_channels(value, slot.shape[-2])
            adapted.append(slot.path)
        if value.shape == slot.shape:
            values[slot] = value
        elif new_head and slot.path.startswith(_HEAD):
            new.append(slot.path)
        else:
            wrong.append(f"{printable(name)} {shown(tensors[name].shape)} (for {slot.path} {slot.shape})")
    if new:
        # Never load half a head: the bias may fit even if the kernel does not.
        values = {slot: value for slot, value in values.items() if not slot.path.startswith(_HEAD)}
        new = [slot.path for slot in places if slot.path.startswith(_HEAD)]
    without_head = {chosen(path) for path in _optional_paths(places)}
    left = sorted(set(tensors) - set(wanted.values()) - without_head)
    twice = [name for name, count in Counter(filter(None, wanted.values())).items() if count > 1]
    problems = [
        _listed("used twice", twice),
        _listed("missing", missing),
        _listed("left over", left),
        _listed("of another shape", wrong),
    ]
    if any(problems):
        way_out = f"The names were read as {chosen.name!r}. Is the model of the architecture of the checkpoint?"
        what = f"it does not fit {model.name!r}: {'; '.join(filter(None, problems))}"
        raise bad_checkpoint(source, what, f"{way_out} The model keeps its weights.")
    doubtful = [f"{printable(wanted[slot])} {why}" for slot, value in values.items() if (why := _doubt(slot, value))]
    if doubtful:
        what = f"{len(doubtful)} of its weights are doubtful: {listed(doubtful)}"
        if strict:
            raise bad_checkpoint(source, what, "`strict=False` accepts them. The model keeps its weights.")
        warnings.warn(str(bad_checkpoint(source, what, "`strict=True` refuses such a checkpoint.")), stacklevel=3)
    with np.errstate(over="ignore"):  # the warning above covers values that do not fit the type
        assign(values.items())
    return LoadedWeights(source, chosen.name, len(values), tuple(new), tuple(adapted), tuple(doubtful))


def best_map(places: Iterable[Slot], tensors: Mapping[str, np.ndarray]) -> NameMap:
    """Returns the map that finds most of a model's weights in a checkpoint."""
    paths = [slot.path for slot in places]
    maps = [name_map(name) for name in NAME_MAPS]
    return max(maps, key=lambda names: sum(names(path) in tensors for path in paths))


def _optional_paths(places: Iterable[Slot]) -> list[str]:
    """Returns the paths after the last stage that a model without a head lacks."""
    have = {slot.path for slot in places}
    return [path for part in _AFTER_STAGES for leaf in LEAVES if (path := f"{part}{leaf}") not in have]


def _for_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns a kernel `(…, 3, filters)` for another number of channels; any other kernel as it is."""
    if kernel.ndim < 2 or kernel.shape[-2] != 3:
        return kernel
    if channels == 1:
        return kernel.sum(-2, keepdims=True)
    repeated = np.concatenate([kernel] * -(-channels // 3), axis=-2)[..., :channels, :]
    return repeated * np.float32(3 / channels)


def _doubt(slot: Slot, value: np.ndarray) -> str:
    """Returns why no training can have produced a weight; empty if it can."""
    if value.dtype.kind != "f":
        return f"has whole numbers ({value.dtype})"
    if not np.isfinite(value).all():
        return "has values that are not finite"
    if slot.path.endswith("/moving_variance") and (value < 0).any():
        return "has a negative variance"
    kind = "float16" if slot.variable.dtype == "float16" else "float32"
    return f"has values that are too large for {kind}" if (np.abs(value) > np.finfo(kind).max).any() else ""


def _listed(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}: {listed(names)}" if names else ""
