"""The `block` argument of a stack: checked, copied, reworked by the stack's rules, and saved in its configuration."""

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
"""Returns the connection that a stack's rules want, from the given one and the number of connections in a block."""


class RepeatedBlock:
    """One block, of which each depth of the stack gets a copy.

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
        """The layers of each block that was given."""
        self._settings: list[Any] = []

    def instance(self, index: int | None) -> tuple[list[keras.Layer], list[Any] | None]:
        """Returns new layers for a block, and the `settings_of` each, which are the same objects for all blocks."""
        del index
        layers = _rework_each(copy_layers(self.owner, self.blocks[0]), self.rework, {})
        self._settings = self._settings or [settings_of(layer) for layer in layers]
        return layers, self._settings

    def used_layers(self) -> list[keras.Layer]:
        """Returns the given layers that the stack uses without copying them: none."""
        return []

    def argument(self) -> Any:
        """Returns what is saved as the stack's argument `block`."""
        return self.blocks[0]

    def select(self, argument: Any, kept: Sequence[int]) -> Any:
        """Returns the saved argument `block` for some of the blocks only."""
        del kept
        return argument


class GivenBlocks:
    """The blocks that a function of the index returned, which are saved in place of the function.

    Args:
        owner: The stack, for messages.
        blocks: The layers of each block.
        rework: What the stack changes in copies; None to use the given layers themselves.
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
        """Returns the given layers of a block and None, or reworked copies and the `settings_of` each."""
        place = cast(int, index)
        if self.rework is None:
            return self.blocks[place], None
        self._copies = self._copies or copy_layers(self.owner, self.blocks)
        layers = _rework_each(self._copies[place], self.rework, self._known)
        return layers, [settings_of(layer) for layer in layers]

    def used_layers(self) -> list[keras.Layer]:
        """Returns the given layers that the stack uses without copying them."""
        return [layer for block in self.blocks for layer in block] if self.rework is None else []

    def argument(self) -> Any:
        """Returns what is saved as the stack's argument `block`."""
        return {"blocks": self.blocks}

    def select(self, argument: Any, kept: Sequence[int]) -> Any:
        """Returns the saved argument `block` for some of the blocks only."""
        return {"blocks": [argument["blocks"][index] for index in kept]}


Pattern = RepeatedBlock | GivenBlocks


def _rework_each(
    layers: Sequence[keras.Layer], rework: Rework | None, known: dict[int, keras.Layer]
) -> list[keras.Layer]:
    """Returns the reworked layers; `known` holds the results so far, since one layer may occur several times."""
    for layer in layers:
        if id(layer) not in known:
            known[id(layer)] = layer if rework is None else rework(layer, len(layers))
    return [known[id(layer)] for layer in layers]


def rework_for(depth_rule: Any, rates: Sequence[float], depth: int) -> Rework | None:
    """Returns a function that applies a depth rule and drop path rates to a connection; None without either."""
    if depth_rule is None and not any(rates):
        return None

    def rework(layer: keras.Layer, per_block: int) -> keras.Layer:
        made = cast(Residual, layer)
        if depth_rule is not None:
            made = depth_rule.configure(made, depth=depth, per_block=per_block)
        return with_arguments(made, drop_path_rate=max(rates)) if any(rates) else made

    return rework


def as_pattern(owner: str, block: Any, depth: int, rework: Rework | None) -> Pattern:
    """Returns the block to repeat, or the blocks that a function of the index or a saved configuration gives."""
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
            pass  # Python does not know the arguments of some functions written in C
        made = [as_block(owner, block(index)) for index in range(depth)]
        if len({len(layers) for layers in made}) > 1:
            rule = "a function that returns equally many layers at each index"
            raise bad_argument(owner, "block", rule, [len(layers) for layers in made])
        return GivenBlocks(owner, made, rework)
    return RepeatedBlock(owner, as_block(owner, block), rework)


def as_block(owner: str, block: Any) -> list[keras.Layer]:
    """Returns the layers of a block; a `Sequential` of connections counts as a list of them."""
    if isinstance(block, keras.Sequential) and block.layers:
        inner = [layer for layer in block.layers if not isinstance(layer, keras.layers.InputLayer)]
        if all(isinstance(layer, Residual) for layer in inner):
            return cast(list[keras.Layer], inner)
    if isinstance(block, type) or not isinstance(block, (keras.Layer, list, tuple)):
        rule = "a Keras layer, a list of layers, or a function of the block's index that returns one"
        raise wrong_type(owner, "block", rule, block)
    return arguments.as_layers(owner, "block", block)


def copy_layers(owner: str, layers: Sequence[Any]) -> list[Any]:
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
    """Returns a scope in which Keras knows the classes of these layers, registered or not."""
    known = {type(part).__name__: type(part) for layer in keras.tree.flatten(layers) for part in sublayers(layer)}
    return keras.saving.CustomObjectScope(
        {name: cls for name, cls in known.items() if not cls.__module__.startswith("keras.")}
    )


def with_arguments(connection: Residual, **changed: Any) -> Residual:
    """Returns a connection with some arguments changed, which takes over the layers of the given one."""
    arguments = {name: connection._argument(name) for name in arguments_of(Residual)}
    own = {"name": connection.name, "dtype": connection.dtype_policy, "trainable": connection.trainable}
    return Residual(**{**arguments, **own, **changed})


def check_blocks(
    owner: str, pattern: Pattern, *, topology: Topology, depth_rule: Any, drop_path_rate: Any, drops: bool
) -> None:
    """Raises if a stack cannot be made of these blocks, or its arguments exclude each other.

    Args:
        owner: The stack, for messages.
        pattern: The blocks.
        topology: The stack's topology.
        depth_rule: Its depth rule, or None.
        drop_path_rate: The argument as it was given.
        drops: Whether any block has a rate above 0.
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
    """Raises if a layer of the block is not a `Residual`, which `argument` requires."""
    for layer in layers:
        if not isinstance(layer, Residual):
            rule = f"blocks that are keras_residual.Residual, for {argument}={value!r}"
            way_out = "Wrap it: Residual(layer)." if argument == "topology" else "Set it in the block itself."
            raise bad_argument(owner, "block", rule, f"{layer.name!r} ({type(layer).__name__})", way_out)


def check_channels(owner: str, topology: Topology, layers: Sequence[keras.Layer], rank: int) -> None:
    """Raises if the channel axis of the blocks is not the one that the topology expects."""
    wanted = topology.channel_axis
    axis = channel_axis(layers, rank)
    if wanted is not None and wanted % rank != axis % rank:
        where = "channels_first" if axis == 1 else "channels_last"
        rule = f"one that takes the channels where the blocks have them, which are {where}"
        way_out = f"{type(topology).__name__} looks for them in axis {wanted}. Take data_format='channels_last'."
        raise bad_argument(owner, "topology", rule, topology.name, way_out)


def check_plain(owner: str, layers: Sequence[keras.Layer], topology: str) -> None:
    """Raises if a connection defines its own skip path, which a topology takes over."""
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
                way_out = "The topology determines the skip path; only the branch may have norms and scales."
                raise bad_argument(f"Residual {layer.name!r}", argument, rule, getattr(layer, argument), way_out)


def as_indices(owner: str, kept: Any, depth: int) -> list[int]:
    """Returns the indices of blocks as a list of integers; raises for anything else."""
    rule = f"rising indices of blocks, from 0 to {depth - 1}"
    if isinstance(kept, (str, Mapping)) or not isinstance(kept, Iterable):
        raise wrong_type(owner, "kept", rule, kept)
    indices: list[Any] = list(kept)
    if any(isinstance(index, bool) or not isinstance(index, Integral) for index in indices):
        raise wrong_type(owner, "kept", rule, indices)
    if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < depth:
        raise bad_argument(owner, "kept", rule, indices)
    return [int(index) for index in indices]


# --- The configuration: changes to the layers of blocks, by the names of the blocks ----------------------------------


def settle_executions(config: Any, class_name: str, executions: Mapping[str, str]) -> None:
    """Replaces `execution="auto"` in the configurations of nested stacks by what they chose.

    The choice determines the shapes of their weights, and so of the weights of the blocks.

    Args:
        config: The configuration of the blocks; changed in place.
        class_name: The class name of stacks in it.
        executions: The execution of each nested stack, by its name.
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
        changed: The changes to parts of the stack that its saved configuration holds, or None.
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
    """Returns whether any of these layers, or a layer in them, is quantised or has a low-rank adapter."""
    parts = [part for layer in layers for part in sublayers(layer)]
    return any(part.quantization_mode or getattr(part, "lora_rank", None) for part in parts)


def _adapts(changes: Any) -> bool:
    """Returns whether a saved change quantises a layer or adds a low-rank adapter to it."""
    if isinstance(changes, dict):
        quantised = "Quantized" in str(changes.get("class_name", ""))
        return quantised or "lora_rank" in changes or any(_adapts(item) for item in changes.values())
    return isinstance(changes, list) and any(_adapts(item) for item in changes)


def block_name(index: int | None) -> str:
    """Returns the name of the block with this index, or of the one that stands for all."""
    return "block" if index is None else f"block_{index}"


def saved_change(changed: Callable[[str], Changes], name: str) -> Changes:
    """Returns the saved changes to a part: those to every block, and those to its own; `changed` looks up a name."""
    block, dot, part = name.partition(".")
    everywhere = f"block{dot}{part}" if block.startswith("block_") else name
    return {**changed(everywhere), **changed(name)}


def merge_changes(changed: dict[str, Any], depth: int) -> None:
    """Merges changes that are the same in every block into one entry; in place."""
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
    """Returns the changes to some of the blocks, under the names and places that these have without the others.

    Args:
        changed: The changes by part; a part of a given layer is named `"place/index"`.
        kept: Indices of the blocks, rising.
        per_block: Number of layers in a block.
        first_given: Place of the first layer of the first block among the layers given to the stack; None if blocks are
            not among them.
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
