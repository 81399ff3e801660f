"""Topologies by themselves, without a stack around them: their links in a row, with branches that NumPy can follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from backend_helpers import gradients
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.base import Place, Topology

SHAPE = (2, 3, 4)
"""Of the input: batch, time, channels."""

X = np.random.default_rng(1).normal(size=SHAPE).astype("float32")


class Driven:
    """A topology and the links of `depth` blocks of `per_block` connections, built as a stack builds them."""

    def __init__(
        self,
        topology: Topology,
        depth: int,
        per_block: int = 1,
        connection: Callable[[int], keras.Layer] = lambda position: keras.layers.Identity(),
    ) -> None:
        self.topology, self.depth, self.per_block = topology, depth, per_block
        self.connections = [connection(order % per_block) for order in range(depth * per_block)]
        self.links = [
            topology.link(
                Place(
                    position=order % per_block,
                    per_block=per_block,
                    depth=depth,
                    index=order // per_block,
                    connection=layer,
                )
            )
            for order, layer in enumerate(self.connections)
        ]
        shape = (None, *SHAPE[1:])
        topology.build(shape)
        topology.check(depth, per_block, shape)
        for link in self.links:
            link.build(shape)

    @property
    def weights(self) -> list[Any]:
        """The weights of links and topology."""
        return [w for part in (*self.links, self.topology) for w in part.trainable_weights]

    def randomize(self, scale: float = 0.5) -> None:
        """Moves every weight off its initial value."""
        rng = np.random.default_rng(5)
        for part in (*self.links, self.topology):
            part.set_weights([w + scale * rng.normal(size=w.shape).astype(w.dtype) for w in part.get_weights()])

    def __call__(self, x: Any, branches: Sequence[Callable[[Any], Any]], training: bool = False) -> Any:
        """Returns what a stack with these branches would make of `x`."""
        rows = self.topology.begin(ops.convert_to_tensor(x))
        for order, (link, branch) in enumerate(zip(self.links, branches, strict=True)):
            rows = link.connect(rows, branch, DepthContext(index=order // self.per_block), training)
        return self.topology.end(rows)


def kernels(count: int) -> list[np.ndarray]:
    """Returns the kernels of `count` branches, `(channels, channels)`."""
    rng = np.random.default_rng(2)
    return [rng.normal(size=(SHAPE[-1], SHAPE[-1])).astype("float32") for _ in range(count)]


def branches(count: int) -> list[Callable[[Any], Any]]:
    """Returns the branches `tanh(x W)`."""
    return [lambda x, w=w: ops.tanh(ops.matmul(x, ops.convert_to_tensor(w, dtype=x.dtype))) for w in kernels(count)]


def in_numpy(count: int) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Returns the same for NumPy, in float64."""
    return [lambda x, w=w: np.tanh(x @ w.astype("float64")) for w in kernels(count)]


def plain(x: np.ndarray, count: int) -> np.ndarray:
    """Returns what a plain stack makes of `x`."""
    for branch in in_numpy(count):
        x = x + branch(x)
    return x


def rms_norm(x: np.ndarray, epsilon: float) -> np.ndarray:
    """Returns `x` over its root mean square."""
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + epsilon)


def softmax(x: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gradients_of(driven: Driven, count: int, training: bool = False) -> dict[str, np.ndarray]:
    """Returns the gradient of each weight by its path; raises where one does not arrive or is not finite."""
    functions = branches(count)
    (x_bar,), found = gradients(lambda x: driven(x, functions, training), [X], driven.weights)
    assert x_bar is not None
    assert np.isfinite(x_bar).all()
    by_path = {}
    for number, (weight, gradient) in enumerate(zip(driven.weights, found, strict=True)):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        by_path[f"{number} {weight.path}"] = gradient
    return by_path


def assert_no_zero_gradient(driven: Driven, count: int) -> None:
    """Raises where a weight would not learn."""
    found = gradients_of(driven, count)
    assert found
    still = [path for path, gradient in found.items() if not np.any(np.abs(gradient) > 1e-7)]
    assert not still, still


def assert_config_comes_back(topology: Topology) -> None:
    """Raises where a topology or one of its links is not what its configuration makes."""
    copy = type(topology).from_config(topology.get_config())
    assert copy.get_config() == topology.get_config()
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(topology)).get_config() == (
        topology.get_config()
    )


def assert_link_config_comes_back(link: keras.Layer) -> None:
    """Raises where a link is not what its configuration makes."""
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(link))
    assert copy.get_config() == link.get_config()
