"""Topologies of several streams as layers: weights, gradients, configurations, half precision, errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.euler import Euler
from keras_residual.stacks.topologies.hyper_connections import HyperConnections
from keras_residual.stacks.topologies.manifold import (
    MHC,
    IdentityHyperConnections,
    MHCLite,
)
from keras_residual.stacks.topologies.residual_dual import ResidualDual
from keras_residual.stacks.topologies.x0_skip import X0Skip
from topology_formulas import (
    DEPTH,
    KERNELS,
    MADE,
    PER_BLOCK,
    SHAPE,
    X,
)
from topology_helpers import drive, links_of, move, one_body, unnormed


@pytest.mark.parametrize(("n", "parameters"), [(1, 37), (2, 50), (4, 82)])
def test_the_number_of_weights_of_hyper_connections(n: int, parameters: int) -> None:
    (link,) = links_of(HyperConnections(streams=n), SHAPE, 1)
    assert link.count_params() == parameters
    (link,) = links_of(HyperConnections(streams=n, dynamic=False), SHAPE, 1)
    assert link.count_params() == n * (n + 2)


def test_the_number_of_weights_of_mhc() -> None:
    n, d = 4, 8
    counts = {MHC: n**2, MHCLite: 24}
    for cls, logits in counts.items():
        (link,) = links_of(cls(), SHAPE, 1)
        assert link.count_params() == n * d * (logits + 2 * n) + logits + 2 * n + 3
    (link,) = links_of(IdentityHyperConnections(), SHAPE, 1)
    assert link.count_params() == 2 * n * n * d + 2 * n + 2


@pytest.mark.parametrize("name", MADE)
def test_one_body_for_every_index_gives_the_same(name: str) -> None:
    topology = MADE[name]()
    links = links_of(topology, SHAPE, DEPTH, PER_BLOCK)
    move([topology, *links])
    branches = [unnormed(kernel) for kernel in KERNELS]
    expected, _ = drive(topology, links, branches, X)
    body = one_body(topology, SHAPE, DEPTH, PER_BLOCK)
    found, _ = drive(topology, links, branches, X, body=body)
    np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


@pytest.mark.parametrize("name", MADE)
def test_every_weight_gets_a_gradient(name: str) -> None:
    topology = MADE[name]()
    links = links_of(topology, SHAPE, DEPTH, PER_BLOCK)
    move([topology, *links], 0.3)
    branches = [unnormed(kernel) for kernel in KERNELS]
    variables = [v for layer in (topology, *links) for v in layer.trainable_variables]
    by_x, found = gradients(lambda x: drive(topology, links, branches, x)[0], [X], variables)
    assert np.isfinite(by_x[0]).all()
    assert np.any(by_x[0])
    # As long as streams are equal, a doubly stochastic mix of them is the same whatever its weights.
    first = {id(v) for v in links[0].trainable_variables}
    for variable, gradient in zip(variables, found, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient) or id(variable) in first, variable.path


@pytest.mark.parametrize("name", MADE)
def test_configurations_are_complete(name: str) -> None:
    topology = MADE[name]()
    links = links_of(topology, SHAPE, DEPTH, PER_BLOCK)
    move([topology, *links])
    branches = [unnormed(kernel) for kernel in KERNELS]
    expected, _ = drive(topology, links, branches, X)
    for layer in (topology, *links):
        own = type(layer).__mro__[: type(layer).__mro__.index(keras.layers.Layer)]
        parameters = [
            p for c in own if "__init__" in vars(c) for p in inspect.signature(c.__init__).parameters.values()
        ]
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        named -= {"self", "changed_parts"}  # the latter: only what was changed
        assert named <= set(layer.get_config()), named - set(layer.get_config())
    copies = [
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        for layer in (topology, *links)
    ]
    for layer, copy in zip((topology, *links), copies, strict=True):
        assert copy.get_config() == layer.get_config()
        if not copy.built:
            copy.build((None, *SHAPE[1:]))
        copy.set_weights(layer.get_weights())
    found, _ = drive(copies[0], copies[1:], branches, X)
    assert_close(found, expected, 0)


class AsInALayer(keras.layers.Layer):
    """Calls a function where variables are cast to the dtype of computation, as in the call of a stack's block."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", MADE)
def test_half_precision(name: str, policy: str) -> None:
    topology = MADE[name]()
    links = links_of(topology, SHAPE, DEPTH, PER_BLOCK)
    move([topology, *links], 0.2)
    branches = [unnormed(kernel) for kernel in KERNELS]
    expected = to_numpy(drive(topology, links, branches, X)[0])

    keras.config.set_dtype_policy(policy)
    half = MADE[name]()
    copies = links_of(half, SHAPE, DEPTH, PER_BLOCK)
    for layer, copy in zip((topology, *links), (half, *copies), strict=True):
        copy.set_weights(layer.get_weights())
        assert {w.dtype for w in copy.weights} <= {"float32"}
    dtype = keras.config.dtype_policy().compute_dtype
    output, seen = AsInALayer(lambda x: drive(half, copies, branches, x))(ops.cast(X, dtype))
    assert {keras.backend.standardize_dtype(row.dtype) for rows in seen for row in rows} == {dtype}
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    assert_close(ops.cast(output, "float32"), expected, 0.05 if policy == "mixed_bfloat16" else 0.01)


def test_coefficients_are_float32_in_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    for name in ("mhc", "hyper_connections"):
        topology = MADE[name]()
        (link,) = links_of(topology, SHAPE, 1)
        received = []

        def spied(x: Any, right: Any = link.weigh, kept: Any = received) -> Any:
            kept.append(right(x))
            return kept[-1]

        link.weigh = spied
        link.connect(topology.begin(ops.cast(X, "bfloat16")), lambda x: x, DepthContext(index=0))
        (found,) = received
        for value in (found.read, found.transport, found.write):
            assert keras.backend.standardize_dtype(value.dtype) == "float32"


@pytest.mark.parametrize("name", ["euler", "x0_skip", "static_hyper_connections"])
def test_static_topologies_take_channels_first(name: str) -> None:
    maps = np.random.default_rng(3).normal(size=(2, 8, 5, 5)).astype("float32")
    topology, turned = MADE[name](), MADE[name]()
    links, copies = links_of(topology, (2, 5, 5, 8), 3), links_of(turned, maps.shape, 3)
    move([topology, *links])
    for layer, copy in zip((topology, *links), (turned, *copies), strict=True):
        copy.set_weights(layer.get_weights())
    output, _ = drive(topology, links, [lambda x: x / 2] * 3, np.moveaxis(maps, 1, -1))
    first, _ = drive(turned, copies, [lambda x: x / 2] * 3, maps)
    assert_close(np.moveaxis(to_numpy(first), 1, -1), to_numpy(output))


def test_residual_dual_takes_channels_first_by_its_axis() -> None:
    maps = np.random.default_rng(3).normal(size=(2, 8, 5, 5)).astype("float32")
    # Not a layer norm, which Keras's PyTorch backend computes over the last axes whatever the axis.
    topology, turned = ResidualDual("group_norm"), ResidualDual("group_norm", axis=1)
    links, copies = links_of(topology, (2, 5, 5, 8), 3), links_of(turned, maps.shape, 3)
    output, _ = drive(topology, links, [lambda x: x / 2] * 3, np.moveaxis(maps, 1, -1))
    first, _ = drive(turned, copies, [lambda x: x / 2] * 3, maps)
    assert_close(np.moveaxis(to_numpy(first), 1, -1), to_numpy(output))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Euler(step=0), ValueError, "`step` must be a number above 0, but received 0"),
        (lambda: X0Skip(init=(1,)), ValueError, "`init` must be two finite numbers"),
        (lambda: X0Skip(init=(1, float("nan"))), ValueError, "`init` must be two finite numbers"),
        (lambda: HyperConnections(streams=0), ValueError, "`streams` must be a whole number from 1 to 1,000"),
        (lambda: HyperConnections(streams=10**9), ValueError, "`streams` must be a whole number from 1 to 1,000"),
        (lambda: MHC(iterations=10**9), ValueError, "`iterations` must be a whole number from 1 to 10,000"),
        (lambda: HyperConnections(streams=2.0), TypeError, "`streams` must be a whole number from 1 to 1,000"),
        (lambda: HyperConnections(dynamic=1), TypeError, "`dynamic` must be True or False"),
        (lambda: HyperConnections(fractions=0), ValueError, "`fractions` must be a whole number"),
        (lambda: MHC(iterations=0), ValueError, "`iterations` must be a whole number"),
        (lambda: MHCLite(streams=6), ValueError, "`streams` must be at most 5.*'mhc'"),
        (lambda: ResidualDual(norm="layernorm"), ValueError, "Did you mean 'layer_norm'"),
        (lambda: ResidualDual(axis=0), ValueError, "`axis` must be an integer other than 0"),
        (lambda: links_of(HyperConnections(fractions=3), SHAPE, 1), ValueError, "`fractions` must be a divisor of 8"),
        (lambda: links_of(HyperConnections(), (2, 3, None), 1), ValueError, "last axis has a known length"),
        (lambda: links_of(MHC(), (2, 3, None), 1), ValueError, "last axis has a known length"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_static_hyper_connections_need_no_known_width() -> None:
    (link,) = links_of(HyperConnections(dynamic=False), (2, None), 1)
    assert link.count_params() == 24
