"""Many residual blocks as one layer, whose compile time and memory need not grow with depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument, wrong_type
from keras_residual._keras import get_keras_mask
from keras_residual.compilation_cache import enable_compilation_cache_by_default
from keras_residual.residual import chain, direct
from keras_residual.residual.configured import Changes, Configured, settings_of
from keras_residual.residual.residual import Residual
from keras_residual.residual.serialization import reading, register
from keras_residual.residual.shapes import Shape, sublayers
from keras_residual.residual.untracked import Untracked
from keras_residual.stacks import depth_rules
from keras_residual.stacks.blocks import BLOCKS, choose_execution
from keras_residual.stacks.cell import Cell, Contexts, ramp
from keras_residual.stacks.observation import Observation
from keras_residual.stacks.optimizers import extend_optimizers
from keras_residual.stacks.pattern import (
    GivenBlocks,
    Pattern,
    RepeatedBlock,
    adapts,
    as_pattern,
    block_name,
    check_blocks,
    check_channels,
    classes_of,
    configurations,
    is_adapted,
    merge_changes,
    saved_change,
    select_changes,
    with_arguments,
)
from keras_residual.stacks.program import StackProgram, leave_remat_scope
from keras_residual.stacks.topologies import Place, Single, make_topology
from keras_residual.stacks.topologies.reversible import ReversibleTopology
from keras_residual.stacks.variables import BlockCount

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
        layers = [layer for block in self.pattern.blocks for layer in block]
        self._remat_by_scope = leave_remat_scope(self, layers)
        self._requested_execution = execution
        hindrance = self._hindrance()
        if execution == "scan" and hindrance:
            raise bad_argument(owner, "execution", f"'unrolled' or 'auto' here, since {hindrance}", execution)
        self.execution, self.execution_reason = choose_execution(execution, depth, hindrance)
        self.observation: Observation | None = None
        self.supports_masking = True
        check_blocks(
            owner,
            self.pattern,
            topology=self.topology,
            depth_rule=self.depth_rule,
            drop_path_rate=self.drop_path_rate,
            drops=any(self._rates),
        )
        chain.declare_arguments(self, layers)
        # Held where Keras does not look: the one layer that stands for all blocks has no weights of its own, and
        # separate ones are saved by this layer, in one form for both.
        alike = isinstance(self.pattern, RepeatedBlock)
        self._blocks = BLOCKS[self.execution](owner, depth, self._make_cell, alike=alike)
        for cell in self._blocks.cells:
            self._tracker.add_to_store("layers", cell)

    def _hindrance(self) -> str | None:
        """Returns why the blocks cannot be scanned, or None."""
        changed = self._saved_parts.value
        if self.pattern.hindrance:
            return self.pattern.hindrance
        if any(name.startswith("block_") for name in changed or ()):
            return "the blocks differ in what was changed in them or frozen"
        if is_adapted(self.pattern.blocks[0]) or adapts(changed):
            return "the blocks have quantised layers or adapters, each with numbers of its own"
        if not self.topology.fixed_shape:
            return f"the streams of {type(self.topology).__name__} grow with depth"
        return None

    @property
    def pattern(self) -> Pattern:
        """The block that is repeated, or `GivenBlocks`."""
        return self._pattern.value

    @property
    def per_block(self) -> int:
        """Number of layers in a block, each of them a connection as a rule."""
        return len(self.pattern.blocks[0])

    # --- The blocks --------------------------------------------------------------------------------------------------

    def _make_cell(self, index: int | None) -> Cell:
        """Returns the block of this index, as it was when the stack was saved; of None, the one that stands for all."""
        name = block_name(index)
        layers, settings = self.pattern.instance(index, self._rework if self._reworks else None)
        if settings is not None:
            layers = self._made_layers(name, layers, settings)
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

    def _made_layers(self, name: str, layers: Sequence[keras.Layer], settings: Sequence[Any]) -> list[keras.Layer]:
        # In a scope of its own: what its layers share, those of other blocks do not.
        with reading(anew=True):
            made = {
                id(layer): self._made(f"{name}.{position}", layer, settings[position])
                for position, layer in enumerate(layers)
            }
        return [made[id(layer)] for layer in layers]

    @property
    def _reworks(self) -> bool:
        return self.depth_rule is not None or any(self._rates)

    def _rework(self, layer: keras.Layer, per_block: int) -> keras.Layer:
        """Returns a connection as the depth rule and the rates want it."""
        made = cast(Residual, layer)
        if self.depth_rule is not None:
            made = self.depth_rule.configure(made, depth=self.depth, per_block=per_block)
        return with_arguments(made, drop_path_rate=max(self._rates)) if any(self._rates) else made

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
        blocks, rule = self._blocks, self.depth_rule
        check_channels(owner_of(self), self.topology, blocks.cells[0].connections, len(shape))
        plan = None if rule is None else rule.plan(depth=self.depth, per_block=self.per_block)
        self._contexts = Contexts(self._rates, plan, self.per_block)
        blocks.build(self.topology.stream_shape(shape), argument_shapes, plan)
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
        blocks.finish_build()

    @property
    def runs_in_programs(self) -> bool:
        """Whether a loop or a recomputation calls the blocks' layers: tensors of their calls do not outlive it."""
        return self._blocks.in_loop or bool(self.remat) or self._remat_by_scope.above is not None

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
        reversible = isinstance(self.topology, ReversibleTopology)
        watched = observation is not None or block_mask is not None
        remat = self.remat or (not reversible and self._remat_by_scope(inputs))
        if not (self._blocks.in_loop or remat or reversible or watched):
            return self.topology.end(self._apply(rows, training, mask, arguments))

        reversibly = reversible and not (watched or remat)
        if reversibly:
            self._check_held(arguments)
        program = StackProgram(self._blocks, self._contexts, training, mask, observation, arguments)
        common = self._by_block(block_mask, None if observation is None else observation.probe)
        rows, loss = program.run(rows, common, remat, reversibly=reversibly)
        if loss is not None:
            self.add_loss(loss)
        return ops.cast(self.topology.end(rows), self.compute_dtype)

    def _apply(self, rows: Any, training: bool | None, mask: Any, arguments: dict[str, Any]) -> Any:
        """Returns the rows after all blocks, called one after another as layers."""
        for index, cell in enumerate(self._blocks.cells):
            plain = len(rows) == 1 and direct.is_plain(cell, rows[0], training)
            rows = (cell.call if plain else cell)(
                rows,
                contexts=self._contexts.of_block(index),
                training=training,
                sequence_mask=mask,
                held=Untracked(arguments),
            )
        return rows

    def _check_held(self, arguments: dict[str, Any]) -> None:
        """Raises for tensors whose gradient blocks that are undone would not give."""
        for name, value in arguments.items():
            tensors = [tensor for tensor in keras.tree.flatten(value) if ops.is_tensor(tensor)]
            if any(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)) for tensor in tensors):
                rule = "without floats in a reversible stack, which gives no gradient of what its blocks take beside it"
                raise bad_argument(owner_of(self), name, rule, value, "Make the stack with remat='full'.")

    def _by_block(self, block_mask: Any, probe: Any) -> dict[str, Any]:
        """Returns the tensors of a call that have the blocks as their leading axis."""
        found: dict[str, Any] = {}
        if block_mask is not None:
            active: Any = ops.convert_to_tensor(block_mask)
            if len(active.shape) not in (1, 2) or active.shape[-1] != self.depth:
                rule = f"of shape ({self.depth},) or (batch, {self.depth})"
                raise bad_argument(owner_of(self), "block_mask", rule, tuple(active.shape))
            found["active"] = ops.transpose(active) if len(active.shape) == 2 else active
        if probe is not None:
            found["probe"] = tuple(probe) if isinstance(probe, (list, tuple)) else (probe,)
        return found

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
        kept = _indices(owner_of(self), kept, self.depth)
        hindrance = self.why_not_fewer()
        if hindrance:
            raise ValueError(f"{owner_of(self)} cannot do with fewer blocks: {hindrance}.")
        config = {**self.get_config(), "depth": len(kept)}
        if any(self._rates):
            config["drop_path_rate"] = [self._rates[index] for index in kept]
        if isinstance(self.pattern, GivenBlocks):
            config["block"] = {"blocks": [config["block"]["blocks"][index] for index in kept]}
        if "changed_parts" in config:
            first = len(super()._given_layers())
            given = first if len(self._given_layers()) > first else None
            config["changed_parts"] = select_changes(config["changed_parts"], kept, self.per_block, given)
        return self._remade(config, kept)

    def why_not_fewer(self) -> str | None:
        """Returns why no block can be taken out of the stack; None where it can do with fewer."""
        if not isinstance(self.topology, Single):
            return f"what its topology, {self.topology.name!r}, does to the stream depends on all of them"
        plan = None if self.depth_rule is None else self.depth_rule.plan(depth=self.depth, per_block=self.per_block)
        if Contexts([0.0] * self.depth, plan, self.per_block).values:
            name = getattr(self.depth_rule, "name", None) or type(self.depth_rule).__name__
            return f"the scales of its depth rule, {name!r}, depend on how many there are"
        return None

    def _remade(self, config: dict[str, Any], kept: Sequence[int] | None = None) -> ResidualStack:
        """Returns a stack of this configuration, with the weights of this one."""
        with classes_of(self.pattern.blocks):
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

    # --- The configuration -------------------------------------------------------------------------------------------

    def _saved_part(self, name: str) -> Changes:
        return saved_change(super()._saved_part, name)

    def _changed_parts(self, config: dict[str, Any]) -> dict[str, Any] | None:
        changed = super()._changed_parts(config)
        if changed:
            merge_changes(changed, self.depth)
        return changed

    def _given_layers(self) -> list[keras.Layer]:
        as_they_are = isinstance(self.pattern, GivenBlocks) and not self._reworks
        blocks = self.pattern.blocks if as_they_are else []
        return [*super()._given_layers(), *(layer for block in blocks for layer in block)]

    def _argument(self, name: str) -> Any:
        if name == "block":
            return self.pattern.argument()
        return self._requested_execution if name == "execution" else super()._argument(name)

    def get_config(self) -> dict[str, Any]:
        """Returns every argument as it was given; layers as Keras serialises them."""
        config = super().get_config()
        # How the stacks in the blocks are executed, where that was left to them: their weights, and so those here,
        # depend on it.
        inner = {part.name: part for part in sublayers(self) if isinstance(part, ResidualStack) and part is not self}
        for found in configurations(config["block"], type(self).__name__) if inner else ():
            if found["name"] in inner:
                found["execution"] = inner[found["name"]].execution
        return config


def _indices(owner: str, kept: Any, depth: int) -> list[int]:
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
