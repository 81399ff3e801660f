"""Topologies whose streams all have the shape of the input: against the formulas of their papers, in NumPy."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from backend_helpers import gradients
from contract import assert_close, to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.layers.depth_context import DepthContext
from keras_residual.stacks.topologies import manifold, streams
from keras_residual.stacks.topologies.base import Coefficients, Topology
from keras_residual.stacks.topologies.euler import Euler
from keras_residual.stacks.topologies.hyper_connections import HyperConnections, HyperConnectionsLink
from keras_residual.stacks.topologies.manifold import (
    MHC,
    IdentityHyperConnections,
    ManifoldLink,
    MHCLite,
    SinkhornLink,
)
from keras_residual.stacks.topologies.registry import TOPOLOGIES, make_topology
from keras_residual.stacks.topologies.residual_dual import ResidualDual
from keras_residual.stacks.topologies.x0_skip import X0Skip
from topology_helpers import drive, links_of, matrices, move, one_body, place, prenorm, unnormed

SHAPE = (2, 3, 8)
X = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
DEPTH, PER_BLOCK = 3, 2
KERNELS = matrices(DEPTH * PER_BLOCK, SHAPE[-1])

MADE: dict[str, Callable[[], Topology]] = {
    "euler": lambda: Euler(step=0.3),
    "x0_skip": X0Skip,
    "residual_dual": ResidualDual,
    "hyper_connections": lambda: HyperConnections(streams=4),
    "hyper_connections_of_3": lambda: HyperConnections(streams=3),
    "static_hyper_connections": lambda: HyperConnections(streams=3, dynamic=False),
    "frac_connections": lambda: HyperConnections(streams=1, fractions=4),
    "static_frac_connections": lambda: HyperConnections(streams=1, fractions=2, dynamic=False),
    "hyper_and_frac_connections": lambda: HyperConnections(streams=2, fractions=2),
    "mhc": MHC,
    "mhc_of_3": lambda: MHC(streams=3, iterations=5),
    "mhc_lite": lambda: MHCLite(streams=3),
    "identity_hyper_connections": lambda: IdentityHyperConnections(streams=3),
}
HYPER = [name for name in MADE if "hyper_connections" in name or "frac" in name or "mhc" in name]


# --- The formulas, each as its paper has it, in float64 --------------------------------------------------------------


def weights_of(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    return {w.name: np.asarray(value, "float64") for w, value in zip(layer.weights, layer.get_weights(), strict=True)}


def layer_norm(x: np.ndarray, epsilon: float) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def euler(topology: Euler, links: Any, branches: Any, x: np.ndarray) -> np.ndarray:
    for branch in branches:
        x = x + topology.step * branch(x)
    return x


def x0_skip(topology: X0Skip, links: Any, branches: Any, x: np.ndarray) -> np.ndarray:
    x0 = x
    for order, (link, branch) in enumerate(zip(links, branches, strict=True)):
        if order % PER_BLOCK == 0:
            w = weights_of(link)
            x = w["l0"] * x + w["l1"] * x0
        x = x + branch(x)
    return x


def residual_dual(topology: ResidualDual, links: Any, branches: Any, x: np.ndarray) -> np.ndarray:
    a = b = x
    for link, branch in zip(links, branches, strict=True):
        w, added = weights_of(link), branch(a)
        a = layer_norm(a + added, 1e-3) * w["gamma"] + w["beta"]
        b = b + added
    w = weights_of(topology)
    return a + layer_norm(b, 1e-3) * w["gamma"] + w["beta"]


def hyper_connections(topology: HyperConnections, links: Any, branches: Any, x: np.ndarray) -> np.ndarray:
    """Hyper-Connections eq. 2 and 10 to 13; of Frac-Connections, section 3, where `m > 1`."""
    n, m = topology.streams, topology.fractions
    *leading, d = x.shape
    H = np.concatenate([x.reshape(*leading, m, d // m)] * n, axis=-2)
    for link, branch in zip(links, branches, strict=True):
        w = weights_of(link)
        A_m, A_r, B = w["alpha"][:, :m], w["alpha"][:, m:], w["beta"]
        if topology.dynamic:
            normed = layer_norm(H, 1e-6) * w["gain"]
            A_m = w["alpha_scale"] * np.tanh(normed @ w["alpha_kernel"][:, :m]) + A_m
            A_r = w["alpha_scale"] * np.tanh(normed @ w["alpha_kernel"][:, m:]) + A_r
            B = w["beta_scale"] * np.tanh(normed @ w["beta_kernel"])[..., 0] + B
        received = np.einsum("...rf,...rd->...fd", np.broadcast_to(A_m, (*leading, n * m, m)), H)
        added = branch(received.reshape(*leading, d)).reshape(*leading, m, d // m)
        A_r, B = np.broadcast_to(A_r, (*leading, n * m, n * m)), np.broadcast_to(B, (*leading, n * m))
        H = np.einsum("...ij,...id->...jd", A_r, H) + B[..., None] * np.concatenate([added] * n, axis=-2)
    return H.reshape(*leading, n, d).sum(-2)


def by_sinkhorn(logits: np.ndarray, n: int, iterations: int) -> np.ndarray:
    matrix = np.exp(logits.reshape(*logits.shape[:-1], n, n))
    for _ in range(iterations):
        matrix = matrix / matrix.sum(-2, keepdims=True)
        matrix = matrix / matrix.sum(-1, keepdims=True)
    return matrix


def by_permutations(logits: np.ndarray, n: int) -> np.ndarray:
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    made = np.zeros((*logits.shape[:-1], n, n))
    for k, order in enumerate(itertools.permutations(range(n))):
        for i, j in enumerate(order):
            made[..., i, j] += weights[..., k]
    return made


def mhc(topology: Any, links: Any, branches: Any, x: np.ndarray) -> np.ndarray:
    """mHC eq. 3, 7 and 8."""
    n = topology.streams
    rows = np.stack([x] * n, axis=-2)
    for link, branch in zip(links, branches, strict=True):
        w = weights_of(link)
        W, b, a = w["kernel"], w["bias"], w["scale"]
        flat = rows.reshape(*x.shape[:-1], -1)
        normed = flat / np.sqrt((flat**2).mean(-1, keepdims=True) + 1e-6)
        h_pre = sigmoid(a[0] * normed @ W[:, :n] + b[:n])
        h_post = 2 * sigmoid(a[1] * normed @ W[:, n : 2 * n] + b[n : 2 * n])
        h_res = np.broadcast_to(np.eye(n), (*x.shape[:-1], n, n))
        if not isinstance(topology, IdentityHyperConnections):
            logits = a[2] * normed @ W[:, 2 * n :] + b[2 * n :]
            lite = isinstance(topology, MHCLite)
            h_res = by_permutations(logits, n) if lite else by_sinkhorn(logits, n, topology.iterations)
        added = branch(np.einsum("...n,...nd->...d", h_pre, rows))
        rows = np.einsum("...ij,...jd->...id", h_res, rows) + h_post[..., None] * added[..., None, :]
    return rows.sum(-2)


FORMULAS: dict[type, Callable[..., np.ndarray]] = {
    Euler: euler,
    X0Skip: x0_skip,
    ResidualDual: residual_dual,
    HyperConnections: hyper_connections,
    MHC: mhc,
    MHCLite: mhc,
    IdentityHyperConnections: mhc,
}


def compare_with_formula(name: str, size: float = 0.5) -> None:
    """Raises where a composite of connections with random weights is not what the paper's formula gives."""
    topology = MADE[name]()
    links = links_of(topology, SHAPE, DEPTH, PER_BLOCK)
    move([topology, *links], size)
    branches = [unnormed(kernel) for kernel in KERNELS]
    output, _ = drive(topology, links, branches, X)
    assert_close(output, FORMULAS[type(topology)](topology, links, branches, X.astype("float64")), 1e-5)


@pytest.mark.parametrize("name", MADE)
def test_a_composite_is_the_formula_of_the_paper(name: str) -> None:
    compare_with_formula(name)


# --- The mistakes that published implementations made: the comparison above must notice each -------------------------


def transposed(coefficients: Coefficients) -> Coefficients:
    turned = ops.swapaxes(coefficients.transport, -1, -2)
    return Coefficients(read=coefficients.read, transport=turned, write=coefficients.write)


def without_two(coefficients: Coefficients) -> Coefficients:
    return Coefficients(
        read=coefficients.read, transport=coefficients.transport, write=ops.divide(coefficients.write, 2)
    )


def of_sigmoid(self: SinkhornLink, logits: Any) -> Any:
    return right_residual(self, ops.log(ops.sigmoid(logits)))


def rows_first(logits: Any, iterations: int) -> Any:
    turned = right_sinkhorn(ops.swapaxes(logits, -1, -2), iterations)
    return ops.swapaxes(turned, -1, -2)


right_residual = SinkhornLink.residual
right_sinkhorn = manifold.sinkhorn
MISTAKES: dict[str, tuple[str, Any, str, Callable[[Any], Any]]] = {
    "mhc transposed": (
        "mhc",
        ManifoldLink,
        "coefficients",
        lambda right: lambda self, rows, context: transposed(right(self, rows, context)),
    ),
    "mhc_lite transposed": (
        "mhc_lite",
        ManifoldLink,
        "coefficients",
        lambda right: lambda self, rows, context: transposed(right(self, rows, context)),
    ),
    "hyper-connections transposed": (
        "static_hyper_connections",
        HyperConnectionsLink,
        "coefficients",
        lambda right: lambda self, rows, context: transposed(right(self, rows, context)),
    ),
    "no factor 2": (
        "mhc",
        ManifoldLink,
        "coefficients",
        lambda right: lambda self, rows, context: without_two(right(self, rows, context)),
    ),
    "sigmoid for exp": ("mhc", SinkhornLink, "residual", lambda right: of_sigmoid),
    "rows before columns": ("mhc_of_3", manifold, "sinkhorn", lambda right: rows_first),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_known_mistake_is_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, owner, attribute, wrong = MISTAKES[mistake]
    monkeypatch.setattr(owner, attribute, wrong(getattr(owner, attribute)))
    with pytest.raises(AssertionError, match="error / max"):
        compare_with_formula(name)


# --- What holds at first ---------------------------------------------------------------------------------------------


def plain(x: np.ndarray, branches: Any) -> np.ndarray:
    for branch in branches:
        x = x + branch(x)
    return x


def compare_with_plain(topology: Topology, branches: Any, times: int) -> None:
    """Raises where a composite does not start as `times` a plain stack, or a stream as a plain one."""
    links = links_of(topology, SHAPE, DEPTH, PER_BLOCK)
    output, seen = drive(topology, links, branches, X)
    expected = plain(X.astype("float64"), branches)
    assert_close(output, times * expected, 1e-5)
    if isinstance(topology, streams.MultiStream):
        assert len(seen[-1]) == topology.streams
        for row in seen[-1]:
            assert_close(row, expected, 1e-5)


@pytest.mark.parametrize("name", [name for name in HYPER if "mhc" not in name and "identity" not in name] + ["x0_skip"])
def test_a_plain_stack_at_first_whatever_the_branch(name: str) -> None:
    topology = MADE[name]()
    compare_with_plain(topology, [unnormed(kernel) for kernel in KERNELS], getattr(topology, "streams", 1))


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("cls", [MHC, MHCLite, IdentityHyperConnections, HyperConnections])
def test_a_plain_prenorm_stack_at_first(cls: Any, n: int) -> None:
    compare_with_plain(cls(streams=n), [prenorm(kernel) for kernel in KERNELS], n)


def test_a_start_that_is_not_plain_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The start of another implementation: b = 1 for H_post too, so that H_post = 2 sigmoid(1).
    def bias(self: Any, index: int) -> np.ndarray:
        return np.concatenate([self.own_stream(index), np.ones(self.streams), self.first_logits()])

    monkeypatch.setattr(ManifoldLink, "_first_bias", bias)
    with pytest.raises(AssertionError, match="error / max"):
        compare_with_plain(MHC(), [prenorm(kernel) for kernel in KERNELS], 4)


def test_euler_is_the_plain_stack_at_step_1_and_one_unit_of_time_by_default() -> None:
    compare_with_plain(Euler(step=1), [unnormed(kernel) for kernel in KERNELS], 1)
    errors = []
    for depth in (64, 128):
        topology = Euler()
        links = links_of(topology, SHAPE, depth)
        output, _ = drive(topology, links, [lambda x: -x] * depth, X)
        errors.append(np.abs(to_numpy(output) - X * np.exp(-1)).max())
    assert 1.9 < errors[0] / errors[1] < 2.1  # a method of first order


# --- Q, T and P ------------------------------------------------------------------------------------------------------


def coefficients_of(name: str, size: float = 0.0) -> tuple[Any, dict[str, np.ndarray]]:
    topology = MADE[name]()
    (link,) = links_of(topology, SHAPE, 1)
    move([link], size)
    return link.coefficients(topology.begin(ops.convert_to_tensor(X)), DepthContext(index=0)), weights_of(link)


def test_the_coefficients_of_the_static_topologies() -> None:
    found, w = coefficients_of("x0_skip", 0.5)
    l0, l1 = w["l0"], w["l1"]
    assert [float(to_numpy(v)) for v in found.read] == [l0, l1]
    assert [float(to_numpy(v)) for v in found.transport[0]] == [l0, l1]
    assert found.transport[1] == (0, 1)
    assert found.write == (1, 0)
    found, _ = coefficients_of("residual_dual")
    assert (found.read, found.transport, found.write) == ((1, 0), None, (1, 1))
    found, _ = coefficients_of("euler")
    assert (found.read, found.transport, found.write) == ((1,), None, (0.3,))


def test_the_coefficients_of_hyper_connections_at_first() -> None:
    found, _ = coefficients_of("static_hyper_connections")
    assert_close(found.read, np.eye(3)[0].astype("float32"))
    assert_close(found.transport, np.eye(3, dtype="float32"))
    assert_close(found.write, np.ones(3, "float32"))
    found, _ = coefficients_of("mhc")
    assert_close(found.read, np.broadcast_to(sigmoid(np.eye(4)[0]).astype("float32"), (2, 3, 4)))
    assert_close(found.write, np.ones((2, 3, 4), "float32"))
    assert_close(found.transport[0, 0], by_sinkhorn(np.eye(4).ravel(), 4, 20).astype("float32"))
    found, _ = coefficients_of("identity_hyper_connections", 0.5)
    assert found.transport is None


def test_which_stream_a_connection_reads_goes_by_its_index_in_the_stack() -> None:
    topology = HyperConnections(streams=4)
    links = links_of(topology, SHAPE, DEPTH, PER_BLOCK)
    for order, link in enumerate(links):
        assert_close(weights_of(link)["alpha"][:, 0], np.eye(4)[order % 4])
    for order, link in enumerate(links_of(MHC(), SHAPE, DEPTH, PER_BLOCK)):
        assert_close(weights_of(link)["bias"][:4], np.eye(4)[order % 4])


# --- Doubly stochastic matrices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("std", "bound"), [(0.5, 1e-5), (1, 1e-4), (4, 0.3), (20, 1.01), (40, 1.01)])
def test_rows_of_sinkhorn_sum_to_1_and_columns_as_well_as_20_iterations_can(std: float, bound: float) -> None:
    logits = std * np.random.default_rng(2).normal(size=(200, 16)).astype("float32")
    link = SinkhornLink(4, iterations=20, position=0, per_block=1, index=0)
    matrix = to_numpy(link.residual(ops.convert_to_tensor(logits)))
    assert (matrix >= 0).all()
    assert_close(matrix.sum(-1), np.ones((200, 4)), 1e-5)
    assert np.abs(matrix.sum(-2) - 1).max() < bound
    if std <= 4:
        assert_close(matrix, by_sinkhorn(logits.astype("float64"), 4, 20), 1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_mhc_lite_is_doubly_stochastic_for_any_logits(n: int) -> None:
    link = MHCLite(streams=n).link(place())
    count = len(link.first_logits())
    logits = 20 * np.random.default_rng(2).normal(size=(50, count)).astype("float32")
    matrix = to_numpy(link.residual(ops.convert_to_tensor(logits)))
    assert_close(matrix.sum(-1), np.ones((50, n)), 1e-5)
    assert_close(matrix.sum(-2), np.ones((50, n)), 1e-5)
    assert np.linalg.norm(matrix, 2, axis=(-2, -1)).max() < 1 + 1e-5


@pytest.mark.parametrize("name", ["mhc", "mhc_lite", "identity_hyper_connections"])
def test_the_sum_of_the_streams_is_what_the_branches_add(name: str) -> None:
    topology = MADE[name]()
    links = links_of(topology, SHAPE, 50)
    # Small, for Sinkhorn to converge: see the accuracy above.
    move(links, 0.2)
    rows = [ops.convert_to_tensor(X * (i + 1)) for i in range(topology.streams)]
    total = sum(to_numpy(row) for row in rows)
    for link in links:
        rows = link.connect(tuple(rows), lambda x: 0 * x, DepthContext())
    assert_close(topology.end(rows), total, 1e-4)


# --- As layers -------------------------------------------------------------------------------------------------------


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
        named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
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

        def spied(rows: Any, context: Any, right: Any = link.coefficients, kept: Any = received) -> Any:
            kept.append(right(rows, context))
            return kept[-1]

        link.coefficients = spied
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
        (lambda: HyperConnections(streams=0), ValueError, "`streams` must be a whole number of at least 1"),
        (lambda: HyperConnections(streams=2.0), TypeError, "`streams` must be a whole number of at least 1"),
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


# --- In a stack ------------------------------------------------------------------------------------------------------


def block() -> list[keras.layers.Layer]:
    return [
        Residual(keras.layers.Dense(8, activation="tanh", name="dense"), norm="layer_norm", name="first"),
        Residual(keras.layers.Dense(8, activation="tanh", name="dense"), norm="rms_norm", name="second"),
    ]


def stack_of(name: str, execution: str) -> ResidualStack:
    keras.utils.set_random_seed(4)
    return ResidualStack(block(), DEPTH, topology=MADE[name](), execution=execution, name="stack")


@pytest.mark.parametrize("name", MADE)
def test_a_scanned_stack_is_the_unrolled_one(name: str) -> None:
    stacks = [stack_of(name, execution) for execution in ("unrolled", "scan")]
    for stack in stacks:
        stack(X)
    at_first = [stack.get_stacked_weights() for stack in stacks]
    for key, value in at_first[0].items():
        np.testing.assert_array_equal(at_first[1][key], value, err_msg=key)

    rng = np.random.default_rng(8)
    moved = {key: value + 0.2 * rng.normal(size=value.shape) for key, value in at_first[0].items()}
    ends = [w + 0.2 * rng.normal(size=w.shape) for w in stacks[0].topology.get_weights()]
    found = []
    for stack in stacks:
        stack.set_stacked_weights(moved)
        stack.topology.set_weights(ends)
        by_x, by_variable = gradients(stack, [X], stack.trainable_variables)
        named: dict[str, list[np.ndarray]] = {}
        for variable, gradient in zip(stack.trainable_variables, by_variable, strict=True):
            key = "/".join(p for p in variable.path.split("/") if not p.startswith(("block", "residual_dual")))
            named.setdefault(key, []).append(gradient)
        joined = {key: np.stack(g) if len(g) > 1 else g[0] for key, g in named.items()}
        found.append({"output": to_numpy(stack(X)), "x": by_x[0], **joined})
    assert set(found[0]) == set(found[1])
    for key, value in found[0].items():
        assert_close(found[1][key].reshape(value.shape), value, 1e-5)


@pytest.mark.parametrize("execution", ["unrolled", "scan"])
@pytest.mark.parametrize("name", MADE)
def test_a_model_is_saved_and_loaded(name: str, execution: str, tmp_path: Path) -> None:
    stack = stack_of(name, execution)
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, stack(inputs))
    stack.set_stacked_weights({key: value + 0.1 for key, value in stack.get_stacked_weights().items()})
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(X), model(X), 1e-6)


@pytest.mark.parametrize("name", HYPER)
def test_a_stack_draws_the_first_weights_of_each_connection(name: str) -> None:
    stack = stack_of(name, "scan")
    stack(X)
    weights = stack.get_stacked_weights()
    links = links_of(MADE[name](), SHAPE, DEPTH, PER_BLOCK)
    for order, link in enumerate(links):
        index, position = divmod(order, PER_BLOCK)
        for variable, value in zip(link.weights, link.get_weights(), strict=True):
            stacked = weights[f"link_{position}/{variable.name}"]
            np.testing.assert_array_equal(stacked[index], value, err_msg=variable.path)


@pytest.mark.parametrize("name", [n for n in TOPOLOGIES if type(make_topology(n)) in FORMULAS])
def test_a_stack_takes_the_name_and_trains(name: str) -> None:
    stack = ResidualStack(block(), 2, topology=name)
    model = keras.Sequential([keras.Input(SHAPE[1:]), stack])
    model.compile("sgd", "mse")
    before = to_numpy(model(X))
    losses = [model.train_on_batch(X, np.zeros_like(X)) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert not np.allclose(before, to_numpy(model(X)))


def test_streams_that_start_as_copies_do_not_stay_so() -> None:
    """With the same weights for all streams they would: then training several were training one."""
    for name in ("hyper_connections", "mhc", "mhc_lite", "identity_hyper_connections"):
        stack = ResidualStack(block(), DEPTH, topology=MADE[name](), execution="unrolled", name="stack")
        model = keras.Sequential([keras.Input(SHAPE[1:]), stack])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        for _ in range(3):
            model.train_on_batch(X, np.zeros_like(X))
        rows = stack.topology.begin(ops.convert_to_tensor(X))
        contexts = [DepthContext(index=0)] * PER_BLOCK
        for cell in stack._blocks.cells:
            rows = cell(rows, contexts=contexts)
        first, second = to_numpy(rows[0]), to_numpy(rows[1])
        assert np.abs(first - second).max() > 1e-4 * np.abs(first).max(), name
