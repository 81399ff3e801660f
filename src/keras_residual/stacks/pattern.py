"""The block that a stack is given: checked, copied, changed by the stack's rules, and written to its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, cast

import keras

from keras_residual._errors import bad_argument, wrong_type
from keras_residual.residual import arguments
from keras_residual.residual.configured import Changes, arguments_of, settings_of
from keras_residual.residual.residual import Residual
from keras_residual.residual.serialization import copied, deserialize, without_ids
from keras_residual.residual.shapes import channel_axis, stateful, sublayers
from keras_residual.stacks.topologies import Single, Topology

Rework = Callable[[keras.Layer, int], keras.Layer]
"""What a stack's rules make of a connection, from it and the number of connections in its block."""


class RepeatedBlock:
    """Layers of which each block of a stack gets copies.

    Args:
        owner: The stack, for messages.
        layers: The layers, without weights.
        rework: What the stack changes in copies, or None.
    """

    alike = True
    """Whether all blocks are copies of one."""
    hindrance = None
    """Why the blocks cannot be scanned, or None."""

    def __init__(self, owner: str, layers: Sequence[keras.Layer], rework: Rework | None) -> None:
        self.owner = owner
        self.rework = rework
        self.blocks = [list(layers)]
        """The layers of each block that there is by itself."""
        self._settings: list[Any] = []

    def instance(self, index: int | None) -> tuple[list[keras.Layer], list[Any] | None]:
        """Returns new layers for a block, and `settings_of` each, which are the same objects for all blocks."""
        del index
        layers = _reworked(copies(self.owner, self.blocks[0]), self.rework, {})
        self._settings = self._settings or [settings_of(layer) for layer in layers]
        return layers, self._settings

    def used_layers(self) -> list[keras.Layer]:
        """Returns those of the given layers that are in the stack themselves: none."""
        return []

    def argument(self) -> Any:
        """Returns what is saved as the stack's argument `block`."""
        return self.blocks[0]

    def select(self, argument: Any, kept: Sequence[int]) -> Any:
        """Returns the saved argument `block` for some of the blocks only."""
        del kept
        return argument


class GivenBlocks:
    """The layers that a function of the block's index has returned; they are saved in its place.

    Args:
        owner: The stack, for messages.
        blocks: The layers of each block.
        rework: What the stack changes in copies, or None, with which the layers are used as they are.
    """

    alike = False
    hindrance = "the blocks are made by a function of the index, so that they may differ"

    def __init__(self, owner: str, blocks: Sequence[Sequence[keras.Layer]], rework: Rework | None) -> None:
        self.owner = owner
        self.rework = rework
        self.blocks = [list(block) for block in blocks]
        self._copies: list[list[keras.Layer]] = []
        self._known: dict[int, keras.Layer] = {}

    def instance(self, index: int | None) -> tuple[list[keras.Layer], list[Any] | None]:
        """Returns the layers of a block and None, or else new layers and `settings_of` each."""
        place = cast(int, index)
        if self.rework is None:
            return self.blocks[place], None
        self._copies = self._copies or copies(self.owner, self.blocks)
        layers = _reworked(self._copies[place], self.rework, self._known)
        return layers, [settings_of(layer) for layer in layers]

    def used_layers(self) -> list[keras.Layer]:
        """Returns those of the given layers that are in the stack themselves, so that its configuration has them."""
        return [layer for block in self.blocks for layer in block] if self.rework is None else []

    def argument(self) -> Any:
        """Returns what is saved as the stack's argument `block`."""
        return {"blocks": self.blocks}

    def select(self, argument: Any, kept: Sequence[int]) -> Any:
        """Returns the saved argument `block` for some of the blocks only."""
        return {"blocks": [argument["blocks"][index] for index in kept]}


Pattern = RepeatedBlock | GivenBlocks


def _reworked(layers: Sequence[keras.Layer], rework: Rework | None, known: dict[int, keras.Layer]) -> list[keras.Layer]:
    """Returns what the stack's rules make of layers; `known` has what they have made of some, which may occur again."""
    for layer in layers:
        if id(layer) not in known:
            known[id(layer)] = layer if rework is None else rework(layer, len(layers))
    return [known[id(layer)] for layer in layers]


def rework_for(depth_rule: Any, rates: Sequence[float], depth: int) -> Rework | None:
    """Returns what a depth rule and rates of drop path make of a connection; None where there are neither."""
    if depth_rule is None and not any(rates):
        return None

    def rework(layer: keras.Layer, per_block: int) -> keras.Layer:
        made = cast(Residual, layer)
        if depth_rule is not None:
            made = depth_rule.configure(made, depth=depth, per_block=per_block)
        return with_arguments(made, drop_path_rate=max(rates)) if any(rates) else made

    return rework


def as_pattern(owner: str, block: Any, depth: int, rework: Rework | None) -> Pattern:
    """Returns the block that is repeated, or those that a function, or a saved configuration, gives."""
    if isinstance(block, dict) and isinstance(block.get("blocks"), list) and len(block["blocks"]) == depth:
        saved = deserialize(block["blocks"], f"{owner}: `block`")
        return GivenBlocks(owner, [as_block(owner, layers) for layers in saved], rework)
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
        return GivenBlocks(owner, made, rework)
    return RepeatedBlock(owner, as_block(owner, block), rework)


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


def check_blocks(
    owner: str, pattern: Pattern, *, topology: Topology, depth_rule: Any, drop_path_rate: Any, drops: bool
) -> None:
    """Raises where a stack cannot be made of these blocks, or its arguments exclude each other.

    Args:
        owner: The stack, for messages.
        pattern: The blocks.
        topology: The stack's topology.
        depth_rule: Its depth rule, or None.
        drop_path_rate: The argument as it was given.
        drops: Whether any block has a rate.
    """
    for layers in pattern.blocks:
        built = next((layer for layer in layers if layer.built and layer.weights), None)
        if built is not None and pattern.alike:
            rule = "layers without weights yet, since each depth gets a copy with weights of its own"
            raise bad_argument(owner, "block", rule, f"{built.name!r}, which is built", "Pass a new layer.")
        remembering = next((part for layer in layers for part in stateful(layer)), None)
        if remembering is not None:
            rule = "layers that keep nothing of a sample from one call to the next"
            way_out = "Put connections with it one after another in a keras.Sequential instead."
            raise bad_argument(owner, "block", rule, f"{remembering.name!r} with stateful=True", way_out)
        if depth_rule is not None:
            check_connections(owner, layers, "depth_rule", getattr(depth_rule, "name", depth_rule))
        if drops:
            check_connections(owner, layers, "drop_path_rate", drop_path_rate)
            own = next((layer for layer in layers if cast(Residual, layer).drop_path_rate), None)
            if own is not None:
                rule = "0 where the blocks have a rate of their own"
                raise bad_argument(owner, "drop_path_rate", rule, drop_path_rate, "Set it in one place.")
        if not isinstance(topology, Single):
            check_plain(owner, layers, type(topology).__name__)


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


def as_indices(owner: str, kept: Any, depth: int) -> list[int]:
    """Returns indices of blocks as numbers; raises for anything else."""
    rule = f"rising indices of blocks, from 0 to {depth - 1}"
    if isinstance(kept, (str, Mapping)) or not isinstance(kept, Iterable):
        raise wrong_type(owner, "kept", rule, kept)
    indices: list[Any] = list(kept)
    if any(isinstance(index, bool) or not isinstance(index, Integral) for index in indices):
        raise wrong_type(owner, "kept", rule, indices)
    if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < depth:
        raise bad_argument(owner, "kept", rule, indices)
    return [int(index) for index in indices]


# --- The configuration: what was changed in blocks, by their names ---------------------------------------------------


def settle_executions(config: Any, class_name: str, executions: Mapping[str, str]) -> None:
    """Writes how stacks within blocks are executed into their configurations, where that was left to them.

    Their weights depend on it, and with them those of the blocks.

    Args:
        config: The configuration of the blocks, which is changed.
        class_name: The name that stacks have in it.
        executions: The execution of each stack, by its name.
    """
    if isinstance(config, dict):
        if config.get("class_name") == class_name and config["config"]["name"] in executions:
            config["config"]["execution"] = executions[config["config"]["name"]]
        config = list(config.values())
    if isinstance(config, (list, tuple)) and executions:
        for item in config:
            settle_executions(item, class_name, executions)


def why_not_scanned(pattern: Pattern, topology: Topology, changed: Mapping[str, Any] | None) -> str | None:
    """Returns why blocks cannot be scanned, or None.

    Args:
        pattern: The blocks.
        topology: The stack's topology.
        changed: What was changed in parts of the stack when it was saved.
    """
    if pattern.hindrance:
        return pattern.hindrance
    if any(name.startswith("block_") for name in changed or ()):
        return "the blocks differ in what was changed in them or frozen"
    if _is_adapted(pattern.blocks[0]) or _adapts(changed):
        return "the blocks have quantised layers or adapters, each with numbers of its own"
    if not topology.fixed_shape:
        return f"the streams of {type(topology).__name__} grow with depth"
    return None


def _is_adapted(layers: Sequence[keras.Layer]) -> bool:
    """Returns whether a layer in these is quantised, or has a low-rank adapter."""
    parts = [part for layer in layers for part in sublayers(layer)]
    return any(part.quantization_mode or getattr(part, "lora_rank", None) for part in parts)


def _adapts(changes: Any) -> bool:
    """Returns whether a saved change quantises a layer, or gives it a low-rank adapter."""
    if isinstance(changes, dict):
        quantised = "Quantized" in str(changes.get("class_name", ""))
        return quantised or "lora_rank" in changes or any(_adapts(item) for item in changes.values())
    return isinstance(changes, list) and any(_adapts(item) for item in changes)


def block_name(index: int | None) -> str:
    """Returns the name of the block with this index, or of the one that stands for all."""
    return "block" if index is None else f"block_{index}"


def saved_change(changed: Callable[[str], Changes], name: str) -> Changes:
    """Returns what was changed in a part, in every block and in its own; `changed` returns what is saved for a name."""
    block, dot, part = name.partition(".")
    everywhere = f"block{dot}{part}" if block.startswith("block_") else name
    return {**changed(everywhere), **changed(name)}


def merge_changes(changed: dict[str, Any], depth: int) -> None:
    """Replaces what was changed in every block alike by one entry for all of them."""
    for first in [name for name in changed if name.partition(".")[0] == "block_0"]:
        part = first.removeprefix("block_0")
        names = [f"{block_name(index)}{part}" for index in range(depth)]
        each = [without_ids(changed.get(name)) for name in names]
        if all(found == each[0] for found in each):
            changed[f"{block_name(None)}{part}"] = changed[first]
            for name in names:
                del changed[name]


def select_changes(
    changed: Mapping[str, Any], kept: Sequence[int], per_block: int, first_given: int | None
) -> dict[str, Any]:
    """Returns what was changed in some blocks, by the names and places that they have without the others.

    Args:
        changed: What was changed, by part; in layers that were given, `"place/index"`.
        kept: Indices of the blocks, rising.
        per_block: Number of layers in a block.
        first_given: The place of the first layer of the first block among those that the stack was given; None where
            they are not among them.
    """
    places = [index * per_block + position for index in kept for position in range(per_block)]
    new = {} if first_given is None else {first_given + place: first_given + at for at, place in enumerate(places)}
    found = {}
    for name, changes in changed.items():
        block, dot, part = name.partition(".")
        place, slash, inner = name.partition("/")
        if block.startswith("block_"):
            index = int(block.removeprefix("block_"))
            if index in kept:
                found[f"{block_name(kept.index(index))}{dot}{part}"] = changes
        elif slash and first_given is not None and int(place) >= first_given:
            if int(place) in new:
                found[f"{new[int(place)]}/{inner}"] = changes
        else:
            found[name] = changes
    return found
