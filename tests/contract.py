"""What every layer of the library promises, checked by one call."""

from __future__ import annotations

import inspect
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from backend_helpers import gradients

POLICIES = ("mixed_bfloat16", "mixed_float16", "float16")
# JAX and TensorFlow compile each operation anew for each policy: a run that is not whole takes one a layer.
ONE_POLICY = keras.backend.backend() != "torch" and os.environ.get("KERAS_RESIDUAL_TESTS", "quick") != "all"
DRAWS = 8  # calls in training among which each weight must get a gradient that is not 0


def assert_layer_contract(
    make_layer: Callable[[], keras.layers.Layer],
    input_shape: tuple[int, ...] | Sequence[tuple[int, ...]],
    *,
    output_shape: tuple[int, ...] | None = None,
    zero_gradient_ok: Collection[str] = (),
    masks: bool = True,
    policies: Sequence[str] = POLICIES,
    tolerance: float = 1e-5,
) -> None:
    """Raises an AssertionError where a layer breaks a promise.

    Args:
        make_layer: Returns a new layer, the same at each call, under the dtype policy in force.
        input_shape: Shape of the input with its batch, or a list of shapes for a layer that takes a list.
        output_shape: The expected shape, with the batch, where the test knows it.
        zero_gradient_ok: Parts of the paths of weights whose gradient may be 0 at initialisation, for example
            `"gamma"`. It must be there and finite all the same.
        masks: Whether the layer hands masks on; looked at where each input has rank 3 or more.
        policies: Dtype policies besides float32 under which the layer must work.
        tolerance: Bound on differences as error / max|value|.
    """
    shapes = list(input_shape) if isinstance(input_shape, list) else [tuple(input_shape)]
    rng = np.random.default_rng(7)
    arrays = [rng.normal(size=shape).astype("float32") for shape in shapes]
    given = arrays if isinstance(input_shape, list) else arrays[0]

    layer = make_layer()
    eager = to_numpy(layer(given))
    assert output_shape is None or eager.shape == output_shape, f"output {eager.shape}, expected {output_shape}"
    _check_shapes(layer, make_layer(), shapes, isinstance(input_shape, list), eager.shape)
    perturb(layer)
    _check_determinism(layer, given)
    _check_config(layer, given, tolerance)
    _check_saving(layer, given, tolerance)
    _check_gradients(make_layer, given, zero_gradient_ok)
    _check_fit(make_layer, given)
    if masks and min(len(shape) for shape in shapes) >= 3:
        _check_masks(layer, given)
    if ONE_POLICY and policies:
        policies = [policies[zlib.crc32(f"{type(layer)} {shapes}".encode()) % len(policies)]]
    for policy in policies:
        _check_policy(make_layer, given, policy)


def to_numpy(x: Any) -> np.ndarray:
    """Returns a tensor as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    return ops.convert_to_numpy(ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) == "bfloat16" else x)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Raises where `max|actual - expected| / max|expected|` is above `tolerance`, or a shape differs."""
    actual, expected = (
        x if isinstance(x, np.ndarray) else to_numpy(ops.convert_to_tensor(x)) for x in (actual, expected)
    )
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert np.isfinite(actual).all(), "not finite"
    error = np.max(np.abs(actual - expected), initial=0.0) / max(np.max(np.abs(expected), initial=0.0), 1e-30)
    assert error <= tolerance, f"error / max|value| is {error:.3g}, above {tolerance:.3g}"


def perturb(layer: keras.layers.Layer) -> None:
    """Moves each weight off its initial value, upwards only: initial values hide weights that were not restored."""
    rng = np.random.default_rng(11)
    layer.set_weights([w + 0.1 + 0.2 * rng.random(w.shape).astype(w.dtype) for w in layer.get_weights()])


def _map(function: Callable[[Any], Any], given: Any) -> Any:
    return [function(item) for item in given] if isinstance(given, list) else function(given)


def _model(layer: keras.layers.Layer, given: Any) -> keras.Model:
    inputs = _map(lambda array: keras.Input(array.shape[1:]), given)
    return keras.Model(inputs, layer(inputs))


def _check_shapes(
    built: keras.layers.Layer, fresh: keras.layers.Layer, shapes: list[Any], many: bool, eager: tuple[int, ...]
) -> None:
    symbolic_shapes = [(None, *shape[1:]) for shape in shapes]
    expected = (None, *eager[1:])
    as_given = symbolic_shapes if many else symbolic_shapes[0]
    for layer, state in ((fresh, "before build"), (built, "after build")):
        computed = tuple(layer.compute_output_shape(as_given))
        assert computed == expected, f"compute_output_shape {state} gives {computed}, the eager call {expected}"
    symbolic = fresh(_map(lambda shape: keras.KerasTensor(shape), as_given))
    assert tuple(symbolic.shape) == expected, f"the symbolic call gives {symbolic.shape}, the eager call {expected}"


def _check_determinism(layer: keras.layers.Layer, given: Any) -> None:
    layer(given, training=True)
    first, second = to_numpy(layer(given, training=False)), to_numpy(layer(given, training=False))
    np.testing.assert_array_equal(first, second, err_msg="two calls at inference differ")
    np.testing.assert_array_equal(first, to_numpy(layer(given)), err_msg="a call without `training` is not inference")


def _check_config(layer: keras.layers.Layer, given: Any, tolerance: float) -> None:
    config = layer.get_config()
    missing = _arguments(type(layer)) - set(config)
    assert not missing, f"arguments of the constructor that get_config lacks: {missing}"
    assert json.loads(json.dumps(config)) == config, "the configuration is not plain data: tuples, arrays, objects"
    copy = type(layer).from_config(config)
    assert copy.get_config() == config, f"configuration changed on the way:\n{config}\n{copy.get_config()}"
    copy(given)
    assert [w.shape for w in copy.get_weights()] == [w.shape for w in layer.get_weights()]
    copy.set_weights(layer.get_weights())
    assert_close(copy(given), layer(given), tolerance)


def _arguments(cls: type) -> set[str]:
    """Names of the arguments of the constructors of `cls` and of its bases, but for Keras's own classes."""
    own = [c for c in cls.__mro__ if not c.__module__.startswith("keras.")]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [p for c in own if "__init__" in vars(c) for p in inspect.signature(c.__init__).parameters.values()]
    return {p.name for p in parameters if p.kind in named} - {
        "self",
        "changed_parts",
    }  # the latter: only what was changed


def _check_saving(layer: keras.layers.Layer, given: Any, tolerance: float) -> None:
    model = _model(layer, given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
    assert_close(loaded(given), layer(given), tolerance)


def _check_gradients(make_layer: Callable[[], keras.layers.Layer], given: Any, zero_ok: Collection[str]) -> None:
    layer = make_layer()
    many = isinstance(given, list)
    layer(given)
    variables = layer.trainable_variables
    still = {variable.path for variable in variables if not any(part in variable.path for part in zero_ok)}
    for _ in range(DRAWS):

        def call(*arrays: Any) -> Any:
            return layer(list(arrays) if many else arrays[0], training=True)

        _, found = gradients(call, given if many else [given], variables, compiled=True)
        for variable, gradient in zip(variables, found, strict=True):
            assert gradient is not None, f"no gradient reaches {variable.path}"
            assert np.isfinite(gradient).all(), f"the gradient of {variable.path} is not finite"
            if np.any(gradient):
                still.discard(variable.path)
        if not still:
            return
        layer(given, training=True)  # the next draw: under JAX the one within the gradient leaves no trace
    raise AssertionError(f"the gradient is 0 in {DRAWS} draws for {sorted(still)}")


def _check_fit(make_layer: Callable[[], keras.layers.Layer], given: Any) -> None:
    layer = make_layer()
    inputs = _map(lambda array: keras.Input(array.shape[1:]), given)
    # A dense layer below: the step must go through a layer without weights too.
    model = keras.Model(inputs, layer(_map(lambda x: keras.layers.Dense(x.shape[-1])(x), inputs)))
    model.compile(optimizer="sgd", loss="mse")
    target = np.zeros(to_numpy(layer(given)).shape, "float32")
    assert np.isfinite(model.train_on_batch(given, target)), "the loss of a training step is not finite"


@keras.saving.register_keras_serializable(package="tests")
class MaskProbe(keras.layers.Layer):
    """Hands its input on and keeps the mask that came with it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.seen: Any = None

    def call(self, inputs: Any, mask: Any = None) -> Any:
        self.seen = mask
        return inputs


def _check_masks(layer: keras.layers.Layer, given: Any) -> None:
    def padded(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[:, -1] = 0.0  # the last step counts as padding
        return array

    given = _map(padded, given)
    probe = MaskProbe()
    probe(layer(_map(keras.layers.Masking(), given)))
    first = given[0] if isinstance(given, list) else given
    assert probe.seen is not None, "the mask is lost"
    np.testing.assert_array_equal(to_numpy(probe.seen), np.any(first != 0, axis=-1), err_msg="the mask changed")


def _check_policy(make_layer: Callable[[], keras.layers.Layer], given: Any, policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = make_layer()
        for training in (False, True):
            y = layer(given, training=training)
            dtype = keras.backend.standardize_dtype(y.dtype)
            assert dtype == layer.compute_dtype, f"under {policy} the output is {dtype}, not {layer.compute_dtype}"
            assert np.isfinite(to_numpy(y).astype("float32")).all(), f"under {policy} the output is not finite"
        for variable in layer.trainable_variables:
            stored = keras.backend.standardize_dtype(variable.value.dtype)
            assert stored == layer.variable_dtype, f"under {policy} {variable.path} is stored as {stored}"
    finally:
        keras.config.set_dtype_policy(before)
