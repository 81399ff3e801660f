"""What topologies of several streams compute, as their papers have it, in NumPy and float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_residual.stacks.topologies.base import Topology
from keras_residual.stacks.topologies.euler import Euler
from keras_residual.stacks.topologies.hyper_connections import HyperConnections
from keras_residual.stacks.topologies.manifold import (
    MHC,
    IdentityHyperConnections,
    MHCLite,
)
from keras_residual.stacks.topologies.residual_dual import ResidualDual
from keras_residual.stacks.topologies.x0_skip import X0Skip
from topology_helpers import matrices

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
    # Not 4 of a width of 2, where the norm makes a sign of whatever the two are and its gradient a spike.
    "frac_connections": lambda: HyperConnections(streams=1, fractions=2),
    "static_frac_connections": lambda: HyperConnections(streams=1, fractions=4, dynamic=False),
    "hyper_and_frac_connections": lambda: HyperConnections(streams=2, fractions=2),
    "mhc": MHC,
    "mhc_of_3": lambda: MHC(streams=3, iterations=5),
    "mhc_lite": lambda: MHCLite(streams=3),
    "identity_hyper_connections": lambda: IdentityHyperConnections(streams=3),
}
HYPER = [name for name in MADE if "hyper_connections" in name or "frac" in name or "mhc" in name]


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
