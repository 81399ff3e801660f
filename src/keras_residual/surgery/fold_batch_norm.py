"""Folding of batch normalisation into the layer before it, for inference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual.graph.calls import Graph
from keras_residual.graph.nodes import is_plain_graph
from keras_residual.residual.norms import BatchNormalization
from keras_residual.residual.residual import Residual
from keras_residual.residual.shapes import keep_lora_alpha, sublayers
from keras_residual.residual.shortcuts import AvgPoolShortcut, ProjectionShortcut
from keras_residual.residual.symmetric_conv import SymmetricConv2D
from keras_residual.stacks.pattern import GivenBlocks
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.topologies.single import Single
from keras_residual.surgery.copies import other_weights
from keras_residual.surgery.models import check_model, nested_models
from keras_residual.surgery.rewrite import leaving_out

OWNER = "fold_batch_norm"
_NORMS = (keras.layers.BatchNormalization, BatchNormalization)
_PLAIN = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, SymmetricConv2D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

Pairs = dict[int, tuple[Any, Any]]
"""By the id of each layer into which a norm is folded: the layer and the norm."""


def fold_batch_norm(model: Any, *, verbose: bool = True) -> Any:
    """Returns a copy of a model for inference, with its batch norms folded into the layers before them.

    Where a batch norm with moving statistics `m`, `v` directly follows a Dense or a convolution without an activation,

        gamma (W x + b - m) / sqrt(v + epsilon) + beta = W' x + b',   W' = s W,   b' = s (b - m) + beta,
        s = gamma / sqrt(v + epsilon)

    so that one layer does the work of two. If the layer has a low-rank adapter, `W` is the kernel with the adapter, and
    the copy has none. The outputs are the same up to rounding. Norms are folded in Sequential and Functional models,
    those inside them, and in the branch and the projection shortcut of `Residual`, also in a stack of equal blocks,
    scanned or not. Norms stay that produce an output of the model, that follow something else, as the first of a
    pre-activation block does, that are in layers of other kinds or in stacks with a depth rule or several streams, and
    that belong to a block whose own layers were changed, for example by an adapter in a stack.

    The original model is not modified. The copy is not compiled and not meant for training, in which a batch norm uses
    the statistics of the batch. Before `kr.export` no folding is needed: the runtimes do it.

    Args:
        model: A built Sequential or Functional model.
        verbose: Whether to print how many were folded.

    Returns:
        The new model.

    Raises:
        ValueError: If the model is not a graph of layers, or has layers that are quantised or cannot be copied.

    Example:
        >>> layers = [keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.BatchNormalization(), keras.layers.ReLU()]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> folded = kr.fold_batch_norm(model)
        1 of 1 batch norms folded.
        >>> x = np.ones((2, 8, 8, 3))
        >>> bool(np.allclose(model.predict(x, verbose=0), folded.predict(x, verbose=0), atol=1e-6))
        True

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2018. https://arxiv.org/abs/1712.05877, eq. 14
    """
    instead = "leave the norms where they are, since the runtimes that kr.export writes for fold by themselves"
    check_model(OWNER, model, first="Fold the norms first", instead=instead)
    pairs: Pairs = {}
    for _, inner in nested_models(model):
        _find(inner, pairs)
    copies: list[tuple[Any, Any]] = []
    renewed = _copied(model, pairs, copies)
    norms = {id(norm) for _, norm in pairs.values()}
    for original, copied in copies:
        _bring_over(original, copied, pairs, norms)
    if verbose:
        count = len({id(part) for part in sublayers(model) if isinstance(part, keras.layers.BatchNormalization)})
        print(f"{len(pairs)} of {count} batch norms folded.")
    return renewed


# --- Which norms ---------------------------------------------------------------------------------------------------


def _find(model: Any, pairs: Pairs) -> None:
    graph = Graph(model)
    for call in graph.calls:
        following = graph.following(call)
        if following is None or not (call.plain and following.plain) or graph.is_returned(following):
            _find_in_block(call.operation, pairs)
        elif graph.is_shared(call) or graph.is_shared(following):
            continue
        elif _fits(call.operation, following.operation):
            pairs[id(call.operation)] = (call.operation, following.operation)
        else:
            _find_in_block(call.operation, pairs)


def _find_in_block(block: Any, pairs: Pairs) -> None:
    # Changes to the parts of a block are recorded by position, and folding moves positions.
    if type(block) not in (Residual, ResidualStack) or "changed_parts" in block.get_config():
        return
    for connection in _connections(block):
        _find_in_connection(connection, pairs)


def _connections(block: Any) -> list[Any]:
    """Returns the connection itself, or all those of a stack of like blocks."""
    if type(block) is Residual:
        return [block]
    like = not isinstance(block.pattern, GivenBlocks) and isinstance(block.topology, Single)
    found = [connection for cell in block._blocks.cells for connection in cell.connections] if like else []
    # The configuration of a block does not hold what a depth rule changes in it.
    return found if block.depth_rule is None and all(type(one) is Residual for one in found) else []


def _find_in_connection(block: Any, pairs: Pairs) -> None:
    branch = list(block.branch)
    for layer, norm in itertools.pairwise(branch):
        if branch.count(layer) == branch.count(norm) == 1 and _fits(layer, norm):
            pairs[id(layer)] = (layer, norm)
    shortcut: Any = block.shortcut_layer
    projects = shortcut is block.shortcut and type(shortcut) in (ProjectionShortcut, AvgPoolShortcut)
    if (
        projects
        and "changed_parts" not in shortcut.get_config()
        and _fits(shortcut.projection, shortcut.projection_norm)
    ):
        pairs[id(shortcut.projection)] = (shortcut.projection, shortcut.projection_norm)


def _fits(layer: Any, norm: Any) -> bool:
    if type(layer) not in (*_PLAIN, *_DEPTHWISE) or type(norm) not in _NORMS:
        return False
    first = getattr(layer, "data_format", None) == "channels_first"
    rank = norm.input_spec.ndim  # which the norm has noted when it was built
    return norm.axis % rank == (1 if first else rank - 1) and layer.activation is keras.activations.linear


# --- The copy --------------------------------------------------------------------------------------------------------


def _copied(model: Any, pairs: Pairs, copies: list[tuple[Any, Any]]) -> Any:
    made: dict[int, Any] = {}
    norms = {id(norm) for _, norm in pairs.values()}

    def copy(operation: Any) -> Any:
        if id(operation) in norms:
            return None
        if id(operation) not in made:
            if is_plain_graph(operation):
                copied = _copied(operation, pairs, copies)
            else:
                copied = type(operation).from_config(_config(operation, pairs, norms))
                if isinstance(operation, keras.Layer):
                    copies.append((operation, copied))
            made[id(operation)] = copied
        return made[id(operation)]

    return leaving_out(model, copy)


def _config(operation: Any, pairs: Pairs, norms: set[int]) -> dict[str, Any]:
    config = operation.get_config()
    if id(operation) in pairs:
        return _with_bias(config)
    if type(operation) is Residual:
        _edit(config, operation, pairs, norms)
    elif type(operation) is ResidualStack and not isinstance(operation.pattern, GivenBlocks):
        for written, connection in zip(config["block"], operation._blocks.cells[0].connections, strict=True):
            if type(connection) is Residual:
                _edit(written["config"], connection, pairs, norms)
    return config


def _edit(config: dict[str, Any], connection: Any, pairs: Pairs, norms: set[int]) -> None:
    """Removes the norms from the configuration of a connection, and gives the layers before them a bias."""
    branch = []
    for layer, written in zip(connection.branch, config["branch"], strict=True):
        if id(layer) in pairs:
            written["config"] = _with_bias(written["config"])
            written.pop("build_config", None)
        if id(layer) not in norms:
            branch.append(written)
    config["branch"] = branch
    if id(getattr(connection.shortcut_layer, "projection", None)) in pairs:
        config["shortcut"]["config"] |= {"use_bias": True, "norm": None}
        config["shortcut"].pop("build_config", None)


def _with_bias(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a layer into which a norm, and its low-rank adapter, are folded."""
    return {**{key: value for key, value in config.items() if not key.startswith("lora_")}, "use_bias": True}


# --- The weights -----------------------------------------------------------------------------------------------------


def _bring_over(original: Any, copied: Any, pairs: Pairs, norms: set[int]) -> None:
    if id(original) in norms:
        return
    before = [part for part in sublayers(original) if id(part) not in norms]
    after = list(sublayers(copied))
    kept = [index for index, part in enumerate(before) if id(part) not in pairs]
    if len(before) != len(after) or any(_shapes(before[index]) != _shapes(after[index]) for index in kept):
        raise other_weights(OWNER, original, copied)
    for source, target in zip(before, after, strict=True):
        if id(source) in pairs:
            for variable, value in zip((target.kernel, target.bias), _folded(*pairs[id(source)]), strict=True):
                variable.assign(value)
            continue
        keep_lora_alpha(source, target)
        for ours, theirs in zip(_own(source), _own(target), strict=True):
            theirs.assign(ops.copy(ours.value))


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in _own(layer)]


def _own(layer: Any) -> Iterator[Any]:
    yield from layer._trainable_variables
    yield from layer._non_trainable_variables


def _folded(layer: Any, norm: Any) -> tuple[np.ndarray, np.ndarray]:
    def value(variable: Any, otherwise: float) -> np.ndarray:
        found = otherwise if variable is None else ops.convert_to_numpy(ops.cast(variable, "float32"))
        return np.asarray(found, np.float64)

    scale = value(norm.gamma, 1.0) / np.sqrt(value(norm.moving_variance, 1.0) + norm.epsilon)
    bias = value(layer.bias if layer.use_bias else None, 0.0)
    kernel = value(layer.kernel, 0.0)
    # In a scanned stack the first axis of all of them is that of the blocks.
    blocks, own = scale.shape[:-1], kernel.shape[-2:] if isinstance(layer, _DEPTHWISE) else scale.shape[-1:]
    ones = (1,) * (kernel.ndim - len(blocks) - len(own))
    folded = kernel * scale.reshape(*blocks, *ones, *own)
    return folded, (bias - value(norm.moving_mean, 0.0)) * scale + value(norm.beta, 0.0)
