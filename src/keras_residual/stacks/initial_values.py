"""Initial values drawn by NumPy, distributed as by Keras's initializers, without compiling a program for each shape."""

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
"""Indices of a block in the stacks around it, the outermost first."""

Fill = Callable[[np.random.Generator, np.ndarray], None]
"""Writes one draw into an array."""

_TRUNCATED_STDDEV = 0.87962566103423978  # of a standard normal cut off at ±2


def host_value(initializer: Any, shape: Sequence[int], dtype: Any, *, index: int) -> np.ndarray:
    """Returns the initial value of a weight of the block `index`.

    The values are determined by the seed of the initializer and the index, and differ from index to index even if the
    seed is an integer. They are not the values that the initializer itself would draw, but have the same distribution.
    An initializer without a NumPy twin here is called itself, with a seed derived from the index if it takes one.

    Args:
        initializer: An initializer of Keras, its name, or a function `(shape, dtype)`. If it has a method `at(index)`,
            that method returns the initializer for a block.
        shape: Shape of the weight.
        dtype: Name of a dtype; None for `keras.config.floatx()`.
        index: Index of the block in its stack.
    """
    return _cast(_draw(_as_callable(initializer), tuple(shape), dtype, (index,)), dtype)


class _Wrapper(initializers.Initializer):
    """An initializer that draws by NumPy and knows its indices in the stacks around it."""

    _outer: Path = ()

    def at(self, index: int) -> Any:
        """Returns the initializer for the block `index` of a stack around this one."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._outer = (index, *self._outer)
        return made

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns the values as a tensor."""
        # Cast by NumPy: a cast on the device would compile a program for each shape, which this file avoids.
        return as_tensor(_cast(self.host(tuple(shape), dtype), dtype))

    def host(self, shape: Path, dtype: Any, outer: Path = ()) -> np.ndarray:
        """Returns the values as an array, whose dtype may be wider than `dtype`."""
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
    for index in reversed(path):  # an initializer knows the stack that it is in, not those around that
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
    # `fill` holds what depends on initializer and shape alone, for all blocks.
    values = np.empty(shape, _dtype_to_draw(dtype))
    seed = _seed_of(initializer)
    for index in range(depth):
        fill(_generator(seed, (*outer, index)), values[index, ...])
    return values


def _generator(seed: int, path: Path) -> np.random.Generator:
    # Not as part of the entropy, which NumPy pads with zeros: (1,) and (1, 0) would give the same values.
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=path)
    return np.random.Generator(np.random.SFC64(sequence))


_seeds: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def _seed_of(initializer: Any) -> int:
    """Returns the seed of an initializer that has a twin; 0 for one that draws nothing and has no seed."""
    seed = getattr(initializer, "seed", 0)
    if isinstance(seed, int):
        return seed
    # A generator is advanced once for the next initializer, and not once per block.
    if initializer not in _seeds:
        words = [int(word) % 2**64 for word in np.asarray(ops.convert_to_numpy(seed.next())).ravel()]
        _seeds[initializer] = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
    return _seeds[initializer]


def _call(initializer: Any, shape: Path, dtype: Any, path: Path) -> np.ndarray:
    """Returns the values of an initializer without a twin, with a seed derived from the path if it has one."""
    if isinstance(initializer, initializers.Initializer):
        config = initializer.get_config()
        seed = getattr(initializer, "seed", config.get("seed"))
        # Without a seed it draws from the global generator of Keras, which advances with each call.
        if "seed" in config and isinstance(seed, int):
            state = np.random.SeedSequence(seed % 2**64, spawn_key=path).generate_state(1)
            initializer = type(initializer).from_config({**config, "seed": int(state[0] >> 1)})
    return np.asarray(ops.convert_to_numpy(initializer(shape, dtype=keras.backend.standardize_dtype(dtype))))


def _dtype_to_draw(dtype: Any) -> Any:
    """Returns the dtype to draw in: float32 for narrower floats, otherwise the dtype itself."""
    name = keras.backend.standardize_dtype(dtype)
    return np.dtype("float32" if name in ("float16", "bfloat16") or name.startswith("float8") else name)


def _cast(values: np.ndarray, dtype: Any) -> np.ndarray:
    # NumPy knows bfloat16 and similar dtypes through ml_dtypes, which Keras imports.
    return values.astype(np.dtype(keras.backend.standardize_dtype(dtype)), copy=False)


def _scale(values: np.ndarray, gain: Any) -> np.ndarray:
    exact = values.dtype if np.issubdtype(values.dtype, np.floating) else "float64"
    return (values * np.asarray(gain, exact)).astype(values.dtype, copy=False)


# --- NumPy twins by the function that draws, so that a subclass with its own `__call__` has none ---------------------


def _twin(initializer: Any, shape: Path, dtype: Any) -> Fill | None:
    make = _TWINS.get(type(initializer).__call__)
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype))
    # Random integers are left to Keras to draw or refuse: truncated floats would mostly be zeros.
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
    # For other ranks Keras's own raises an error.
    return _constant(_number(initializer.gain) * np.eye(*shape)) if len(shape) == 2 else None


def _orthogonal(initializer: Any, shape: Path) -> Fill | None:
    if len(shape) < 2:
        return None
    rows, columns = math.prod(shape[:-1]), shape[-1]
    gain = _number(initializer.gain)

    def fill(generator: np.random.Generator, out: np.ndarray) -> None:
        matrix = generator.standard_normal((max(rows, columns), min(rows, columns)), dtype=out.dtype.type)
        q, r = np.linalg.qr(matrix)
        q *= gain * np.sign(np.diagonal(r))  # without the signs, q would not be uniformly distributed
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
    """Opens a scope at whose end the variables created in it are drawn, so that their initializers can be replaced.

    If an initializer fails, Keras would keep the remaining variables and fail on them in every later scope.
    """
    waiting = list(get_global_attribute(UNINITIALIZED) or ())
    try:
        with keras.StatelessScope():
            yield
    except BaseException:
        set_global_attribute(UNINITIALIZED, [variable for variable in waiting if variable._value is None])
        raise


def draw_on_host(make: Callable[[], keras.Model]) -> keras.Model:
    """Builds a model whose initial values are drawn on the host.

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
