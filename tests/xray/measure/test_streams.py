"""What the X-ray says of stacks of several streams, against the streams computed block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from contract import to_numpy
from keras_residual import Residual, ResidualStack, topologies
from keras_residual.residual.context import DepthContext
from keras_residual.xray import xray

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3, 6)).astype("float32")
DEPTH = 4

TOPOLOGIES: dict[str, Callable[[], Any]] = {
    "hyper_connections": lambda: topologies.HyperConnections(3),
    "static": lambda: topologies.HyperConnections(2, dynamic=False),
    "fractions": lambda: topologies.HyperConnections(2, fractions=3),
    "mhc": lambda: topologies.MHC(3),
    "mhc_lite": lambda: topologies.MHCLite(3),
    "identity": lambda: topologies.IdentityHyperConnections(3),
}


def stack_of(topology: Any, execution: str = "unrolled", **kwargs: Any) -> ResidualStack:
    branch = [layers.Dense(8, activation="tanh"), layers.Dense(6)]
    return ResidualStack(
        Residual(branch, norm="layer_norm"), DEPTH, topology=topology, execution=execution, name="stack", **kwargs
    )


def moved(stack: ResidualStack) -> ResidualStack:
    """Returns the stack, built, with all weights of its links away from their initial values."""
    stack(X)
    rng = np.random.default_rng(3)
    weights = stack.get_stacked_weights()
    changed = {name: w + 0.4 * rng.normal(size=w.shape) for name, w in weights.items() if "link" in name}
    assert changed
    stack.set_stacked_weights({name: value.astype("float32") for name, value in changed.items()})
    return stack


def blocks_of(stack: ResidualStack) -> list[Any]:
    return list(xray(keras.Sequential([keras.Input((3, 6)), stack]), X).blocks)


def cosine_of(rows: Any) -> float:
    arrays = [to_numpy(row).reshape(-1, 6).astype("float64") for row in rows]
    found = []
    for i, a in enumerate(arrays):
        for b in arrays[:i]:
            found += list((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    return float(np.mean(found))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_numbers_are_those_of_the_streams_block_by_block(name: str) -> None:
    stack = moved(stack_of(TOPOLOGIES[name]()))
    found = blocks_of(stack)
    rows = stack.topology.begin(ops.convert_to_tensor(X))
    product: Any = None
    for block, cell in zip(found, stack._blocks.cells, strict=True):
        context = DepthContext(index=cell.links[0].index)
        matrix = cell.links[0].coefficients(rows, context).transport
        size = 2 * 3 if name == "fractions" else len(rows)
        matrix = np.eye(size) if matrix is None else to_numpy(matrix).astype("float64")
        matrix = np.broadcast_to(matrix, (*X.shape[:2], size, size))
        product = matrix if product is None else matrix @ product
        gain = [np.abs(product).sum(axis=axis).max(axis=-1) for axis in (-1, -2)]
        error = [np.abs(matrix.sum(axis=axis) - 1).max(axis=-1) for axis in (-1, -2)]
        rows = cell(rows, contexts=[context])
        assert block["transport_gain"] == pytest.approx(np.maximum(*gain).mean(), rel=1e-4)
        assert block["double_stochasticity"] == pytest.approx(np.maximum(*error).mean(), rel=1e-3, abs=1e-5)
        assert block["stream_collapse"] == pytest.approx(cosine_of(rows), abs=1e-4)
        assert block["topology"] == type(stack.topology).__name__
    assert min(block["stream_collapse"] for block in found) < 0.95, "streams that have parted"


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, "full"])
def test_both_executions_say_the_same(remat: Any) -> None:
    def numbers(execution: str) -> list[Any]:
        keras.utils.set_random_seed(0)
        found = blocks_of(moved(stack_of(topologies.MHC(3), execution, remat=remat)))
        return [[b[k] for k in ("stream_collapse", "transport_gain", "double_stochasticity")] for b in found]

    np.testing.assert_allclose(numbers("scan"), numbers("unrolled"), rtol=1e-3, atol=1e-5)


def test_streams_begin_as_copies_and_mhc_keeps_their_sum() -> None:
    for block in blocks_of(stack_of("mhc")):
        assert block["stream_collapse"] == pytest.approx(1, abs=1e-5)
        assert block["transport_gain"] == pytest.approx(1, abs=1e-3)
        assert block["double_stochasticity"] < 1e-3


@pytest.mark.parametrize("topology", ["single", "x0_skip", "residual_dual"])
def test_other_stacks_have_no_such_numbers(topology: str) -> None:
    for block in blocks_of(stack_of(topology)):
        assert block["stream_collapse"] is block["transport_gain"] is block["double_stochasticity"] is None
        assert block["gradient_norm"] > 0


def test_one_stream_has_a_gain_and_nothing_to_be_like() -> None:
    for block in blocks_of(moved(stack_of(topologies.HyperConnections(1, fractions=2)))):
        assert block["stream_collapse"] is None
        assert block["transport_gain"] > 0


def test_the_links_are_as_they_were() -> None:
    stack = moved(stack_of(topologies.MHC(3)))
    before = [sorted(vars(link)) for cell in stack._blocks.cells for link in cell.links], sorted(vars(stack.topology))
    blocks_of(stack)
    assert before == (
        [sorted(vars(link)) for cell in stack._blocks.cells for link in cell.links],
        sorted(vars(stack.topology)),
    )
