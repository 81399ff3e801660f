"""The block that a stack repeats: checked, copied, and given what the stack's rules ask of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, cast

import keras

from keras_residual._errors import bad_argument, wrong_type
from keras_residual.residual import arguments
from keras_residual.residual.configured import arguments_of
from keras_residual.residual.residual import Residual
from keras_residual.residual.serialization import copied
from keras_residual.residual.shapes import channel_axis, sublayers
from keras_residual.stacks.topologies.base import Topology


class GivenBlocks:
    """A function of the index that was called for each block of a stack: what it returned is what is saved.

    Args:
        blocks: The layers of each block.
    """

    def __init__(self, blocks: Sequence[Sequence[keras.Layer]]) -> None:
        self.blocks = [list(block) for block in blocks]

    def __call__(self, index: int) -> list[keras.Layer]:
        """Returns the layers of a block."""
        return self.blocks[index]


def configurations(config: Any, class_name: str) -> Iterator[dict[str, Any]]:
    """Yields the configuration of each layer of a class within that of others."""
    if isinstance(config, dict):
        if config.get("class_name") == class_name:
            yield config["config"]
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for item in config:
            yield from configurations(item, class_name)


def is_adapted(layers: Sequence[keras.Layer]) -> bool:
    """Returns whether a layer in these is quantised, or has a low-rank adapter."""
    parts = [part for layer in layers for part in sublayers(layer)]
    return any(part.quantization_mode or getattr(part, "lora_rank", None) for part in parts)


def adapts(changes: Any) -> bool:
    """Returns whether a saved change quantises a layer, or gives it a low-rank adapter."""
    if isinstance(changes, dict):
        quantised = "Quantized" in str(changes.get("class_name", ""))
        return quantised or "lora_rank" in changes or any(adapts(item) for item in changes.values())
    return isinstance(changes, list) and any(adapts(item) for item in changes)


def as_pattern(owner: str, block: Any, depth: int) -> list[keras.Layer] | GivenBlocks:
    """Returns the layers of the block that is repeated, or those of each block."""
    if isinstance(block, GivenBlocks):
        return block
    if callable(block) and not isinstance(block, (keras.Layer, type)):
        try:
            inspect.signature(block).bind(0)
        except TypeError as error:
            rule = "a function of one argument, the block's index"
            raise wrong_type(owner, "block", rule, block, f"Called with an index: {error}.") from None
        except ValueError:
            pass  # of a function that Python knows no arguments of
        made = [as_block(owner, block(index)) for index in range(depth)]
        if len({len(layers) for layers in made}) > 1:
            rule = "a function that returns equally many layers at each index"
            raise bad_argument(owner, "block", rule, [len(layers) for layers in made])
        return GivenBlocks(made)
    return as_block(owner, block)


def as_block(owner: str, block: Any) -> list[keras.Layer]:
    """Returns the layers of a block; a `Sequential` of connections is the list of them."""
    if isinstance(block, keras.Sequential) and block.layers:
        inner = [layer for layer in block.layers if not isinstance(layer, keras.layers.InputLayer)]
        if all(isinstance(layer, Residual) for layer in inner):
            return cast(list[keras.Layer], inner)
    if isinstance(block, type) or not isinstance(block, (keras.Layer, list, tuple)):
        rule = "a Keras layer, a list of layers, or a function of the block's index that returns one"
        raise wrong_type(owner, "block", rule, block)
    return arguments.as_layers(owner, "block", block)


def copies(owner: str, layers: Sequence[Any]) -> list[Any]:
    """Returns new layers of the same configurations, without weights; lists of layers are allowed."""
    try:
        with classes_of(layers):
            return copied(list(layers), f"{owner}: `block`")
    except Exception as error:
        rule = "layers that can be copied from their configuration"
        way_out = (
            f"{type(error).__name__}: {error} Give the layer a `get_config` that returns the constructor's arguments, "
            "or pass `block=` a function of the index that makes the layer."
        )
        names = [layer.name for layer in keras.tree.flatten(layers)]
        raise bad_argument(owner, "block", rule, names, way_out) from error


def classes_of(layers: Sequence[Any]) -> Any:
    """Returns a scope in which Keras knows the classes of the layers, also those that nobody registered."""
    known = {type(part).__name__: type(part) for layer in keras.tree.flatten(layers) for part in sublayers(layer)}
    return keras.saving.CustomObjectScope(
        {name: cls for name, cls in known.items() if not cls.__module__.startswith("keras.")}
    )


def with_arguments(connection: Residual, **changed: Any) -> Residual:
    """Returns a connection of the same arguments but for these, which takes the layers of this one over."""
    arguments = {name: connection._argument(name) for name in arguments_of(Residual)}
    own = {"name": connection.name, "dtype": connection.dtype_policy, "trainable": connection.trainable}
    return Residual(**{**arguments, **own, **changed})


def check_connections(owner: str, layers: Sequence[keras.Layer], argument: str, value: Any) -> None:
    """Raises where a layer of the block is not a `Residual`, which `argument` needs."""
    for layer in layers:
        if not isinstance(layer, Residual):
            rule = f"blocks that are keras_residual.Residual, for {argument}={value!r}"
            way_out = "Wrap it: Residual(layer)." if argument == "topology" else "Set it in the block itself."
            raise bad_argument(owner, "block", rule, f"{layer.name!r} ({type(layer).__name__})", way_out)


def check_channels(owner: str, topology: Topology, layers: Sequence[keras.Layer], rank: int) -> None:
    """Raises where the blocks have their channels in another axis than the one in which the topology looks for them."""
    wanted = topology.channel_axis
    axis = channel_axis(layers, rank)
    if wanted is not None and wanted % rank != axis % rank:
        where = "channels_first" if axis == 1 else "channels_last"
        rule = f"one that takes the channels where the blocks have them, which are {where}"
        way_out = f"{type(topology).__name__} looks for them in axis {wanted}. Take data_format='channels_last'."
        raise bad_argument(owner, "topology", rule, topology.name, way_out)


def check_plain(owner: str, layers: Sequence[keras.Layer], topology: str) -> None:
    """Raises where a connection has a skip path of its own, which in a topology is the topology's."""
    check_connections(owner, layers, "topology", topology)
    for layer in cast(Sequence[Residual], layers):
        own = {
            "shortcut": layer.shortcut not in ("auto", "identity"),
            "merge": layer.merge != "add",
            "skip_scale": layer.skip_scale is not None,
            "activation": layer.activation is not None,
            "preactivation": layer.preactivation is not None,
            "norm_position": "post" in layer._norm_positions,
        }
        for argument, is_own in own.items():
            if is_own:
                rule = f"left at its default in a block of a stack with topology={topology!r}"
                way_out = "There the topology says what becomes of the stream; the branch may have norms and scales."
                raise bad_argument(f"Residual {layer.name!r}", argument, rule, getattr(layer, argument), way_out)
