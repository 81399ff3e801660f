"""Initial values drawn by NumPy: as Keras's initializers distribute them, but without compiling a program a shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
from keras import initializers, ops

from keras_residual._backend import as_tensor, register_parameters
from keras_residual._errors import bad_argument
from keras_residual._keras import (
    UNINITIALIZED,
    RandomInitializer,
    compute_fans,
    get_global_attribute,
    set_global_attribute,
)

Path = tuple[int, ...]
"""Index of a block in each of the stacks it is in, that of the outermost first."""

Fill = Callable[[np.random.Generator, np.ndarray], None]
"""Writes one draw into an array."""

_TRUNCATED_STDDEV = 0.87962566103423978  # of a standard normal cut off at ±2


def host_value(initializer: Any, shape: Sequence[int], dtype: Any, *, index: int) -> np.ndarray:
    """Returns the initial value of a weight of the block `index`.

    The values follow from the initializer's own seed and the index: the same for the same two, and different for each
    index, also where the seed is an integer. They are not those that the initializer itself would draw, but follow the
    same distribution. An initializer that NumPy does not stand in for is called itself, with a seed for each index
    where its config has one.

    Args:
        initializer: An initializer of Keras, its name, or a function `(shape, dtype)`. Where it has a method
            `at(index)`, that returns the initializer of a block.
        shape: Shape of the weight.
        dtype: Name of a dtype; None stands for `keras.config.floatx()`.
        index: Index of the block in its stack.
    """
    return _cast(_draw(_as_callable(initializer), tuple(shape), dtype, (index,)), dtype)


class _Wrapper(initializers.Initializer):
    """An initializer that draws by NumPy and knows in which block of the stacks around it it is."""

    _outer: Path = ()

    def at(self, index: int) -> Any:
        """Returns the initializer for the block `index` of a stack around this one."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._outer = (index, *self._outer)
        return made

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns the values as a tensor."""
        # Cast by NumPy: a cast on the device would be the very program for each shape that this file avoids.
        return as_tensor(_cast(self.host(tuple(shape), dtype), dtype))

    def host(self, shape: Path, dtype: Any, outer: Path = ()) -> np.ndarray:
        """Returns the values as an array, of a dtype that may be wider than `dtype`."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the initializer from `get_config`'s dictionary."""
        config = dict(config)
        outer = tuple(config.pop("outer", ()))
        made = cls(**{**config, "initializer": initializers.get(config["initializer"])})
        made._outer = outer
        return made


class HostInitializer(_Wrapper):
    """Draws the values of one block on the host.

    Args:
        initializer: What `host_value` takes.
        index: Index of the block in its stack.
        gain: Factor on the values.
    """

    def __init__(self, initializer: Any, index: int, gain: float = 1.0) -> None:
        self.initializer = _as_callable(initializer)
        self.index = index
        self.gain = gain

    def host(self, shape: Path, dtype: Any, outer: Path = ()) -> np.ndarray:
        """Returns the values as an array."""
        values = _draw(self.initializer, shape, dtype, (*outer, *self._outer, self.index))
        return values if self.gain == 1 else _scale(values, self.gain)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments and the indices in the stacks around."""
        serialized = initializers.serialize(self.initializer)
        return {"initializer": serialized, "index": self.index, "gain": self.gain, "outer": list(self._outer)}


class StackedInitializer(_Wrapper):
    """Draws the values of all blocks of a stack, `(depth, …)`: slice `i` holds those of `HostInitializer` at index `i`.

    Args:
        initializer: What `host_value` takes.
        depth: Number of blocks.
        gains: Factor on the values of each block.
    """

    def __init__(self, initializer: Any, depth: int, gains: Sequence[float] | np.ndarray | None = None) -> None:
        if gains is not None and len(gains) != depth:
            raise bad_argument("StackedInitializer", "gains", f"one factor for each of {depth} blocks", gains)
        self.initializer = _as_callable(initializer)
        self.depth = depth
        self.gains = None if gains is None else [float(gain) for gain in gains]

    def host(self, shape: Path, dtype: Any, outer: Path = ()) -> np.ndarray:
        """Returns the values as an array."""
        if not shape or shape[0] != self.depth:
            raise bad_argument("StackedInitializer", "shape", f"({self.depth}, …), a slice for each block", shape)
        outer = (*outer, *self._outer)
        values = _draw_all(self.initializer, shape, dtype, outer)
        if self.gains is not None:
            values = _scale(values, np.reshape(self.gains, (-1, *[1] * (len(shape) - 1))))
        return values

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments and the indices in the stacks around."""
        serialized = initializers.serialize(self.initializer)
        return {"initializer": serialized, "depth": self.depth, "gains": self.gains, "outer": list(self._outer)}


def _as_callable(initializer: Any) -> Any:
    is_instance = callable(initializer) and not isinstance(initializer, type)
    return initializer if is_instance else initializers.get(initializer)


# --- Drawing ---------------------------------------------------------------------------------------------------------


def _draw(initializer: Any, shape: Path, dtype: Any, path: Path) -> np.ndarray:
    if isinstance(initializer, _Wrapper):
        return initializer.host(shape, dtype, path)
    for index in reversed(path):  # what an initializer knows about is the stack that it is in, not those around that
        if not hasattr(initializer, "at"):
            break
        initializer = initializer.at(index)
    fill = _twin(initializer, shape, dtype)
    if fill is None:
        return _call(initializer, shape, dtype, path)
    values = np.empty(shape, _dtype_to_draw(dtype))
    fill(_generator(_seed_of(initializer), path), values)
    return values


def _draw_all(initializer: Any, shape: Path, dtype: Any, outer: Path) -> np.ndarray:
    """Returns `_draw` for every index of a stack, `(depth, …)`."""
    depth, *rest = shape
    special = isinstance(initializer, _Wrapper) or hasattr(initializer, "at")
    fill = None if special else _twin(initializer, tuple(rest), dtype)
    if fill is None:
        return np.stack([_draw(initializer, tuple(rest), dtype, (*outer, index)) for index in range(depth)])
    # What follows from initializer and shape alone has been found once for all blocks.
    values = np.empty(shape, _dtype_to_draw(dtype))
    seed = _seed_of(initializer)
    for index in range(depth):
        fill(_generator(seed, (*outer, index)), values[index, ...])
    return values


def _generator(seed: int, path: Path) -> np.random.Generator:
    # The path is no part of the entropy, to which NumPy adds zeros: there (1,) and (1, 0) would be the same.
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=path)
    return np.random.Generator(np.random.SFC64(sequence))


_seeds: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def _seed_of(initializer: Any) -> int:
    """Returns the seed of an initializer that has a twin; one that has no seed draws nothing."""
    seed = getattr(initializer, "seed", 0)
    if isinstance(seed, int):
        return seed
    # A generator is asked once, so that its state moves on for the next initializer, but not with each of the blocks.
    if initializer not in _seeds:
        words = [int(word) % 2**64 for word in np.asarray(ops.convert_to_numpy(seed.next())).ravel()]
        _seeds[initializer] = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
    return _seeds[initializer]


def _call(initializer: Any, shape: Path, dtype: Any, path: Path) -> np.ndarray:
    """Returns what an initializer without a twin makes itself, drawn anew for each path where it has a seed."""
    if isinstance(initializer, initializers.Initializer):
        config = initializer.get_config()
        seed = getattr(initializer, "seed", config.get("seed"))
        # One without a seed draws from Keras's global generator, which moves on with each call.
        if "seed" in config and isinstance(seed, int):
            state = np.random.SeedSequence(seed % 2**64, spawn_key=path).generate_state(1)
            initializer = type(initializer).from_config({**config, "seed": int(state[0] >> 1)})
    return np.asarray(ops.convert_to_numpy(initializer(shape, dtype=keras.backend.standardize_dtype(dtype))))


def _dtype_to_draw(dtype: Any) -> Any:
    """Returns the dtype to draw in: float32 for narrower floats, else the dtype itself, so that whole numbers are."""
    name = keras.backend.standardize_dtype(dtype)
    return np.dtype("float32" if name in ("float16", "bfloat16") or name.startswith("float8") else name)


def _cast(values: np.ndarray, dtype: Any) -> np.ndarray:
    # NumPy knows bfloat16 and its like by ml_dtypes, which Keras imports.
    return values.astype(np.dtype(keras.backend.standardize_dtype(dtype)), copy=False)


def _scale(values: np.ndarray, gain: Any) -> np.ndarray:
    exact = values.dtype if np.issubdtype(values.dtype, np.floating) else "float64"
    return (values * np.asarray(gain, exact)).astype(values.dtype, copy=False)


# --- Twins: by the function that Keras draws with, so that a subclass with a `__call__` of its own has none ----------


def _twin(initializer: Any, shape: Path, dtype: Any) -> Fill | None:
    make = _TWINS.get(type(initializer).__call__)
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype))
    # Random whole numbers are Keras's to draw or to refuse: floats cut down to them would be zeros more often than not.
    if make is None or (isinstance(initializer, RandomInitializer) and not is_float):
        return None
    return make(initializer, shape)


def _constant(value: Any) -> Fill:
    def fill(generator: np.random.Generator, out: np.ndarray) -> None:
        del generator
        out[...] = value

    return fill


def _uniform(low: float, high: float) -> Fill:
    def fill(generator: np.random.Generator, out: np.ndarray) -> None:
        generator.random(out=out, dtype=out.dtype.type)
        out *= high - low
        out += low

    return fill


def _normal(mean: float, stddev: float) -> Fill:
    def fill(generator: np.random.Generator, out: np.ndarray) -> None:
        generator.standard_normal(out=out, dtype=out.dtype.type)
        _spread(out, mean, stddev)

    return fill


def _truncated_normal(mean: float, stddev: float) -> Fill:
    def fill(generator: np.random.Generator, out: np.ndarray) -> None:
        generator.standard_normal(out=out, dtype=out.dtype.type)
        flat = out.reshape(-1)  # a view, since `out` is contiguous
        outside = np.flatnonzero(np.abs(flat) >= 2)
        while outside.size:  # 1 in 22 at first
            flat[outside] = generator.standard_normal(outside.size, dtype=out.dtype.type)
            outside = outside[np.abs(flat[outside]) >= 2]
        _spread(out, mean, stddev)

    return fill


def _spread(out: np.ndarray, mean: float, stddev: float) -> None:
    out *= stddev
    if mean:
        out += mean


def _variance_scaling(initializer: Any, shape: Path) -> Fill:
    fan_in, fan_out = compute_fans(shape, initializer.input_axes, initializer.output_axes)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[initializer.mode]
    variance = initializer.scale / max(1.0, fan)
    if initializer.distribution == "truncated_normal":
        return _truncated_normal(0.0, math.sqrt(variance) / _TRUNCATED_STDDEV)
    if initializer.distribution == "untruncated_normal":
        return _normal(0.0, math.sqrt(variance))
    limit = math.sqrt(3 * variance)
    return _uniform(-limit, limit)


def _identity(initializer: Any, shape: Path) -> Fill | None:
    # Keras's own refuses other ranks and says so.
    return _constant(_number(initializer.gain) * np.eye(*shape)) if len(shape) == 2 else None


def _orthogonal(initializer: Any, shape: Path) -> Fill | None:
    if len(shape) < 2:
        return None
    rows, columns = math.prod(shape[:-1]), shape[-1]
    gain = _number(initializer.gain)

    def fill(generator: np.random.Generator, out: np.ndarray) -> None:
        matrix = generator.standard_normal((max(rows, columns), min(rows, columns)), dtype=out.dtype.type)
        q, r = np.linalg.qr(matrix)
        q *= gain * np.sign(np.diagonal(r))  # without the signs, q would not be uniform among orthogonal matrices
        out[...] = (q.T if rows < columns else q).reshape(shape)

    return fill


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else np.asarray(ops.convert_to_numpy(value))


_TWINS: dict[Any, Callable[[Any, Path], Fill | None]] = {
    initializers.Zeros.__call__: lambda initializer, shape: _constant(0.0),
    initializers.Ones.__call__: lambda initializer, shape: _constant(1.0),
    initializers.Constant.__call__: lambda initializer, shape: _constant(_number(initializer.value)),
    initializers.Identity.__call__: _identity,
    initializers.RandomUniform.__call__: lambda initializer, shape: _uniform(
        _number(initializer.minval), _number(initializer.maxval)
    ),
    initializers.RandomNormal.__call__: lambda initializer, shape: _normal(
        _number(initializer.mean), _number(initializer.stddev)
    ),
    initializers.TruncatedNormal.__call__: lambda initializer, shape: _truncated_normal(
        _number(initializer.mean), _number(initializer.stddev)
    ),
    initializers.VarianceScaling.__call__: _variance_scaling,
    initializers.Orthogonal.__call__: _orthogonal,
}


@contextmanager
def defer_drawing() -> Iterator[None]:
    """Opens a scope at whose end the variables made in it are drawn, so that their initializers can be exchanged.

    Where an initializer fails, Keras would keep the variables that are left, and fail by them in every later scope.
    """
    waiting = list(get_global_attribute(UNINITIALIZED) or ())
    try:
        with keras.StatelessScope():
            yield
    except BaseException:
        set_global_attribute(UNINITIALIZED, [variable for variable in waiting if variable._value is None])
        raise


def draw_on_host(make: Callable[[], keras.Model]) -> keras.Model:
    """Returns the model that `make` builds, with initial values drawn on the host.

    Args:
        make: Builds a model from new layers.
    """
    with defer_drawing():
        model = make()
        for variable in model.variables:
            drawn = isinstance(variable._initializer, (HostInitializer, StackedInitializer))
            if variable._value is None and isinstance(variable._initializer, initializers.Initializer) and not drawn:
                variable._initializer = HostInitializer(variable._initializer, 0)
    register_parameters(model)
    return model
