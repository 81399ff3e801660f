"""Runs a topology connection by connection, without a stack: links known by their index, or one body for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.base import Link, Place, Topology

Branches = Sequence[Callable[[Any], Any]]


def place(position: int = 0, *, per_block: int = 1, depth: int = 1, index: int | None = 0) -> Place:
    """Returns a place in a stack, whose connection nobody looks at."""
    connection = keras.layers.Identity()
    return Place(position=position, per_block=per_block, depth=depth, index=index, connection=connection)


def links_of(topology: Topology, shape: Sequence[int], depth: int, per_block: int = 1) -> list[Link]:
    """Builds the topology for inputs of `shape`, with the batch, and returns a link for each connection, in order."""
    shape = (None, *shape[1:])
    if not topology.built:
        topology.build(shape)
    topology.check(depth, per_block, shape)
    links = []
    for index in range(depth):
        for position in range(per_block):
            link = topology.link(place(position, per_block=per_block, depth=depth, index=index))
            link.build(topology.stream_shape(shape))
            links.append(link)
    return links


def one_body(topology: Topology, shape: Sequence[int], depth: int, per_block: int = 1) -> list[Link]:
    """Returns the links of the one body of a scanned stack."""
    links = [topology.link(place(i, per_block=per_block, depth=depth, index=None)) for i in range(per_block)]
    for link in links:
        link.build(topology.stream_shape((None, *shape[1:])))
    return links


def move(layers: Sequence[keras.layers.Layer], size: float = 0.5, seed: int = 5) -> None:
    """Moves every weight off its initial value."""
    rng = np.random.default_rng(seed)
    for layer in layers:
        layer.set_weights([w + size * rng.normal(size=w.shape).astype("float32") for w in layer.get_weights()])


def drive(
    topology: Topology, links: Sequence[Link], branches: Branches, x: Any, *, body: Sequence[Link] | None = None
) -> tuple[Any, list[Any]]:
    """Returns the output and the rows after each connection.

    Args:
        topology: The topology, built.
        links: The link of each connection.
        branches: Its branch.
        x: The stack's input.
        body: Links of a scanned stack's body, which then do the work, with the weights of `links` one after another.
    """
    rows = topology.begin(ops.convert_to_tensor(x))
    seen = []
    for order, (link, branch) in enumerate(zip(links, branches, strict=True)):
        per_block = len(body) if body else 1
        if body:
            weights, link = link.get_weights(), body[order % per_block]
            link.set_weights(weights)
        rows = link.connect(rows, branch, DepthContext(index=order // per_block))
        seen.append(rows)
    return topology.end(rows), seen


def matrices(count: int, width: int, seed: int = 1) -> np.ndarray:
    """Returns the weights of so many branches."""
    return np.random.default_rng(seed).normal(size=(count, width, width)) / width**0.5


def prenorm(kernel: np.ndarray) -> Callable[[Any], Any]:
    """Returns a branch that does not depend on the scale of what it receives, an array of NumPy or a tensor."""

    def branch(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            centred = x - x.mean(-1, keepdims=True)
            return np.tanh(centred / np.sqrt((centred**2).mean(-1, keepdims=True)) @ kernel)
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        normed = centred / ops.sqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True))
        return ops.tanh(ops.matmul(normed, ops.cast(kernel.astype("float32"), x.dtype)))

    return branch


def unnormed(kernel: np.ndarray) -> Callable[[Any], Any]:
    """Returns a branch that does."""

    def branch(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return np.tanh(x @ kernel)
        return ops.tanh(ops.matmul(x, ops.cast(kernel.astype("float32"), x.dtype)))

    return branch
