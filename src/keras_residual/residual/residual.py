"""One residual connection around any branch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_residual._arguments import owner_of, share
from keras_residual._keras import get_keras_mask
from keras_residual._recursion import make_room
from keras_residual._types import Shape, Tensor
from keras_residual.residual import arguments, chain, parts, shapes
from keras_residual.residual.configured import Configured, Untracked
from keras_residual.residual.context import DepthContext
from keras_residual.residual.merges import MERGES
from keras_residual.residual.merges.base import checked_pair
from keras_residual.residual.regularizers import DropPath
from keras_residual.residual.scales import NAMED_FACTORS, SCALES
from keras_residual.residual.serialization import register
from keras_residual.residual.shortcuts import SHORTCUTS

_NO_CONTEXT = DepthContext()


@register
class Residual(Configured):
    """Adds the output of a branch to its input: `y = x + F(x)`, with a choice for every part of the connection.

    In full, outside a stack with a depth rule, for the branch `F`, the shortcut `S` and `x = preactivation(inputs)`, by
    default the input itself:

        y = activation(norm_post(merge(skip_scale * S(x), drop_path(branch_scale * norm_out(F(norm_pre(x)))))))

    Args:
        branch: The residual function `F`: a layer, or a list of layers applied in order, from one tensor to one tensor.
            Keras's attention layers attend to their own input, or to the call argument `value`.
        shortcut: What the skip path does: `"identity"`, `"projection"`, `"zero_pad"`, `"avg_pool"`, or a layer.
            `"auto"` is the identity where shapes agree, else a projection. Filters and strides that a shortcut leaves
            open are inferred from the branch; if that upsamples by a whole factor, positions are repeated.
        merge: How the two paths are merged: a name of `MERGES` (`"add"`, `"concat"`, `"highway"`, `"gru"`, …) or a
            layer called with `[skip, branch]`.
        branch_scale: Factor on the branch: a number, `"inverse_sqrt_2"`, `"skip_init"` (`"rezero"`), `"layer_scale"`,
            `"fixup"`, or a layer.
        skip_scale: Factor on the skip path, as for `branch_scale`; for those of DeepNorm and Keel, use `.skip_scale` of
            `keras_residual.depth_rules`.
        norm: Name of a norm (`"batch_norm"`, `"layer_norm"`, `"group_norm"`, `"rms_norm"`) or a norm layer. Each
            position has a copy of its own.
        norm_position: `"pre"` (before the branch), `"out"` (on the branch's output), `"post"` (after the merge),
            `"peri"` (pre and out), or a sequence of these, such as `("pre", "post")` for Keel.
        drop_path_rate: Probability in `[0, 1)` that the branch of a sample is dropped in training (stochastic depth).
        activation: Activation after the merge, as in ResNet v1: a name, a function or a layer.
        preactivation: A layer or a list of layers, such as a norm and an activation, applied to the input of both
            paths, as in blocks of ResNet v2 that change the shape.
        name: Name of the layer.
        **kwargs: Arguments of every Keras layer, such as `dtype` and `trainable`. The dtype policy applies to the
            connection and the parts that it creates; the layers of the branch keep their own.

    Call arguments:
        inputs: Tensor of shape `(batch, …, channels)`, or `(batch, channels, …)` where the branch is channels_first.
        training: Whether drop path, dropout and norms act as in training.
        mask: Mask of a sequence, `(batch, time)`; it reaches every part, and is passed on if the time axis is kept.
        depth_context: What a `ResidualStack` passes to its blocks.
        **arguments: Named arguments of the calls of the layers within, such as `value`, `attention_mask` and
            `use_causal_mask` of attention, `initial_state` of recurrent layers, or a time embedding: each reaches every
            layer that has an argument of that name, also in a nested `Residual`.

    Output shape:
        That of the branch; with `merge="concat"` the channels of both paths.

    Raises:
        ValueError: When created, for an unknown name, a rate outside `[0, 1)`, an empty branch, or a layer that is both
            in the branch and elsewhere; when built, for shapes that cannot be merged, or a branch that does not return
            one tensor or was built for another shape.
        TypeError: For an argument of the wrong type.

    Example:
        >>> x = keras.Input((64,))
        >>> kr.Residual(keras.layers.Dense(64, activation="relu"))(x).shape
        (None, 64)
        >>> block = kr.Residual(
        ...     [keras.layers.Conv2D(16, 3, strides=2, padding="same"), keras.layers.Activation("relu")],
        ...     norm="batch_norm", branch_scale="skip_init", drop_path_rate=0.1)
        >>> block(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)
        >>> cross = kr.Residual(keras.layers.MultiHeadAttention(2, 8), norm="layer_norm")
        >>> cross(np.zeros((1, 5, 16)), value=np.zeros((1, 7, 12))).shape  # attends to another sequence
        (1, 5, 16)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, eq. 1
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027
    """

    def __init__(
        self,
        branch: keras.Layer | Sequence[keras.Layer],
        *,
        shortcut: str | keras.Layer = "auto",
        merge: str | keras.Layer = "add",
        branch_scale: float | str | keras.Layer | None = None,
        skip_scale: float | str | keras.Layer | None = None,
        norm: str | keras.Layer | None = None,
        norm_position: str | Sequence[str] = "pre",
        drop_path_rate: float = 0.0,
        activation: str | Callable[..., Any] | keras.Layer | None = None,
        preactivation: keras.Layer | Sequence[keras.Layer] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        owner = owner_of(self)
        self.branch = arguments.as_layers(owner, "branch", branch)
        if preactivation is not None:
            preactivation = arguments.as_layers(owner, "preactivation", preactivation)
        self.preactivation = preactivation
        arguments.check_name_or_layer(owner, "shortcut", shortcut, ["auto", "identity", *SHORTCUTS])
        arguments.check_name_or_layer(owner, "merge", merge, MERGES)
        scales = [*SCALES, *NAMED_FACTORS]
        arguments.check_scale(owner, "branch_scale", branch_scale, scales)
        arguments.check_scale(owner, "skip_scale", skip_scale, scales)
        self._norm_positions = arguments.as_norm_positions(owner, norm, norm_position)
        arguments.check_not_shared(
            owner,
            branch=self.branch,
            preactivation=preactivation,
            shortcut=shortcut,
            merge=merge,
            branch_scale=branch_scale,
            skip_scale=skip_scale,
            norm=norm,
            activation=activation,
        )
        # Untracked: each norm position gets its own copy, and the given shortcut may turn out not to be needed. Keras
        # tracks the layers in use instead.
        self._given_shortcut = Untracked(shortcut)
        self.merge = merge
        self.branch_scale = branch_scale
        self.skip_scale = skip_scale
        self._given_norm = Untracked(norm)
        self.norm_position = norm_position if isinstance(norm_position, str) else tuple(norm_position)
        self.drop_path_rate = share(owner, "drop_path_rate", drop_path_rate)
        self.activation = arguments.as_activation(owner, activation)
        self.supports_masking = True
        self.pre_norm = self.out_norm = self.post_norm = None
        self.branch_scale_layer = self.skip_scale_layer = None
        self.merge_layer: Any = None
        self._keeps_time = False
        # Created now, for its seed: a stack derives from it the seeds of the copies of a block.
        self.drop_path = (
            self._made("drop_path", DropPath(self.drop_path_rate, name="drop_path", dtype=self.dtype_policy))
            if self.drop_path_rate
            else None
        )
        self.shortcut_layer = None
        given = [*(preactivation or ()), *self.branch, norm, branch_scale, skip_scale, shortcut, self.activation]
        chain.declare_arguments(self, [part for part in given if isinstance(part, keras.Layer)])

    @property
    def shortcut(self) -> str | keras.Layer:
        """The shortcut as given; `shortcut_layer` is the one in use."""
        return self._given_shortcut.value

    @property
    def norm(self) -> str | keras.Layer | None:
        """The norm as given; `pre_norm`, `out_norm` and `post_norm` are the ones in use."""
        return self._given_norm.value

    # --- Building: every choice becomes a layer, a number, or None ---------------------------------------------------

    # When a call has several tensor arguments, Keras passes their shapes to `build` by argument name.
    def build(self, inputs_shape: Shape, **argument_shapes: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Builds the branch, infers the shortcut and checks that both paths can be merged."""
        shape, axis = parts.input_shape_and_axis(self, inputs_shape)
        self.input_spec = keras.InputSpec(ndim=len(shape), axes={axis: shape[axis]})
        build = parts.PartsBuilder(self, axis, argument_shapes)

        shape = build.chain("preactivation", self.preactivation or (), shape)
        self.pre_norm = build.norm("pre", shape)
        branch_shape = build.chain("branch", self.branch, shape)
        path = self._branch_path()
        self._keeps_time = shapes.keeps_axis(path, shape, branch_shape, 1)
        self.out_norm = build.norm("out", branch_shape)
        self.branch_scale_layer = build.scale("branch_scale", branch_shape)
        if self.drop_path is not None:
            self.drop_path.build(branch_shape)

        self.merge_layer = build.merge()
        self.shortcut_layer = build.shortcut(self.merge_layer, path, shape, branch_shape)
        skip_shape = shapes.chain_output_shape(self._skip_path(), shape)
        self.skip_scale_layer = build.scale("skip_scale", skip_shape)
        merged_shape = build.build_merge(self.merge_layer, shape, (self._skip_path(), skip_shape), (path, branch_shape))
        self.post_norm = build.norm("post", merged_shape)
        if isinstance(self.activation, keras.Layer):
            build.shape_preserving("activation", self.activation, merged_shape)

    def _skip_path(self) -> list[keras.Layer]:
        return [] if self.shortcut_layer is None else [self.shortcut_layer]

    def _branch_path(self) -> list[keras.Layer]:
        return [*([] if self.pre_norm is None else [self.pre_norm]), *self.branch]

    # --- Calling -----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the layer to a tensor; pass all other call arguments by keyword."""
        chain.check_arguments(self, kwargs)
        return super().__call__(*args, **kwargs)

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Any = None,
        depth_context: DepthContext | None = None,
        **arguments: Any,
    ) -> Tensor:
        """Computes the formula in the class docstring."""
        if mask is None and arguments:
            mask = get_keras_mask(inputs)  # Keras fills in `mask` only for calls with a single tensor argument
        x = self.preactivated(inputs, training, mask, **arguments)
        branch = self.branch_output(x, training, mask, depth_context, **arguments)
        return self.join(x, branch, training, mask, depth_context, **arguments)

    def preactivated(self, inputs: Tensor, training: bool | None = None, mask: Any = None, **arguments: Any) -> Tensor:
        """Returns what goes to both paths, `x = preactivation(inputs)`."""
        call = chain.Caller(training, mask, arguments)
        return call(self.preactivation, inputs)

    def branch_output(
        self,
        x: Tensor,
        training: bool | None = None,
        mask: Any = None,
        depth_context: DepthContext | None = None,
        **arguments: Any,
    ) -> Tensor:
        """Returns what the branch adds, `drop_path(branch_scale * norm_out(F(norm_pre(x))))`.

        In a stack with a depth rule, `depth_context` adds factors that depend on the block:
        `drop_path(branch_scale' * branch_scale * norm_out(F(norm_pre(branch_input_scale' * x))))`. The last one comes
        before the norm, which undoes it; it is for rules that forbid norms.

        Args:
            x: The output of the preactivation, as `preactivated` returns it.
            training: Whether drop path, dropout and norms act as in training.
            mask: Mask of a sequence, `(batch, time)`.
            depth_context: What a stack passes to its blocks.
            **arguments: Call arguments of the layers in the branch.
        """
        call, context = chain.Caller(training, mask, arguments), depth_context or _NO_CONTEXT
        first, *others = self.branch
        x = call(self.pre_norm, call(context.branch_input_scale, x))
        x = call(first, x)
        call.mask = self.compute_mask(x, mask)
        x = call(self.out_norm, call(others, x))
        x = call(context.branch_scale, call(self.branch_scale_layer, x))
        if self.drop_path is None or context.drop_path_rate is None:
            return call(self.drop_path, x)
        return self.drop_path.drop(x, context.drop_path_rate) if training else x

    def join(
        self,
        x: Tensor,
        branch: Tensor,
        training: bool | None = None,
        mask: Any = None,
        depth_context: DepthContext | None = None,
        **arguments: Any,
    ) -> Tensor:
        """Returns `activation(norm_post(merge(skip_scale * S(x), branch)))`; arguments as in `branch_output`.

        The skip path, too, gets a further factor where `depth_context` has a `skip_scale`.
        """
        call, context = chain.Caller(training, mask, arguments), depth_context or _NO_CONTEXT
        x = call(self.shortcut_layer, x)
        call.mask = self.compute_mask(x, mask)
        skip = call(context.skip_scale, call(self.skip_scale_layer, x))
        y = call(self.merge_layer, checked_pair(owner_of(self), self.merge_layer, skip, branch))
        return call(self.activation, call(self.post_norm, y))

    def compute_output_spec(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Returns the symbolic output, and makes sure that Keras can walk a graph of any depth."""
        make_room(owner_of(self), inputs)
        return super().compute_output_spec(inputs, *args, **kwargs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the merged paths; builds the layer if necessary."""
        if not self.built:
            self.build(input_shape)
        shape = shapes.chain_output_shape(self.preactivation or (), tuple(input_shape))
        pair = [shapes.chain_output_shape(path, shape) for path in (self._skip_path(), self._branch_path())]
        return tuple(self.merge_layer.compute_output_shape(pair))

    def compute_mask(self, inputs: Tensor, previous_mask: Any) -> Any:
        """Returns the mask, or None if the branch changes the time axis.

        Then only the layers up to the branch's first receive it.
        """
        return previous_mask if self._keeps_time else None
