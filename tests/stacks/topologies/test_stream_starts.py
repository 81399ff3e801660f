"""Topologies of several streams: what holds at first, their coefficients, and what is doubly stochastic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

from contract import assert_close, to_numpy
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies import streams
from keras_residual.stacks.topologies.base import Topology
from keras_residual.stacks.topologies.euler import Euler
from keras_residual.stacks.topologies.hyper_connections import HyperConnections
from keras_residual.stacks.topologies.manifold import (
    MHC,
    IdentityHyperConnections,
    ManifoldLink,
    MHCLite,
    SinkhornLink,
)
from topology_formulas import (
    DEPTH,
    HYPER,
    KERNELS,
    MADE,
    PER_BLOCK,
    SHAPE,
    X,
    by_sinkhorn,
    sigmoid,
    weights_of,
)
from topology_helpers import drive, links_of, move, place, prenorm, unnormed

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
