"""Many residual blocks as one layer, whose compile time and memory need not grow with the depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._arguments import owner_of, whole_number
from keras_residual._errors import bad_argument
from keras_residual._keras import get_keras_mask
from keras_residual._types import Shape
from keras_residual.compilation_cache import enable_compilation_cache_by_default
from keras_residual.residual import chain
from keras_residual.residual.configured import Changes, Configured, Untracked, settings_of
from keras_residual.residual.serialization import reading, register
from keras_residual.residual.shapes import sublayers
from keras_residual.stacks.backward_memory import StackProgram, check_held, leave_remat_scope, tensors_by_block
from keras_residual.stacks.blocks import BLOCKS, choose_execution
from keras_residual.stacks.cell import Cell, Contexts, ramp
from keras_residual.stacks.depth_rules import DepthRule, get_rule
from keras_residual.stacks.observation import Observation, observation_of
from keras_residual.stacks.optimizers import extend_optimizers
from keras_residual.stacks.pattern import (
    Pattern,
    as_indices,
    as_pattern,
    block_name,
    check_blocks,
    check_channels,
    classes_of,
    merge_changes,
    rework_for,
    saved_change,
    select_changes,
    settle_executions,
    why_not_scanned,
)
from keras_residual.stacks.topologies import Place, Single, Topology, make_topology
from keras_residual.stacks.topologies.reversible import ReversibleTopology
from keras_residual.stacks.variables import BlockCount

EXECUTIONS = ("auto", "unrolled", "scan")
MAX_BLOCKS = 1_000_000
"""Upper limit on `depth`; it bounds what a malicious file can request."""
REMATS = ("full", "sqrt")


@register
class ResidualStack(Configured):
    """Applies `depth` copies of a block one after another; with `execution="scan"` they are compiled once.

    Args:
        block: A layer that keeps the shape of its input, or a list of such layers applied in order: typically one
            `Residual`, or the two of a transformer block. Each of the `depth` blocks gets copies with weights of its
            own. Or a function of the block's index, from 0, that returns such layers: the blocks may then differ, and
            the stack cannot be scanned.
        depth: Number of blocks, from 1 to a million.
        depth_rule: What keeps a deep stack trainable: a name, such as `"inverse_sqrt_depth"`, `"fixup"` or
            `"deepnorm"`, or a rule of `keras_residual.depth_rules`. All layers of the block must then be `Residual`s.
        drop_path_rate: Stochastic depth: the rate of the last block, in `[0, 1)`, reached linearly from 0 at the first;
            or a pair (first, last); or one rate per block.
        topology: How the blocks are connected: `"single"`, one after another, or a name or a topology of
            `keras_residual.topologies`, such as `"reversible"`, `"hyper_connections"` or `"mhc"`.
        execution: `"unrolled"` makes each block a sub-layer of its own; `"scan"` compiles one block and runs it over
            weights that are stacked along a leading axis; `"auto"` scans where that pays off, and the attributes
            `execution` and `execution_reason` say what was chosen and why. The choice affects the cost and never the
            numbers: a scanned stack refuses whatever would treat its stacked weights as one weight, such as
            quantisation, adapters, or an optimizer that is not elementwise.
        remat: Which activations are recomputed in the backward pass instead of being stored. `False`: none, except that
            a scan on JAX recomputes elementwise operations, such as norms and activation functions, where that stores
            less. `"full"` (or `True`): all but the input of each block. `"sqrt"`: all but about `2 * sqrt(depth)` of
            these inputs; on JAX, a depth without a divisor near its square root, such as a prime, needs an extra copy
            of the weights and of their gradients. A reversible topology stores none to begin with: `remat` makes it
            recompute its blocks from stored inputs instead of inverting them, which takes that memory and has no drift.
        name: Name of the layer.
        **kwargs: What every Keras layer takes, such as `dtype` and `trainable`. The layers of the block keep their own
            dtype policies.

    Call arguments:
        inputs: Tensor of shape `(batch, …, channels)`.
        training: Whether drop path, dropout and norms act as in training.
        mask: Mask of a sequence, `(batch, time)`; every block gets it.
        block_mask: Tensor `(depth,)` or `(batch, depth)`: a block whose entry is 0 is switched off.
        **arguments: What the layers of the blocks take in their calls by name, as in `Residual`; every block gets the
            same. A reversible stack accepts tensors that may have a gradient only with `remat="full"`.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: When created, for an unknown name, a wrong depth, or arguments that exclude each other; when built,
            for a block that changes the shape or whose channel axis is not the topology's; when trained, for an
            optimizer that a scanned stack refuses.
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
        depth_rule: str | DepthRule | None = None,
        drop_path_rate: float | Sequence[float] = 0.0,
        topology: str | Topology = "single",
        execution: str = "auto",
        remat: bool | str = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        owner = owner_of(self)
        if execution not in EXECUTIONS:
            raise bad_argument(owner, "execution", f"one of {', '.join(EXECUTIONS)}", execution)
        if not isinstance(remat, bool) and not (isinstance(remat, str) and remat in REMATS):
            raise bad_argument(owner, "remat", "False, True, 'full' or 'sqrt'", remat)
        self.depth = depth = whole_number(owner, "depth", depth, most=MAX_BLOCKS)
        self._rates = ramp(owner, drop_path_rate, depth)
        self.drop_path_rate = list(drop_path_rate) if isinstance(drop_path_rate, Sequence) else drop_path_rate
        self.depth_rule = None if depth_rule is None else get_rule(depth_rule)
        rework = rework_for(self.depth_rule, self._rates, depth)
        self._pattern = Untracked(as_pattern(owner, block, depth, rework))
        self.topology = make_topology(topology)
        self.remat = "full" if remat is True else remat
        layers = [layer for block in self.pattern.blocks for layer in block]
        self._remat_by_scope = leave_remat_scope(self, layers)
        self._requested_execution = execution
        self.execution, self.execution_reason = choose_execution(
            owner, execution, depth, why_not_scanned(self.pattern, self.topology, self._saved_parts.value)
        )
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
        # `_blocks` is not a layer, so Keras's saving skips it and this layer saves the weights itself; the cells are
        # registered as sub-layers so that their variables are still found.
        self._blocks = BLOCKS[self.execution](owner, depth, self._make_cell, alike=self.pattern.alike)
        for cell in self._blocks.cells:
            self._tracker.add_to_store("layers", cell)

    @property
    def pattern(self) -> Pattern:
        """The block that is repeated, or the blocks that a function of the index gave."""
        return self._pattern.value

    @property
    def per_block(self) -> int:
        """Number of layers in a block, each of them a connection as a rule."""
        return len(self.pattern.blocks[0])

    # --- The blocks --------------------------------------------------------------------------------------------------

    def _make_cell(self, index: int | None) -> Cell:
        """Returns the block of this index, as it was when the stack was saved; of None, the one that stands for all."""
        name = block_name(index)
        layers, settings = self.pattern.instance(index)
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
        with reading(fresh=True):
            made = {
                id(layer): self._made(f"{name}.{position}", layer, settings[position])
                for position, layer in enumerate(layers)
            }
        return [made[id(layer)] for layer in layers]

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
        for part in sublayers(self):
            if self._remat_by_scope.above is not None:
                part._remat_mode = None
            _backend.forget_parameters(part)

    @property
    def runs_in_programs(self) -> bool:
        """Whether a loop or a recomputation calls the blocks' layers: tensors of their calls do not outlive it.

        Those of the forward pass of a reversible stack do, since its custom gradient belongs to the program around it.
        """
        return self._blocks.in_loop or bool(self.remat) or self._remat_by_scope.above is not None

    # --- Calling -----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the layer to a tensor; pass all other call arguments by keyword."""
        chain.check_arguments(self, kwargs)
        return super().__call__(*args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, block_mask: Any = None, **arguments: Any
    ) -> Any:
        """Applies the blocks."""
        observation = observation_of(self)
        if mask is None and (block_mask is not None or arguments):
            mask = get_keras_mask(inputs)  # Keras fills in `mask` only for calls with a single tensor argument
        rows = self.topology.begin(inputs)
        reversible = isinstance(self.topology, ReversibleTopology)
        watched = observation is not None or block_mask is not None
        remat = self.remat or (not reversible and self._remat_by_scope(inputs))
        if not (self._blocks.in_loop or remat or reversible or watched):
            for index, cell in enumerate(self._blocks.cells):
                rows = cell.apply(rows, self._contexts.of_block(index), training, mask, arguments)
            return self.topology.end(rows)

        reversibly = reversible and not (watched or remat)
        if reversibly:
            check_held(owner_of(self), arguments)
        program = StackProgram(self._blocks, self._contexts, training, mask, observation, arguments)
        common = tensors_by_block(owner_of(self), self.depth, block_mask, observation)
        rows, loss = program.run(rows, common, remat, reversibly=reversibly)
        if loss is not None:
            self.add_loss(loss)
        return ops.cast(self.topology.end(rows), self.compute_dtype)

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
            kept: Indices of the blocks to keep, in increasing order; at least one. The result computes what this stack
                computes with a `block_mask` of 1 at these indices and 0 elsewhere.

        Raises:
            ValueError: For invalid indices, and for a stack whose blocks depend on their number: one with a depth rule
                that scales by depth, or a topology other than `"single"`.
        """
        kept = as_indices(owner_of(self), kept, self.depth)
        hindrance = self.why_not_fewer()
        if hindrance:
            raise ValueError(f"{owner_of(self)}: blocks cannot be removed, because {hindrance}.")
        config = {**self.get_config(), "depth": len(kept)}
        if any(self._rates):
            config["drop_path_rate"] = [self._rates[index] for index in kept]
        config["block"] = self.pattern.select(config["block"], kept)
        if "changed_parts" in config:
            given = len(super()._given_layers()) if self.pattern.used_layers() else None
            config["changed_parts"] = select_changes(config["changed_parts"], kept, self.per_block, given)
        return self._remade(config, kept)

    def why_not_fewer(self) -> str | None:
        """Returns why no block can be removed from the stack, or None if some can."""
        if not isinstance(self.topology, Single):
            return f"topology {self.topology.name!r} couples all blocks"
        plan = None if self.depth_rule is None else self.depth_rule.plan(depth=self.depth, per_block=self.per_block)
        if Contexts([0.0] * self.depth, plan, self.per_block).values:
            name = getattr(self.depth_rule, "name", None) or type(self.depth_rule).__name__
            return f"the scales of depth rule {name!r} depend on the number of blocks"
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
        return [*super()._given_layers(), *self.pattern.used_layers()]

    def _argument(self, name: str) -> Any:
        if name == "block":
            return self.pattern.argument()
        return self._requested_execution if name == "execution" else super()._argument(name)

    def get_config(self) -> dict[str, Any]:
        """Returns every argument as it was given; layers as Keras serialises them."""
        config = super().get_config()
        inner = [part for part in sublayers(self) if isinstance(part, ResidualStack) and part is not self]
        settle_executions(config["block"], type(self).__name__, {stack.name: stack.execution for stack in inner})
        return config
