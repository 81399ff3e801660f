"""What a model takes and gives: names, shapes and dtypes, and inputs to try it with."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument

OWNER = "export"


@dataclass(frozen=True)
class Port:
    """One input or output of an exported model.

    Args:
        name: Its name in the file.
        shape: Its shape, with None for what may differ from call to call; the batch is first.
        dtype: Name of its dtype.
        own_name: Its name in the model: the key where that takes or returns a dictionary, else the layer's name. None
            where only the file is known.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    own_name: str | None = None

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether rows of a shape, however many, are those of this port."""
        pairs = zip(self.shape[1:], shape[1:], strict=False)
        return len(shape) == len(self.shape) and all(size in (None, found) for size, found in pairs)

    def array(self, owner: str, argument: str, value: Any) -> np.ndarray:
        """Returns a value as an array of this dtype, in which no number has become another one.

        Floats are rounded, as the model rounds them; whole numbers and booleans must be what they are.

        Args:
            owner: What was called, for messages.
            argument: The argument that the value came in.
            value: An array, or what NumPy makes one of.

        Raises:
            ValueError: If it holds something else than real numbers, or numbers that the dtype does not hold.
        """
        try:
            given = np.asarray(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise self._no_array(owner, argument, value, error) from None
        if given.dtype.kind == "O" and all(isinstance(one, Real) for one in given.flat):
            given = given.astype("float64")  # a table of columns of several types
        if given.dtype.kind not in "biuf" and given.dtype.name != "bfloat16":
            raise bad_argument(owner, argument, f"numbers, for {self.name}", given.dtype.name, "The dtype is shown.")
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                array = np.ascontiguousarray(given, self.dtype).reshape(given.shape)
        except (TypeError, ValueError) as error:
            raise self._no_array(owner, argument, value, error) from None
        if array.dtype == given.dtype:
            return array
        lost = array != given if array.dtype.kind in "biu" else np.isinf(array) & (array != given)
        if lost.any():
            wrong = given[lost].flat[0].item()
            rule = f"{_held_by(array.dtype)}, for {self.name} of dtype {self.dtype}"
            raise bad_argument(owner, argument, rule, wrong, "It is the first of those that are not.")
        return array

    def _no_array(self, owner: str, argument: str, value: Any, error: Exception) -> ValueError:
        rule = f"what makes an array of {self.dtype}, for {self.name} of shape {self.shape}"
        return bad_argument(owner, argument, rule, value, f"{error}.")


def _held_by(dtype: np.dtype) -> str:
    if dtype.kind == "b":
        return "booleans"
    bounds = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return f"{'whole ' if dtype.kind in 'iu' else ''}numbers from {bounds.min} to {bounds.max}"


def check_finite(argument: str, arrays: Sequence[np.ndarray], ports: Sequence[Port]) -> None:
    """Raises a ValueError that names the first row with a number that is not finite.

    Args:
        argument: The argument of `export` that the rows came in.
        arrays: Rows for each input.
        ports: The inputs.
    """
    for array, port in zip(arrays, ports, strict=True):
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            rule = f"finite numbers, for {port.name}"
            raise bad_argument(OWNER, argument, rule, f"row {row}", "Leave out rows with NaN or infinity.")


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Args:
        inputs: Its inputs in order.
        outputs: Its outputs in order.
        structure: The structure that it is called with; the leaves do not matter.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    structure: Any

    def call(self, model: keras.Model, tensors: Sequence[Any]) -> list[Any]:
        """Returns the outputs of the model in inference for one tensor of each input."""
        packed = keras.tree.pack_sequence_as(self.structure, list(tensors))
        return keras.tree.flatten(model(packed, training=False))

    def samples(self, batch_size: int, seed: int = 0) -> list[np.ndarray]:
        """Returns a batch of each input: standard normal numbers, or 0 to 3 where an input takes whole ones.

        Raises:
            ValueError: If an input has an axis of unknown size beside the batch.
        """
        rng = np.random.default_rng((seed, batch_size))
        return [_drawn(rng, port, batch_size) for port in self.inputs]


def signature_of(model: keras.Model, samples: Any = None, batch_size: int | None = None) -> Signature:
    """Returns the signature of a model.

    Args:
        model: A built model.
        samples: One batch of inputs, as the model is called; needed where the model's class has a `call` of its own.
        batch_size: The one batch size that is asked for; None for any.

    Raises:
        ValueError: If nothing says what the model takes.
    """
    structure = _structure(model, samples)
    spec = keras.tree.map_structure(
        lambda tensor: keras.KerasTensor((batch_size, *tensor.shape[1:]), tensor.dtype, name=tensor.name), structure
    )
    how = {"training": False} if _takes_training(model) else {}
    made = keras.Operation.compute_output_spec(model, spec, **how)
    outputs, inputs = keras.tree.flatten(made), keras.tree.flatten(spec)
    names = _keys(made) or list(getattr(model, "output_names", None) or [])
    if len(names) != len(outputs):
        names = [f"output_{index}" for index in range(len(outputs))]
    given = _keys(spec) or [tensor.name for tensor in inputs]
    taken, returned = _ports((inputs, given), (outputs, names))
    return Signature(taken, returned, structure)


def _keys(structure: Any) -> list[str] | None:
    """Returns the keys of a flat dictionary, in the order of its leaves; None of anything else."""
    if not isinstance(structure, dict) or any(keras.tree.is_nested(value) for value in structure.values()):
        return None
    return [str(key) for key in keras.tree.flatten({key: key for key in structure})]


def _takes_training(model: keras.Model) -> bool:
    known = inspect.signature(model.call).parameters
    return "training" in known or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())


def _structure(model: keras.Model, samples: Any) -> Any:
    if isinstance(model, keras.Sequential) and model.inputs:
        return model.inputs[0]
    if getattr(model, "inputs", None):
        return model.input
    if samples is None:
        rule = "given for a model whose class has a `call` of its own, since nothing else says what it takes"
        raise bad_argument(OWNER, "samples", rule, None, "Pass one batch of inputs, such as `samples=x[:4]`.")
    arrays = keras.tree.map_structure(np.asarray, samples)
    for array in keras.tree.flatten(arrays):
        if array.dtype.kind not in "biuf" or not array.ndim:
            rule = "one batch of numbers for each input"
            raise bad_argument(OWNER, "samples", rule, f"{array.dtype.name} of shape {array.shape}")
    names = iter(_names_of(samples))
    return keras.tree.map_structure(
        lambda array: keras.KerasTensor((None, *array.shape[1:]), array.dtype.name, name=next(names)), arrays
    )


def _names_of(samples: Any) -> list[str]:
    if isinstance(samples, dict):
        return sorted(samples)
    return [f"input_{index}" for index in range(len(keras.tree.flatten(samples)))]


def _ports(*sides: tuple[Sequence[Any], Sequence[str]]) -> list[tuple[Port, ...]]:
    """Returns the ports of each side from its tensors and their names; no two ports of a file have the same name."""
    own = [[re.sub(r"keras_tensor(_\d+)?", "input", name) for name in names] for _, names in sides]
    plain = [[_plain(name) for name in names] for names in own]
    found: dict[tuple[int, int], str] = {}
    places = [(side, index) for side, names in enumerate(plain) for index in range(len(names))]

    def shared(place: tuple[int, int]) -> tuple[bool, bool]:
        """Returns whether another port of the same side has the name, and whether one of any side has it."""
        name = plain[place[0]][place[1]]
        return plain[place[0]].count(name) > 1, sum(names.count(name) for names in plain) > 1

    for side, index in sorted(places, key=shared):  # a name that is unique is kept
        name, taken = plain[side][index], set(found.values())
        first, kept = (index, ()) if shared((side, index))[0] else (1, (name,))
        tried = itertools.chain(kept, (f"{name}_{number}" for number in itertools.count(first)))
        found[side, index] = next(one for one in tried if one not in taken)
    return [
        tuple(
            Port(found[side, index], tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype), name)
            for index, (tensor, name) in enumerate(zip(tensors, own[side], strict=True))
        )
        for side, (tensors, _) in enumerate(sides)
    ]


def _plain(name: str) -> str:
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_")
    return plain if plain[:1].isalpha() else f"tensor_{plain}".rstrip("_")


def _drawn(rng: np.random.Generator, port: Port, batch_size: int) -> np.ndarray:
    shape = (batch_size, *(size for size in port.shape[1:] if size is not None))
    if len(shape) < len(port.shape):
        rule = "given where an input has sizes that are not known"
        way_out = "Pass one batch of inputs, such as `samples=x[:4]`, or make the model for one size."
        raise bad_argument(OWNER, "samples", rule, f"{port.name} of shape {port.shape}", way_out)
    if port.dtype == "uint8":
        return rng.integers(0, 256, shape, "uint8")
    if keras.backend.is_float_dtype(port.dtype):
        return rng.standard_normal(shape).astype("float32" if port.dtype == "bfloat16" else port.dtype)
    return rng.integers(0, 2 if port.dtype == "bool" else 4, shape).astype(port.dtype)
