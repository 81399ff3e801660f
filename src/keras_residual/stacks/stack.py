"""Many residual blocks as one layer, whose compile time and memory need not grow with depth."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument, wrong_type
from keras_residual._keras import get_keras_mask
from keras_residual.compilation_cache import enable_compilation_cache_by_default
from keras_residual.residual import chain, direct
from keras_residual.residual.configured import Changes, Configured, Untracked, settings_of
from keras_residual.residual.residual import Residual
from keras_residual.residual.serialization import deserialize, reading, register, without_ids
from keras_residual.residual.shapes import Shape, stateful, sublayers
from keras_residual.stacks import depth_rules
from keras_residual.stacks.blocks import Blocks
from keras_residual.stacks.cell import Cell
from keras_residual.stacks.contexts import Contexts, ramp
from keras_residual.stacks.counts import BlockCount
from keras_residual.stacks.execution import StackProgram, leave_remat_scope
from keras_residual.stacks.initial_values import drawing_later
from keras_residual.stacks.observe import Observation
from keras_residual.stacks.optimizers import extend_optimizers
from keras_residual.stacks.pattern import (
    GivenBlocks,
    adapts,
    as_pattern,
    check_channels,
    check_connections,
    check_plain,
    classes_of,
    configurations,
    copies,
    is_adapted,
    with_arguments,
)
from keras_residual.stacks.state import (
    own_paths,
    own_seeds,
    refuse_by_block,
    set_places,
    spread_initial_values,
    spread_seeds,
    stack_variables,
)
from keras_residual.stacks.topologies.base import Place
from keras_residual.stacks.topologies.registry import make_topology
from keras_residual.stacks.topologies.reversible import ReversibleLink, ReversibleTopology
from keras_residual.stacks.topologies.single import Single

EXECUTIONS = ("auto", "unrolled", "scan")
MOST_BLOCKS = 1_000_000
"""The most blocks of a stack: far beyond any net, and a bound on what a file can ask for."""
REMATS = (False, True, "full", "sqrt")


@register
class ResidualStack(Configured):
    """Applies `depth` copies of a block one after another; with `execution="scan"` they are compiled once.

    Args:
        block: A layer that keeps the shape of its input, or a list of such layers applied in order, of which each depth
            gets a copy with weights of its own; as a rule a `Residual`, or the two of a transformer. Or a function of
            the block's index, from 0, that returns one: then blocks may differ, and the stack cannot be scanned.
        depth: Number of blocks, from 1 to a million.
        depth_rule: What keeps a deep stack trainable: a name, such as `"inverse_sqrt_depth"`, `"fixup"` or
            `"deepnorm"`, or a rule of `keras_residual.depth_rules`. Its blocks must be `Residual`s.
        drop_path_rate: Stochastic depth, in `[0, 1)`: the rate of the last block, to which it rises linearly from 0 at
            the first; or a pair, first and last; or one rate a block.
        topology: How the blocks are connected: `"single"`, one after another, or a name or a topology of
            `keras_residual.topologies`, such as `"reversible"`, `"hyper_connections"` or `"mhc"`.
        execution: `"unrolled"` has separate sub-layers, `"scan"` one body, compiled once, over weights that are stacked
            along a leading axis. `"auto"` scans where that pays; the attribute `execution` then says what it chose and
            `execution_reason` why. It changes costs and never numbers: what would treat the stacked weights as one,
            such as an optimizer that is not element by element, quantisation or adapters, a scanned stack refuses.
        remat: Which activations are recomputed in the backward pass rather than kept: `False` none (in a scan on
            JAX what goes element by element, such as norms and activation functions, where less is kept so), `"full"`
            (`True`) all but each block's input, `"sqrt"` all but some `2 * sqrt(depth)` of these (on JAX a depth
            without a divisor near its root, such as a prime, takes a copy of the weights and their gradients on top).
            A reversible topology keeps none by itself; with `remat` its blocks are computed from kept inputs instead of
            being undone, which takes the memory and has no drift.
        name: Name of the layer.
        **kwargs: What every Keras layer takes, such as `dtype` and `trainable`. The layers of the block keep their own
            dtype policies.

    Call arguments:
        inputs: Tensor of shape `(batch, …, channels)`.
        training: Whether drop path, dropout and norms act as in training.
        mask: Mask of a sequence, `(batch, time)`; every block gets it.
        block_mask: Tensor `(depth,)` or `(batch, depth)`: a block where it is 0 is switched off.
        **arguments: What the calls of the blocks' layers take by name, as in `Residual`; every block gets the same.
            A reversible stack takes tensors that may have a gradient only with `remat="full"`.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: When made, for an unknown name, a wrong depth, or choices that exclude each other; when built, for
            a block that changes the shape or has its channels where the topology does not look for them; when trained,
            for an optimizer that a scanned stack refuses.
        TypeError: For an argument of the wrong type.

    Example:
        >>> stack = ResidualStack(Residual(keras.layers.Dense(64, activation="relu"), norm="layer_norm"), depth=100)
        >>> stack(np.zeros((1, 64))).shape
        (1, 64)

    Reference:
        Bradbury et al., JAX, 2018, `jax.lax.scan`; Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
        https://arxiv.org/abs/1604.06174
    """

    def __init__(
        self,
        block: keras.Layer | Sequence[keras.Layer] | Callable[[int], Any],
        depth: int,
        *,
        depth_rule: Any = None,
        drop_path_rate: float | Sequence[float] = 0.0,
        topology: Any = "single",
        execution: str = "auto",
        remat: bool | str = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        owner = owner_of(self)
        if execution not in EXECUTIONS:
            raise bad_argument(owner, "execution", f"one of {', '.join(EXECUTIONS)}", execution)
        if remat not in REMATS:
            raise bad_argument(owner, "remat", "False, 'full' or 'sqrt'", remat)
        self.depth = depth = whole_number(owner, "depth", depth, most=MOST_BLOCKS)
        self._pattern = Untracked(as_pattern(owner, block, depth))
        self._rates = ramp(owner, drop_path_rate, depth)
        self.drop_path_rate = list(drop_path_rate) if isinstance(drop_path_rate, Sequence) else drop_path_rate
        self.depth_rule = None if depth_rule is None else depth_rules.get_rule(depth_rule)
        self.topology = make_topology(topology)
        self.remat = "full" if remat is True else remat
        self._remat_by_scope = leave_remat_scope(self, [layer for layers in self._patterns() for layer in layers])
        self._requested_execution = execution
        self.execution, self.execution_reason = self._choose_execution()
        self.observation: Observation | None = None
        self.supports_masking = True
        self._check_blocks()
        chain.declare_arguments(self, [layer for layers in self._patterns() for layer in layers])
        # Held where Keras does not look: the one body of a scanned stack has no weights of its own, and the cells of
        # an unrolled one are saved by this layer, in one form for both.
        self._blocks = Blocks(owner, self._make_cells(), depth, scanned=self.execution == "scan")

    # --- What is chosen ----------------------------------------------------------------------------------------------

    def _choose_execution(self) -> tuple[str, str]:
        """Returns the execution and the reason for it; raises where the one asked for cannot be."""
        asked, backend, scan_from = self._requested_execution, _backend.BACKEND, _backend.SCAN_FROM
        hindrance = None
        if isinstance(self.pattern, GivenBlocks):
            hindrance = "the blocks are made by a function of the index, so that they may differ"
        elif any(name.startswith("block_") for name in self._saved_parts.value or ()):
            hindrance = "the blocks differ in what was changed in them or frozen"
        elif is_adapted(self.pattern) or adapts(self._saved_parts.value):
            hindrance = "the blocks have quantised layers or adapters, each with numbers of its own"
        elif not self.topology.fixed_shape:
            hindrance = f"the streams of {type(self.topology).__name__} grow with depth"
        if asked == "scan" and hindrance:
            rule = f"'unrolled' or 'auto' here, since {hindrance}"
            raise bad_argument(owner_of(self), "execution", rule, asked)
        if asked != "auto":
            return asked, "asked for"
        if hindrance:
            return "unrolled", hindrance
        if scan_from is None:
            return "unrolled", f"{backend} runs blocks one by one either way, and separate layers are quicker"
        if self.depth < scan_from:
            return "unrolled", f"fewer than {scan_from} blocks, which compile one by one as quickly"
        return "scan", f"{self.depth} blocks compile as one on {backend}"

    def _check_blocks(self) -> None:
        owner = owner_of(self)
        for layers in self._patterns():
            built = next((layer for layer in layers if layer.built and layer.weights), None)
            if built is not None and not isinstance(self.pattern, GivenBlocks):
                rule = "layers without weights yet, since each depth gets a copy with weights of its own"
                raise bad_argument(owner, "block", rule, f"{built.name!r}, which is built", "Pass a new layer.")
            remembering = next((part for layer in layers for part in stateful(layer)), None)
            if remembering is not None:
                rule = "layers that keep nothing of a sample from one call to the next"
                way_out = "Put connections with it one after another in a keras.Sequential instead."
                raise bad_argument(owner, "block", rule, f"{remembering.name!r} with stateful=True", way_out)
            if self.depth_rule is not None:
                check_connections(owner, layers, "depth_rule", getattr(self.depth_rule, "name", self.depth_rule))
            if any(self._rates):
                check_connections(owner, layers, "drop_path_rate", self.drop_path_rate)
                own = next((layer for layer in layers if cast(Residual, layer).drop_path_rate), None)
                if own is not None:
                    rule = "0 where the blocks have a rate of their own"
                    raise bad_argument(owner, "drop_path_rate", rule, self.drop_path_rate, "Set it in one place.")
            if not isinstance(self.topology, Single):
                check_plain(owner, layers, type(self.topology).__name__)

    @property
    def pattern(self) -> Any:
        """The layers of the block that is repeated, or `GivenBlocks`."""
        return self._pattern.value

    def _patterns(self) -> list[list[keras.Layer]]:
        return self.pattern.blocks if isinstance(self.pattern, GivenBlocks) else [self.pattern]

    @property
    def per_block(self) -> int:
        """Number of layers in a block, each of them a connection as a rule."""
        return len(self._patterns()[0])

    # --- The blocks --------------------------------------------------------------------------------------------------

    def _make_cells(self) -> list[Cell]:
        """Returns the blocks, or the one that stands for all."""
        owner, pattern, scanned = owner_of(self), self.pattern, self.execution == "scan"
        given = pattern.blocks if isinstance(pattern, GivenBlocks) else None
        if given is not None and self._reworks:
            given = copies(owner, given)
        known: dict[int, keras.Layer] = {}
        settings: list[Any] = []
        cells: list[Cell] = []
        for index in self._drawing_once([None] if scanned else range(self.depth)):
            if given is None:
                layers = self._reworked(copies(owner, cast(Sequence[Any], pattern)), {})
            else:
                layers = self._reworked(given[index or 0], known)
            if given is None or self._reworks:  # others are in the configuration as they are
                settings = settings if settings and given is None else [settings_of(layer) for layer in layers]
                layers = self._made_layers(index, layers, settings)
            cells.append(self._make_cell(layers, index))
        for cell in cells:
            self._tracker.add_to_store("layers", cell)
        return cells

    def _drawing_once(self, items: Iterable[Any]) -> Iterator[Any]:
        """Iterates, after which the source of Keras's default seeds is as it was after the first item.

        All blocks draw by the seeds of the first, so that what is made behind the stack gets the same ones however it
        is executed.
        """
        after_first = None
        for item in items:
            yield item
            after_first = after_first or random.getstate()
        if after_first and not isinstance(self.pattern, GivenBlocks):
            random.setstate(after_first)

    @property
    def _reworks(self) -> bool:
        return self.depth_rule is not None or any(self._rates)

    def _reworked(self, layers: Sequence[keras.Layer], known: dict[int, keras.Layer]) -> list[keras.Layer]:
        """Returns the layers of a block as the depth rule and the rates want them; `known` are those of others."""
        for layer in layers:
            if id(layer) in known:
                continue
            made = layer
            if self.depth_rule is not None:
                made = self.depth_rule.configure(cast(Residual, made), depth=self.depth, per_block=len(layers))
            if any(self._rates):
                made = with_arguments(cast(Residual, made), drop_path_rate=max(self._rates))
            known[id(layer)] = made
        return [known[id(layer)] for layer in layers]

    def _made_layers(
        self, index: int | None, layers: Sequence[keras.Layer], settings: Sequence[Any]
    ) -> list[keras.Layer]:
        """Returns the layers of a block as they were when the stack was saved."""
        # In a scope of its own: what its layers share, those of other blocks do not.
        with reading(anew=True):
            made = {
                id(layer): self._made(f"{_name(index)}.{position}", layer, settings[position])
                for position, layer in enumerate(layers)
            }
        return [made[id(layer)] for layer in layers]

    def _make_cell(self, layers: Sequence[keras.Layer], index: int | None) -> Cell:
        """Returns the block of these layers; with the index None the one that stands for all."""
        name = _name(index)
        links = []
        if not isinstance(self.topology, Single):
            places = [
                Place(position=i, per_block=len(layers), depth=self.depth, index=index, connection=layer)
                for i, layer in enumerate(layers)
            ]
            links = [self._made(f"{name}.{place.link_name}", self.topology.link(place)) for place in places]
        flag = self._saved_part(name).get("trainable", self.trainable)
        cell = Cell(layers, links, name=name, dtype=self.dtype_policy, trainable=flag)
        return self._made(name, cell, {**settings_of(cell), "trainable": True})

    def build(self, inputs_shape: Shape, block_mask_shape: Shape | None = None, **argument_shapes: Any) -> None:  # pyright: ignore
        """Builds the blocks for the shape of the input, and for those of arguments of calls."""
        del block_mask_shape
        enable_compilation_cache_by_default()
        extend_optimizers()
        shape = (None, *inputs_shape[1:])
        # The blocks check the channels; a sequence may be longer or shorter than the one it was built for.
        self.input_spec = keras.InputSpec(ndim=len(shape))
        self._built_for = shape
        self._argument_shapes = argument_shapes
        if not self.topology.built:
            self.topology.build(shape)
        self.topology.check(self.depth, self.per_block, shape)
        check_channels(owner_of(self), self.topology, self._blocks.cells[0].connections, len(shape))
        stream = self.topology.stream_shape(shape)
        blocks = self._blocks
        rule = self.depth_rule
        plan = None if rule is None else rule.plan(depth=self.depth, per_block=self.per_block)
        self._contexts = Contexts(self._rates, plan, self.per_block)
        with drawing_later():
            for cell in self._drawing_once(blocks.cells):
                cell.build(stream, argument_shapes)
                own_seeds(cell)
                own_paths(cell)
            gains = [_gains(plan, cell) for cell in blocks.cells]
            if blocks.scanned:
                stack_variables(owner_of(self), blocks.cells[0], self.depth, gains[0])
            else:
                spread_initial_values(blocks.cells, gains)
                if not isinstance(self.pattern, GivenBlocks):
                    spread_seeds(blocks.cells)
        for cell in blocks.cells:
            # Only now, since while the blocks were built they had no values.
            for part in sublayers(cell):
                if isinstance(part, Configured):
                    part._restore_inner_layers()
        for part in sublayers(self):
            if self._remat_by_scope.above is not None:
                part._remat_mode = None
            if hasattr(part, "_torch_params"):  # PyTorch's list of what the layer had before; made again when asked for
                del part._torch_params
        if blocks.uniform():
            set_places(blocks.cells)
        if blocks.scanned:
            refuse_by_block(owner_of(self), blocks.cells[0])

    @property
    def runs_in_programs(self) -> bool:
        """Whether a loop or a recomputation calls the blocks' layers: tensors of their calls do not outlive it."""
        return self.execution == "scan" or bool(self.remat) or self._remat_by_scope.above is not None

    # --- Calling -----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the layer to a tensor; arguments of calls by name."""
        chain.check_arguments(self, kwargs)
        return super().__call__(*args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, block_mask: Any = None, **arguments: Any
    ) -> Any:
        """Applies the blocks."""
        observation = self.observation
        if observation is not None and observation.block_mask is not None:
            block_mask = observation.block_mask
        if mask is None and (block_mask is not None or arguments):
            mask = get_keras_mask(inputs)  # with two tensors, Keras does not look for it itself
        rows = self.topology.begin(inputs)
        blocks = self._blocks
        reversible = isinstance(self.topology, ReversibleTopology)
        watched = observation is not None or block_mask is not None
        remat = self.remat or (not reversible and self._remat_by_scope(inputs))
        if not (blocks.scanned or remat or reversible or watched):
            for index, cell in enumerate(blocks.cells):
                plain = len(rows) == 1 and direct.is_plain(cell, rows[0], training)
                rows = (cell.call if plain else cell)(
                    rows,
                    contexts=self._contexts.of_block(index, None),
                    training=training,
                    sequence_mask=mask,
                    held=Untracked(arguments),
                )
            return self.topology.end(rows)

        program = StackProgram(
            blocks.cells, blocks.scanned, self._contexts.of_block, training, mask, observation, arguments
        )
        xs = blocks.trained(), self._others(block_mask, None if observation is None else observation.probe)
        if reversible and not (watched or remat):
            self._check_held(arguments)
            rows, (losses, updates, seen) = program.run_reversibly(rows, xs)
        else:
            link = blocks.cells[0].links[0] if reversible else None
            rows = link.enter(rows, undone=not remat) if isinstance(link, ReversibleLink) else rows
            rows, (losses, updates, seen) = program.run(rows, xs, remat)
            rows = link.leave(rows) if isinstance(link, ReversibleLink) else rows
        blocks.assign(updates)
        if program.has_losses:
            self.add_loss(ops.sum(losses) if blocks.scanned else sum(losses))
        if observation is not None:
            observation.seen = _joined(seen, blocks.scanned)
        return ops.cast(self.topology.end(rows), self.compute_dtype)

    def _check_held(self, arguments: dict[str, Any]) -> None:
        """Raises for tensors whose gradient blocks that are undone would not give."""
        for name, value in arguments.items():
            tensors = [tensor for tensor in keras.tree.flatten(value) if ops.is_tensor(tensor)]
            if any(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)) for tensor in tensors):
                rule = "without floats in a reversible stack, which gives no gradient of what its blocks take beside it"
                raise bad_argument(owner_of(self), name, rule, value, "Make the stack with remat='full'.")

    def _others(self, block_mask: Any, probe: Any) -> Any:
        """Returns what differs from block to block beside the trained weights."""
        common: dict[str, Any] = {}
        if block_mask is not None:
            active: Any = ops.convert_to_tensor(block_mask)
            if len(active.shape) not in (1, 2) or active.shape[-1] != self.depth:
                rule = f"of shape ({self.depth},) or (batch, {self.depth})"
                raise bad_argument(owner_of(self), "block_mask", rule, tuple(active.shape))
            common["active"] = ops.transpose(active) if len(active.shape) == 2 else active
        if probe is not None:
            common["probe"] = tuple(probe) if isinstance(probe, (list, tuple)) else (probe,)
        state = self._blocks.state()
        if self._blocks.scanned:
            # An array rather than `ops.arange`, which exporters of single operations have no rule for.
            index, context = ops.convert_to_tensor(np.arange(self.depth, dtype="int32")), self._contexts.tensors()
            return {"state": state, "index": index, "context": context, **common}
        return [
            {"state": values, **cast(Any, keras.tree.map_structure(lambda x, i=index: x[i], common))}
            for index, values in enumerate(state)
        ]

    def compute_output_shape(
        self, inputs_shape: Shape, block_mask_shape: Shape | None = None, **argument_shapes: Any
    ) -> Shape:
        """Returns the shape of the input."""
        del block_mask_shape, argument_shapes
        return tuple(inputs_shape)

    # --- As Keras sees it --------------------------------------------------------------------------------------------

    def count_params(self) -> int:
        """Returns the number of weights; in a model's `summary()` it says how they come about."""
        return BlockCount(super().count_params(), self.depth, self.execution, self.topology.count_params())

    def get_stacked_weights(self) -> dict[str, np.ndarray]:
        """Returns the weights by their paths within a block, each with the blocks as its leading axis.

        Whatever the execution, the names and the arrays are the same.

        Raises:
            ValueError: If the stack is not built, or its blocks have different weights.
        """
        self._check_built()
        return self._blocks.get()

    def set_stacked_weights(self, weights: Mapping[str, Any]) -> None:
        """Sets weights as `get_stacked_weights` names them; those that are not named keep their values.

        Raises:
            ValueError: For a name that does not exist or a wrong shape; then no weight has changed.
        """
        self._check_built()
        self._blocks.set(weights)

    def block_weights(self) -> list[dict[str, tuple[keras.Variable, int | None]]]:
        """Returns for each block its weights by their paths within it: the variable, and the index of the slice.

        The index is None where the block has a variable of its own. Weights by name for programs that read or write
        single blocks, whatever the execution; `get_stacked_weights` is for all blocks at once.

        Raises:
            ValueError: If the stack is not built.
        """
        self._check_built()
        return self._blocks.by_block()

    def with_execution(self, execution: str, *, remat: bool | str | None = None) -> ResidualStack:
        """Returns a stack of the same blocks, weights and random state that is executed in another way.

        Args:
            execution: `"auto"`, `"unrolled"` or `"scan"`.
            remat: As in the constructor; None for the same as here.

        Raises:
            ValueError: If the stack cannot be executed so.
        """
        config = {**self.get_config(), "execution": execution}
        if remat is not None:
            config["remat"] = remat
        return self._remade(config)

    def with_blocks(self, kept: Sequence[int]) -> ResidualStack:
        """Returns a stack of some of the blocks, with their weights, random state and rates of drop path.

        Args:
            kept: Indices of the blocks that stay, rising, at least one. The stack answers as this one does with a
                `block_mask` that is 1 at these.

        Raises:
            ValueError: For other indices, and for a stack whose blocks depend on how many there are: with a depth rule
                that scales by depth, or a topology other than `"single"`.
        """
        kept = self._indices(kept)
        hindrance = self.why_not_fewer()
        if hindrance:
            raise ValueError(f"{owner_of(self)} cannot do with fewer blocks: {hindrance}.")
        config = {**self.get_config(), "depth": len(kept)}
        if any(self._rates):
            config["drop_path_rate"] = [self._rates[index] for index in kept]
        if isinstance(self.pattern, GivenBlocks):
            config["block"] = {"blocks": [config["block"]["blocks"][index] for index in kept]}
        if "changed_parts" in config:
            config["changed_parts"] = self._changes_of_blocks(config["changed_parts"], kept)
        return self._remade(config, kept)

    def _indices(self, kept: Any) -> list[int]:
        """Returns indices of blocks as numbers; raises for anything else."""
        rule = f"rising indices of blocks, from 0 to {self.depth - 1}"
        if isinstance(kept, (str, Mapping)) or not isinstance(kept, Iterable):
            raise wrong_type(owner_of(self), "kept", rule, kept)
        indices: list[Any] = list(kept)
        if any(isinstance(index, bool) or not isinstance(index, Integral) for index in indices):
            raise wrong_type(owner_of(self), "kept", rule, indices)
        if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < self.depth:
            raise bad_argument(owner_of(self), "kept", rule, indices)
        return [int(index) for index in indices]

    def why_not_fewer(self) -> str | None:
        """Returns why no block can be taken out of the stack; None where it can do with fewer."""
        if not isinstance(self.topology, Single):
            return f"what its topology, {self.topology.name!r}, does to the stream depends on all of them"
        plan = None if self.depth_rule is None else self.depth_rule.plan(depth=self.depth, per_block=self.per_block)
        if Contexts([0.0] * self.depth, plan, self.per_block).values:
            name = getattr(self.depth_rule, "name", None) or type(self.depth_rule).__name__
            return f"the scales of its depth rule, {name!r}, depend on how many there are"
        return None

    def _changes_of_blocks(self, changed: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
        """Returns what was changed in these blocks, by the places that they have without the others."""
        first, found = len(super()._given_layers()), {}
        places = [index * self.per_block + position for index in kept for position in range(self.per_block)]
        new = {first + place: first + at for at, place in enumerate(places)} if self._given_layers()[first:] else {}
        for name, changes in changed.items():
            block, dot, part = name.partition(".")
            place, slash, inner = name.partition("/")
            if block.startswith("block_"):
                index = int(block.removeprefix("block_"))
                if index in kept:
                    found[f"{_name(kept.index(index))}{dot}{part}"] = changes
            elif slash and int(place) >= first and new:
                if int(place) in new:
                    found[f"{new[int(place)]}/{inner}"] = changes
            else:
                found[name] = changes
        return found

    def _remade(self, config: dict[str, Any], kept: Sequence[int] | None = None) -> ResidualStack:
        """Returns a stack of this configuration, with the weights of this one."""
        with classes_of([layer for layers in self._patterns() for layer in layers]):
            made = type(self).from_config(config)
        if self.built:
            made.build(self._built_for, **self._argument_shapes)
            made.topology.set_weights(self.topology.get_weights())
            made._blocks.copy_from(self._blocks, kept)
        return made

    def _check_built(self) -> None:
        if not self.built:
            raise ValueError(f"{owner_of(self)} has no weights yet: call it, or build it for the shape of its input.")

    def save_own_variables(self, store: Any) -> None:
        """Saves the weights of the blocks, in the same form whatever the execution; none before the stack is built."""
        if self.built:
            self._blocks.save(store)

    def load_own_variables(self, store: Any) -> None:
        """Loads what a stack of the same blocks saved, whatever its execution."""
        if not self.built and not list(store.keys()):
            return
        self._check_built()
        self._blocks.load(store)

    def _saved_part(self, name: str) -> Changes:
        # What was changed in every block, and in one.
        block, dot, part = name.partition(".")
        everywhere = f"block{dot}{part}" if block.startswith("block_") else name
        return {**super()._saved_part(everywhere), **super()._saved_part(name)}

    def _changed_parts(self, config: dict[str, Any]) -> dict[str, Any] | None:
        changed = super()._changed_parts(config)
        for first in [name for name in changed or () if name.partition(".")[0] == "block_0"]:
            part = first.removeprefix("block_0")
            names = [f"{_name(index)}{part}" for index in range(self.depth)]
            each = [without_ids((changed or {}).get(name)) for name in names]
            if changed and all(found == each[0] for found in each):
                changed[f"{_name(None)}{part}"] = changed[first]
                for name in names:
                    del changed[name]
        return changed

    def _given_layers(self) -> list[keras.Layer]:
        pattern = self.pattern
        blocks = pattern.blocks if isinstance(pattern, GivenBlocks) and not self._reworks else []
        return [*super()._given_layers(), *(layer for block in blocks for layer in block)]

    def _argument(self, name: str) -> Any:
        if name == "block":
            pattern = self.pattern
            return {"blocks": pattern.blocks} if isinstance(pattern, GivenBlocks) else pattern
        return self._requested_execution if name == "execution" else super()._argument(name)

    def get_config(self) -> dict[str, Any]:
        """Returns every argument as it was given; layers as Keras serialises them."""
        config = super().get_config()
        self._settle_stacks(config["block"])
        return config

    def _settle_stacks(self, config: Any) -> None:
        """Writes into the configuration of the blocks how the stacks in them are executed, where that was left to them.

        By that their weights are, and so the blocks' weights here.
        """
        inner = {part.name: part for part in sublayers(self) if isinstance(part, ResidualStack) and part is not self}
        for found in configurations(config, type(self).__name__) if inner else ():
            if found["name"] in inner:
                found["execution"] = inner[found["name"]].execution

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ResidualStack:
        """Makes the layer from `get_config`'s dictionary."""
        block = config["block"]
        if isinstance(block, dict) and "blocks" in block:
            argument = f"{cls.__name__} {config.get('name')!r}: `block`"
            config = {**config, "block": GivenBlocks(deserialize(block["blocks"], argument))}
        return super().from_config(config)


def _name(index: int | None) -> str:
    return "block" if index is None else f"block_{index}"


def _gains(plan: Any, cell: Cell) -> dict[int, np.ndarray]:
    """Returns the factors on initial values by the `id` of the variable."""
    if plan is None:
        return {}
    found = [pair for layer in cell.connections for pair in plan.gains(cast(Residual, layer))]
    return {id(variable): factors for variable, factors in found}


def _joined(seen: Any, scanned: bool) -> dict[str, Any]:
    """Returns what was measured with blocks and the connections in them as one axis."""
    if not scanned:
        seen = {name: ops.stack([block[name] for block in seen]) for name in seen[0]}
    return {name: ops.reshape(value, (-1, *value.shape[2:])) for name, value in seen.items()}
