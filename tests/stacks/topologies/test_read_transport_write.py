"""Every topology as `X' = T X + P ⊗ F(Q X)`: what a connection does is measured, and compared with the paper's Q, T, P.

Nothing here looks at what a link says its coefficients are. Rows that are linearly independent go in; what the branch
receives, and what comes out with a branch that adds nothing and with one that adds something, give Q, T and P.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from contract import to_numpy
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies import TOPOLOGIES
from keras_residual.stacks.topologies.attention_residuals import AttentionResiduals
from keras_residual.stacks.topologies.base import Link, Topology
from keras_residual.stacks.topologies.dense_former import DenseFormer
from keras_residual.stacks.topologies.euler import Euler
from keras_residual.stacks.topologies.fractal import Fractal
from keras_residual.stacks.topologies.hyper_connections import HyperConnections
from keras_residual.stacks.topologies.laurel import Laurel
from keras_residual.stacks.topologies.manifold import MHC, IdentityHyperConnections, MHCLite, permutations
from keras_residual.stacks.topologies.mudd import Mudd
from keras_residual.stacks.topologies.residual_dual import ResidualDual
from keras_residual.stacks.topologies.reversible import Momentum, Reversible
from keras_residual.stacks.topologies.unet import UNet
from keras_residual.stacks.topologies.x0_skip import X0Skip
from topology_helpers import links_of, move

TOKENS, WIDTH = 3, 16
ADDED = np.random.default_rng(11).normal(size=(TOKENS, WIDTH)).astype("float32")
Weights = dict[str, np.ndarray]
Triple = tuple[Any, Any, Any]


# --- Measuring -------------------------------------------------------------------------------------------------------


def solved(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the weights `(tokens, rows)` by which rows make `target`; raises where no weights do."""
    weights = np.stack([np.linalg.lstsq(rows[:, t].T, target[t], rcond=None)[0] for t in range(TOKENS)])
    np.testing.assert_allclose(np.einsum("tn,ntd->td", weights, rows), target, atol=2e-4)
    return weights


def measured(link: Link, rows: np.ndarray, index: int) -> Triple:
    """Returns Q, T and P of a connection at these rows, each with the tokens as its first axis."""
    received: list[np.ndarray] = []

    def after(added: np.ndarray) -> np.ndarray:
        def branch(x: Any) -> Any:
            received.append(to_numpy(x).astype("float64"))
            return ops.convert_to_tensor(added)

        given = tuple(ops.convert_to_tensor(row.astype("float32")) for row in rows)
        out = link.connect(given, branch, DepthContext(index=index))
        return np.stack([to_numpy(row).astype("float64") for row in out])

    carried = after(0 * ADDED)
    written = after(ADDED) - carried
    read = solved(rows, received[0])
    transport = np.stack([solved(rows, row) for row in carried], axis=1)
    write = np.concatenate([solved(ADDED[None].astype("float64"), row) for row in written], axis=1)
    return read, transport, write


def independent(count: int) -> np.ndarray:
    """Returns so many rows at random, exact in float32."""
    return np.random.default_rng(12).normal(size=(count, TOKENS, WIDTH)).astype("float32").astype("float64")


# --- What the papers say ---------------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def static_hyper(w: Weights, rows: np.ndarray) -> Triple:
    return w["alpha"][:, 0], w["alpha"][:, 1:].T, w["beta"]


def dynamic_hyper(w: Weights, rows: np.ndarray) -> Triple:
    H = np.moveaxis(rows, 0, 1)
    normed = (H - H.mean(-1, keepdims=True)) / np.sqrt(H.var(-1, keepdims=True) + 1e-6) * w["gain"]
    alpha = w["alpha"] + w["alpha_scale"] * np.tanh(normed @ w["alpha_kernel"])
    beta = w["beta"] + w["beta_scale"] * np.tanh(normed @ w["beta_kernel"])[..., 0]
    return alpha[..., 0], np.swapaxes(alpha[..., 1:], 1, 2), beta


def mhc(project: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[Weights, np.ndarray], Triple]:
    def expected(w: Weights, rows: np.ndarray) -> Triple:
        n, x = len(rows), np.concatenate(list(rows), axis=-1)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) @ w["kernel"]
        slices = [slice(0, n), slice(n, 2 * n), slice(2 * n, None)]
        pre, post, res = (a * x[:, s] + w["bias"][s] for a, s in zip([*w["scale"], 0.0], slices, strict=False))
        return sigmoid(pre), project(res, n), 2 * sigmoid(post)

    return expected


def sinkhorn(logits: np.ndarray, n: int) -> np.ndarray:
    matrix = np.exp(logits.reshape(-1, n, n))
    for _ in range(20):
        matrix = matrix / matrix.sum(1, keepdims=True)
        matrix = matrix / matrix.sum(2, keepdims=True)
    return matrix


def attention(w: Weights, rows: np.ndarray) -> Triple:
    normed = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-6)
    return softmax((normed * w["gain"] @ w["query"]).T), np.eye(3)[:, :2], [0, 0, 1]


def dense(alphas: np.ndarray) -> Triple:
    """From the rows `(Y_2, X_0, X_1, X_2)`: the new `Y_3` is an average in which `X_3 = Y_2 + F(Y_2)`."""
    history = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    averaged = [alphas[3], *alphas[:3]]
    return [1, 0, 0, 0], [averaged, *history], [alphas[3], 0, 0, 0, 1]


def momentum_in_velocity(w: Weights, rows: np.ndarray) -> Triple:
    """The table's matrix for `(x, v)`, in the link's own `(x, u)` with `v = g**l u` before and `g**(l+1) u` after."""
    g, order = 0.8, 2
    before, after = np.diag([1, g**order]), np.diag([1, g ** -(order + 1)])
    return [1, 0], after @ np.array([[1, g], [0, g]]) @ before, after @ np.array([1 - g, 1 - g])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table: a topology, and which of its connections is measured with how many rows."""

    make: Callable[[], Topology]
    rows: int
    expected: Callable[[Weights, np.ndarray], Triple]
    depth: int = 1
    order: int = 0
    still: tuple[str, ...] = ()
    """Weights that stay at 0, lest coefficients depend on what the branch adds."""


TABLE: dict[str, Row] = {
    "euler": Row(make=lambda: Euler(0.3), rows=1, expected=lambda w, x: ([1], [[1]], [0.3])),
    "x0_skip": Row(
        make=X0Skip,
        rows=2,
        expected=lambda w, x: ([w["l0"], w["l1"]], [[w["l0"], w["l1"]], [0, 1]], [1, 0]),
    ),
    "momentum": Row(
        make=lambda: Momentum(0.8, precision="single"), rows=2, depth=4, order=2, expected=momentum_in_velocity
    ),
    # Our rows swap at each half-step, so that every one reads the second; see the composite below.
    "reversible": Row(
        make=lambda: Reversible(precision="single"), rows=2, expected=lambda w, x: ([0, 1], [[0, 1], [1, 0]], [0, 1])
    ),
    # A linear stand-in for the norm shows which row it acts on.
    "residual_dual": Row(
        make=lambda: ResidualDual(keras.layers.Rescaling(3.0)),
        rows=2,
        expected=lambda w, x: ([1, 0], [[3, 0], [0, 1]], [3, 1]),
    ),
    "hyper_connections": Row(make=HyperConnections, rows=4, expected=dynamic_hyper),
    "hyper_connections, static": Row(make=lambda: HyperConnections(3, dynamic=False), rows=3, expected=static_hyper),
    "mhc": Row(make=MHC, rows=4, expected=mhc(sinkhorn)),
    "mhc_lite": Row(
        make=lambda: MHCLite(3),
        rows=3,
        expected=mhc(lambda logits, n: np.einsum("tk,kij->tij", softmax(logits), permutations(n))),
    ),
    "identity_hyper_connections": Row(
        make=IdentityHyperConnections, rows=4, expected=mhc(lambda logits, n: np.eye(n)[None])
    ),
    "dense_former": Row(make=DenseFormer, rows=4, depth=3, order=2, expected=lambda w, x: dense(w["alphas"])),
    "mudd": Row(
        make=Mudd, rows=4, depth=3, order=2, still=("mixing/kernel",), expected=lambda w, x: dense(w["mixing/bias"])
    ),
    "attention_residuals": Row(make=AttentionResiduals, rows=2, depth=2, order=1, expected=attention),
    "unet": Row(
        make=UNet,
        rows=3,
        depth=4,
        order=2,
        expected=lambda w, x: (
            [1, 0, w["skip_weight"]],
            [[1, 0, w["skip_weight"]], [0, 1, 0]],
            [1, 0],
        ),
    ),
    "unet, first half": Row(
        make=UNet,
        rows=2,
        depth=4,
        order=1,
        expected=lambda w, x: ([1, 0], [[1, 0], [0, 1], [1, 0]], [1, 0, 1]),
    ),
    "laurel": Row(
        make=lambda: Laurel(("rw", "pa"), previous=2),
        rows=3,
        expected=lambda w, x: (
            [1, 0, 0],
            [[w["skip_weight"], *w["gains"]], [1, 0, 0], [0, 1, 0]],
            [w["branch_weight"], 0, 0],
        ),
    ),
    # Time step 2 of three columns: the block of the second column, and the join of the first two.
    "fractal": Row(
        make=Fractal,
        rows=3,
        depth=7,
        order=2,
        expected=lambda w, x: ([0, 1, 0], [[0.5, 0, 0], [0.5, 0, 0], [0, 0, 1]], [0.5, 0.5, 0]),
    ),
}
ELSEWHERE = {
    "single": "has no links: a block is called as it is",
    "value_residual": "mixes within the branch; to the stream it is plain, see its own tests",
}


def link_and_rows(row: Row) -> tuple[Link, np.ndarray]:
    topology = row.make()
    link = links_of(topology, (TOKENS, WIDTH), row.depth)[row.order]
    move([link])
    for weight in link.weights:
        if weight.path.endswith(row.still or ("nothing",)):
            weight.assign(np.zeros(weight.shape, "float32"))
    return link, independent(row.rows)


def named(link: Link) -> Weights:
    """Returns the weights by name, those of a layer within the link also by its name."""
    found: Weights = {}
    for weight in link.weights:
        value = to_numpy(weight.value).astype("float64")
        found[weight.name] = found["/".join(weight.path.split("/")[-2:])] = value
    return found


def compare(row: Row) -> None:
    """Raises where a connection is not what the table says."""
    link, rows = link_and_rows(row)
    found, expected = measured(link, rows, row.order), row.expected(named(link), rows)
    for name, value, paper in zip("QTP", found, expected, strict=True):
        paper = np.asarray(paper, "float64")
        per_token = paper.ndim == value.ndim
        assert paper.shape[per_token:] == value.shape[1:], f"{name}: {paper.shape} and {value.shape}"
        np.testing.assert_allclose(value, np.broadcast_to(paper, value.shape), atol=5e-4, err_msg=name)


@pytest.mark.parametrize("name", TABLE)
def test_a_connection_reads_transports_and_writes_as_the_table_says(name: str) -> None:
    compare(TABLE[name])


@pytest.mark.any_backend
def test_the_table_has_every_topology() -> None:
    assert {name.split(",")[0] for name in TABLE} | set(ELSEWHERE) == set(TOPOLOGIES)


@pytest.mark.parametrize("name", TABLE)
def test_a_wrong_coefficient_is_noticed(name: str) -> None:
    """Each of Q, T and P by itself, so that no comparison above is empty."""
    row = TABLE[name]
    for part in range(3):

        def wrong(w: Weights, x: np.ndarray, part: int = part) -> Triple:
            triple = [np.asarray(value, "float64") for value in row.expected(w, x)]
            # The first stream's weight: a thousandth is what float32 leaves over, a hundredth no more.
            triple[part] = triple[part] + 0.01 * (np.indices(triple[part].shape).sum(0) == 0)
            return triple[0], triple[1], triple[2]

        with pytest.raises(AssertionError, match="QTP"[part]):
            compare(replace(row, expected=wrong))


def test_eulers_default_step_is_one_over_the_connections_and_not_the_blocks() -> None:
    for link in links_of(Euler(), (TOKENS, WIDTH), 3, per_block=2):
        _, transport, write = measured(link, independent(1), 0)
        np.testing.assert_allclose(transport, 1, atol=1e-5)
        np.testing.assert_allclose(write, 1 / 6, atol=1e-5)


def test_two_couplings_are_the_two_half_steps_of_a_revnet() -> None:
    """`y1 = x1 + F(x2)`, `y2 = x2 + G(y1)`: the table's Q of [0, 1] and then [1, 0], with T = I."""
    x1, x2 = independent(2).astype("float32")
    f, g = np.tanh, np.cos
    rows: Any = (ops.convert_to_tensor(x1), ops.convert_to_tensor(x2))
    branches: list[Any] = [ops.tanh, ops.cos]
    for link, branch in zip(links_of(Reversible(precision="single"), (TOKENS, WIDTH), 2), branches, strict=True):
        rows = link.connect(rows, branch, DepthContext(index=0))
    y1 = x1 + f(x2)
    np.testing.assert_allclose(to_numpy(rows[0]), y1, atol=1e-5)
    np.testing.assert_allclose(to_numpy(rows[1]), x2 + g(y1), atol=1e-5)


# --- The identity path: the product of all T -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MHC, MHCLite, IdentityHyperConnections])
def test_the_gain_of_the_identity_path_stays_1_however_deep(make: Callable[[], Topology]) -> None:
    """Rows and columns of the product of 24 measured T sum to 1, so that neither way is anything amplified."""
    links = links_of(make(), (TOKENS, WIDTH), 24)
    for number, link in enumerate(links):
        move([link], 0.3, seed=number)
    rows = independent(4)
    product = np.broadcast_to(np.eye(4), (TOKENS, 4, 4))
    for link in links:
        # At the same rows throughout: a product of doubly stochastic matrices may depend on anything.
        product = measured(link, rows, 0)[1] @ product
    assert np.abs(product.sum(2) - 1).max() < 1e-3
    assert np.abs(product.sum(1) - 1).max() < 1e-3
    assert product.min() > -1e-3


def test_the_gain_of_unconstrained_hyper_connections_does_not() -> None:
    """What mHC is against; and that the test above could fail."""
    product = np.broadcast_to(np.eye(4), (TOKENS, 4, 4))
    rows = independent(4)
    for number, link in enumerate(links_of(HyperConnections(4), (TOKENS, WIDTH), 24)):
        move([link], 0.3, seed=number)
        product = measured(link, rows, 0)[1] @ product
    assert np.abs(product).sum(2).max() > 5
