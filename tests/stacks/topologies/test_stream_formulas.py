"""Topologies whose streams have the shape of the input: against the formulas of their papers, and known mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from keras import ops

from contract import assert_close
from keras_residual.stacks.topologies import manifold
from keras_residual.stacks.topologies.base import Coefficients
from keras_residual.stacks.topologies.hyper_connections import HyperConnectionsLink
from keras_residual.stacks.topologies.manifold import (
    ManifoldLink,
    SinkhornLink,
)
from topology_formulas import (
    DEPTH,
    FORMULAS,
    KERNELS,
    MADE,
    PER_BLOCK,
    SHAPE,
    X,
)
from topology_helpers import drive, links_of, move, unnormed


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
        "weigh",
        lambda right: lambda self, x: transposed(right(self, x)),
    ),
    "mhc_lite transposed": (
        "mhc_lite",
        ManifoldLink,
        "weigh",
        lambda right: lambda self, x: transposed(right(self, x)),
    ),
    "hyper-connections transposed": (
        "static_hyper_connections",
        HyperConnectionsLink,
        "weigh",
        lambda right: lambda self, x: transposed(right(self, x)),
    ),
    "no factor 2": (
        "mhc",
        ManifoldLink,
        "weigh",
        lambda right: lambda self, x: without_two(right(self, x)),
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
