"""One residual connection around any branch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import owner_of, share
from keras_residual._errors import bad_argument, shape_mismatch
from keras_residual._keras import get_keras_mask
from keras_residual._recursion import make_room
from keras_residual.residual import arguments, chain, direct, shapes
from keras_residual.residual.configured import Configured, Untracked
from keras_residual.residual.context import DepthContext
from keras_residual.residual.merges import MERGES, Merge
from keras_residual.residual.merges.base import not_broadcast
from keras_residual.residual.norms import make_norm
from keras_residual.residual.regularizers import DropPath
from keras_residual.residual.scales import NAMED_FACTORS, SCALES, LayerScale
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Shape
from keras_residual.residual.shortcuts import SHORTCUTS, ProjectionShortcut, Shortcut

_NO_CONTEXT = DepthContext()

_KERAS_ELEMENTWISE = (
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)


@register
class Residual(Configured):
    """Adds the output of a branch to its input: `y = x + F(x)`, with every part of the connection as a choice.

    In full, for the branch `F`, the shortcut `S` and `x = preactivation(inputs)`, which is the input itself as a rule:

        y = activation(norm_post(merge(skip_scale * S(x), drop_path(branch_scale * norm_out(F(norm_pre(x)))))))

    Args:
        branch: The residual function `F`: a layer, or a list of layers applied in order. One tensor in, one out. An
            attention layer of Keras attends to its own input, or to the call argument `value`.
        shortcut: What the skip path does: `"identity"`, `"projection"`, `"zero_pad"`, `"avg_pool"`, or a layer.
            `"auto"` is the identity where shapes agree, else a projection. Filters and strides that a shortcut leaves
            open are inferred from the branch; one that upsamples by a whole factor is followed by repeating positions.
        merge: How the two paths meet: a name of `MERGES` (`"add"`, `"concat"`, `"highway"`, `"gru"`, …) or a layer
            called with `[skip, branch]`.
        branch_scale: Factor on the branch: a number, `"inverse_sqrt_2"`, `"skip_init"` (`"rezero"`), `"layer_scale"`,
            `"fixup"`, or a layer.
        skip_scale: Factor on the skip path, of the same kinds; for DeepNorm's and Keel's take the
            `.skip_scale` of `keras_residual.depth_rules`.
        norm: A norm's name (`"batch_norm"`, `"layer_norm"`, `"group_norm"`, `"rms_norm"`) or a norm layer. Where
            more than one place needs it, each has a copy of its own.
        norm_position: `"pre"` (before the branch), `"out"` (on the branch's output), `"post"` (after the merge),
            `"peri"` (pre and out), or a sequence of these, such as `("pre", "post")` for Keel.
        drop_path_rate: Probability in `[0, 1)` that the branch of a sample is dropped in training (stochastic depth).
        activation: Activation after the merge, as ResNet v1 has it: a name, a function or a layer.
        preactivation: A layer or layers, such as a norm and an activation, applied to the input before it goes to both
            paths: ResNet v2 has them where a block changes the shape.
        name: Name of the layer.
        **kwargs: What every Keras layer takes, such as `dtype` and `trainable`. The dtype policy is that of the
            connection and of the parts it makes; the layers of the branch keep their own.

    Call arguments:
        inputs: Tensor of shape `(batch, …, channels)`, or `(batch, channels, …)` where the branch is channels_first.
        training: Whether drop path, dropout and norms act as in training.
        mask: Mask of a sequence, `(batch, time)`; it reaches every part, and comes out where the time
            axis is kept.
        depth_context: What a `ResidualStack` gives its blocks.
        **arguments: What the calls of the layers inside take by name, such as `value`, `attention_mask` and
            `use_causal_mask` of attention, `initial_state` of recurrent layers, or an embedding of time: each reaches
            every layer that has an argument of that name, also in a nested `Residual`.

    Output shape:
        That of the branch; with `merge="concat"` the channels of both paths.

    Raises:
        ValueError: When made, for an unknown name, a rate outside `[0, 1)`, an empty branch or a layer that is in
            the branch and elsewhere; when built, for shapes that cannot be merged, a branch that does not return one
            tensor, or a branch that was built for another shape.
        TypeError: For an argument of the wrong type.

    Example:
        >>> x = keras.Input((64,))
        >>> Residual(keras.layers.Dense(64, activation="relu"))(x).shape
        (None, 64)
        >>> block = Residual(
        ...     [keras.layers.Conv2D(16, 3, strides=2, padding="same"), keras.layers.Activation("relu")],
        ...     norm="batch_norm", branch_scale="skip_init", drop_path_rate=0.1)
        >>> block(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)
        >>> cross = Residual(keras.layers.MultiHeadAttention(2, 8), norm="layer_norm")
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
        # Each place has its own copy of the norm, and only one shortcut is used: Keras finds these by other names.
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
        # Made at once, for its seed: what a stack gives the copies of a block follows from it.
        self.drop_path = (
            self._made("drop_path", DropPath(self.drop_path_rate, name="drop_path", dtype=self.dtype_policy))
            if self.drop_path_rate
            else None
        )
        self.shortcut_layer = None
        parts = [*(preactivation or ()), *self.branch, norm, branch_scale, skip_scale, shortcut, self.activation]
        chain.declare_arguments(self, [part for part in parts if isinstance(part, keras.Layer)])

    @property
    def shortcut(self) -> str | keras.Layer:
        """The shortcut as it was given; `shortcut_layer` is the one that is used."""
        return self._given_shortcut.value

    @property
    def norm(self) -> str | keras.Layer | None:
        """The norm as it was given; `pre_norm`, `out_norm` and `post_norm` are those that are used."""
        return self._given_norm.value

    # --- Building: every choice becomes a layer, a number, or None ---------------------------------------------------

    # Where there are several shapes, Keras passes each by the name of its argument of `call`.
    def build(self, inputs_shape: Shape, **argument_shapes: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Builds the branch, infers the shortcut and checks that both paths can be merged."""
        owner = owner_of(self)
        if not inputs_shape or not all(size is None or isinstance(size, int) for size in inputs_shape):
            rule = "one tensor of shape (batch, …, channels)"
            raise bad_argument(owner, "inputs", rule, inputs_shape, "Merge several tensors, or choose one, before.")
        # Only a layer that keeps a state for each sample needs the size of the batch.
        shape = (inputs_shape[0] if shapes.stateful(self) else None, *inputs_shape[1:])
        axis = shapes.channel_axis([*(self.preactivation or ()), *self.branch], len(shape))
        if len(shape) < 2 or shape[axis] is None:
            rule = "a tensor (batch, …, channels) with a known number of channels"
            raise bad_argument(owner, "inputs", rule, tuple(inputs_shape))
        self.input_spec = keras.InputSpec(ndim=len(shape), axes={axis: shape[axis]})
        self._argument_shapes = argument_shapes

        if self.preactivation:
            shape = self._build_parts("preactivation", self.preactivation, shape)
        self.pre_norm = self._make_norm("pre", shape, axis)
        branch_shape = self._build_parts("branch", self.branch, shape)
        self._keeps_time = shapes.keeps_axis(self._branch_path(), shape, branch_shape, 1)
        self.out_norm = self._make_norm("out", branch_shape, axis)
        self.branch_scale_layer = self._make_scale("branch_scale", branch_shape, axis)
        if self.drop_path is not None:
            self.drop_path.build(branch_shape)

        merge = self.merge
        if isinstance(merge, str):
            merge = self._made("merge_layer", MERGES[merge](axis=axis, name="merge", dtype=self.dtype_policy))
        self.merge_layer: keras.Layer = merge
        self.shortcut_layer = self._make_shortcut(shape, branch_shape, axis)
        skip_shape = shape if self.shortcut_layer is None else shapes.output_shape(self.shortcut_layer, shape)
        self.skip_scale_layer = self._make_scale("skip_scale", skip_shape, axis)
        merged_shape = self._build_merge(merge, shape, skip_shape, branch_shape)
        self._merges_directly = isinstance(self.merge, str) and not merge.weights
        self.post_norm = self._make_norm("post", merged_shape, axis)
        if isinstance(self.activation, keras.Layer):
            self._build_part("activation", self.activation, merged_shape)

    def _build_parts(self, argument: str, parts: Sequence[keras.Layer], shape: Shape) -> Shape:
        return chain.build(owner_of(self), argument, parts, shape, self.compute_dtype, self._argument_shapes)

    def _build_part(self, argument: str, part: keras.Layer, shape: Shape) -> None:
        """Builds a layer that must keep the shape."""
        output = self._build_parts(argument, [part], shape)
        if output != shape:
            rule = f"a layer that keeps the shape, {shape}"
            raise bad_argument(owner_of(self), argument, rule, part.name, f"It returns {output}.")

    def _make_norm(self, position: str, shape: Shape, axis: int) -> keras.Layer | None:
        if position not in self._norm_positions:
            return None
        norm = self.norm
        if isinstance(norm, keras.Layer):
            on = getattr(norm, "axis", axis)
            if axis == 1 and on not in (1, [1], (1,)):
                rule = "a norm on the channels, which the branch has in axis 1"
                raise bad_argument(owner_of(self), "norm", rule, on, "Pass axis=1 to it, or the norm's name here.")
        # Every place has a norm of its own; one that has weights already serves the first.
        if not isinstance(norm, keras.Layer) or not norm.built or position != self._norm_positions[0]:
            channels = int(shape[axis] or 0)
            norm = make_norm(norm, channels=channels, axis=axis, name=f"{position}_norm", dtype=self.dtype_policy)
        norm = self._made(f"{position}_norm", norm)
        self._build_part("norm", norm, shape)
        return norm

    def _make_scale(self, argument: str, shape: Shape, axis: int) -> keras.Layer | float | None:
        value = getattr(self, argument)
        if isinstance(value, str):
            if value in NAMED_FACTORS:
                return NAMED_FACTORS[value]
            scale_class = SCALES[value]
            keywords = {"axis": axis} if scale_class is LayerScale else {}
            value = scale_class(**keywords, name=argument, dtype=self.dtype_policy)
            value = self._made(f"{argument}_layer", value)
        if isinstance(value, keras.Layer):
            self._build_part(argument, value, shape)
        return value

    def _make_shortcut(self, shape: Shape, branch_shape: Shape, axis: int) -> keras.Layer | None:
        shortcut = self.shortcut
        if isinstance(shortcut, keras.Layer) and not isinstance(shortcut, Shortcut):
            self._build_parts("shortcut", [shortcut], shape)
            return shortcut
        if shortcut == "identity":
            return None
        if len(shape) != len(branch_shape):
            raise shape_mismatch(
                owner_of(self),
                "the input",
                shape,
                "the branch's output",
                branch_shape,
                "No shortcut can be inferred between ranks: pass `shortcut=` a layer that makes the branch's shape.",
            )
        sizes = shapes.spatial_sizes(self._branch_path(), shape, branch_shape, axis)
        changes = [shapes.infer_resampling(pairs) for pairs in sizes]
        keeps_size = all(change is not None and change.keeps_size for change in changes)
        equal_channels = shape[axis] == branch_shape[axis] or not self._needs_equal_shapes
        if keeps_size and equal_channels and (shortcut == "auto" or not getattr(shortcut, "always", True)):
            return None
        if None in changes and getattr(shortcut, "strides", None) is None:
            raise self._no_resampling(shape, branch_shape, sizes[changes.index(None)])
        if isinstance(shortcut, str):
            name = "projection" if shortcut == "auto" else shortcut
            shortcut = self._made("shortcut_layer", SHORTCUTS[name](name="shortcut", dtype=self.dtype_policy))
        filters = branch_shape[axis] if self._needs_equal_shapes else shape[axis]
        shortcut.infer(filters=filters, resampling=changes, axis=axis)
        if not shortcut.built:
            shortcut.build(shape)
        return shortcut

    @property
    def _needs_equal_shapes(self) -> bool:
        return getattr(
            self.merge_layer, "needs_equal_shapes", not isinstance(self.merge_layer, keras.layers.Concatenate)
        )

    def _no_resampling(self, shape: Shape, branch_shape: Shape, pairs: list[tuple[int, int]]) -> ValueError:
        return shape_mismatch(
            owner_of(self),
            "the input",
            shape,
            "the branch's output",
            branch_shape,
            f"No shortcut can be inferred: the branch takes sizes of {_listed(n for n, _ in pairs)} to "
            f"{_listed(m for _, m in pairs)}, which is neither a stride nor a whole factor. Pass padding='same' to the "
            "branch's layers, or `shortcut=` a layer that makes the branch's shape, such as a cropping layer.",
        )

    def _build_merge(self, merge: keras.Layer, shape: Shape, skip_shape: Shape, branch_shape: Shape) -> Shape:
        if isinstance(merge, (Merge, *_KERAS_ELEMENTWISE)) and self._needs_equal_shapes:
            skip, branch = self._probed_shapes(shape, skip_shape, branch_shape)
            if not shapes.agree(skip, branch):
                raise shape_mismatch(
                    owner_of(self),
                    "the shortcut's output",
                    skip,
                    "the branch's output",
                    branch,
                    "Pass shortcut='projection', or a layer that makes the branch's shape.",
                )
        pair = [skip_shape, branch_shape]
        try:
            if not merge.built:
                merge.build(pair)
            return tuple(merge.compute_output_shape(pair))
        except Exception as error:
            way_out = f"{type(error).__name__}: {error}"
            rule = f"a layer that can be called with [skip, branch], of shapes {skip_shape} and {branch_shape}"
            raise bad_argument(owner_of(self), "merge", rule, merge.name, way_out) from error

    def _probed_shapes(self, shape: Shape, skip_shape: Shape, branch_shape: Shape) -> tuple[Shape, Shape]:
        """Returns the two shapes, for a size at which they differ where the size is not known and there is one."""
        skip_path = [] if self.shortcut_layer is None else [self.shortcut_layer]
        if shapes.agree(skip_shape, branch_shape) and None in shape[1:]:
            for probe in shapes.probes(shape):
                try:
                    pair = [shapes.chain_output_shape(path, probe) for path in (skip_path, self._branch_path())]
                except Exception:
                    break  # a layer for other sizes
                if not shapes.agree(*pair):
                    return pair[0], pair[1]
        return skip_shape, branch_shape

    # --- Calling -----------------------------------------------------------------------------------------------------

    def _branch_path(self) -> list[keras.Layer]:
        layers = [self.pre_norm, *self.branch]
        return [layer for layer in layers if layer is not None]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the layer to a tensor; arguments of calls by name."""
        chain.check_arguments(self, kwargs)
        return super().__call__(*args, **kwargs)

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        mask: Any = None,
        depth_context: DepthContext | None = None,
        **arguments: Any,
    ) -> Any:
        """Returns the merged paths; `depth_context` is what a stack gives its blocks."""
        if mask is None and arguments:
            mask = get_keras_mask(inputs)  # with more than one tensor, Keras does not look for it itself
        x = self.preactivated(inputs, training, mask, **arguments)
        branch = self.branch_output(x, training, mask, depth_context, **arguments)
        return self.join(x, branch, training, mask, depth_context, **arguments)

    def preactivated(self, inputs: Any, training: bool | None = None, mask: Any = None, **arguments: Any) -> Any:
        """Returns what goes to both paths: `preactivation(inputs)`."""
        return chain.apply_all(self.preactivation or (), inputs, training, mask, mask, arguments)

    def branch_output(
        self,
        inputs: Any,
        training: bool | None = None,
        mask: Any = None,
        depth_context: DepthContext | None = None,
        **arguments: Any,
    ) -> Any:
        """Returns what the branch adds, `drop_path(branch_scale * norm_out(F(norm_pre(inputs))))`.

        Args:
            inputs: The output of the preactivation, or the layer's input where it has none.
            training: Whether drop path, dropout and norms act as in training.
            mask: Mask of a sequence, `(batch, time)`.
            depth_context: What a stack gives its blocks.
            **arguments: Call arguments of the layers in the branch.
        """
        context = depth_context or _NO_CONTEXT
        # A branch that changes the time axis leaves the mask behind at its first layer.
        inner = mask if self._keeps_time else None
        x = chain.apply(self.pre_norm, _scaled(inputs, context.branch_input_scale), training, mask, arguments)
        x = chain.apply_all(self.branch, x, training, mask, inner, arguments)
        for part in (self.out_norm, self.branch_scale_layer):
            x = chain.apply(part, x, training, inner, arguments)
        x = _scaled(x, context.branch_scale)
        if context.drop_path_rate is None or self.drop_path is None:
            return chain.apply(self.drop_path, x, training)
        return self.drop_path.drop(x, context.drop_path_rate) if training else x

    def join(
        self,
        inputs: Any,
        branch: Any,
        training: bool | None = None,
        mask: Any = None,
        depth_context: DepthContext | None = None,
        **arguments: Any,
    ) -> Any:
        """Returns `activation(norm_post(merge(skip_scale * S(inputs), branch)))`; arguments as in `branch_output`."""
        context = depth_context or _NO_CONTEXT
        inner = mask if self._keeps_time else None
        skip = self._shortcut(inputs, training, mask, arguments)
        skip = chain.apply(self.skip_scale_layer, skip, training, inner, arguments)
        merged = self._merge(_scaled(skip, context.skip_scale), branch, training)
        outputs = chain.apply(self.post_norm, merged, training, inner, arguments)
        if self.activation is None or isinstance(self.activation, keras.Layer):
            return chain.apply(self.activation, outputs, training, inner, arguments)
        last = self.merge_layer if self.post_norm is None else self.post_norm
        return direct.activate(self.activation, outputs, last)

    def _shortcut(self, inputs: Any, training: bool | None, mask: Any, arguments: chain.Arguments) -> Any:
        layer: Any = self.shortcut_layer
        if type(layer) is ProjectionShortcut and mask is None and direct.is_plain(layer, inputs, training):
            return layer.call(inputs, training=training)
        return chain.apply(layer, inputs, training, mask, arguments)

    def _merge(self, skip: Any, branch: Any, training: bool | None) -> Any:
        if not self._merges_directly:
            if self._needs_equal_shapes:
                branch = not_broadcast(owner_of(self), skip, branch)
            return chain.apply(self.merge_layer, [skip, branch], training)
        # Keras spends more on a layer's `__call__` than eager PyTorch on a sum; of that only the cast is needed here.
        dtype = self.compute_dtype
        pair = [x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype) for x in (skip, branch)]
        return self.merge_layer.call(pair)

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the symbolic output, and sees to it that Keras can walk through the graph at any depth."""
        make_room(owner_of(self), inputs)
        return super().compute_output_spec(inputs, *args, **kwargs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the merged paths; builds the layer if that has not happened."""
        if not self.built:
            self.build(input_shape)
        shape = shapes.chain_output_shape(self.preactivation or (), tuple(input_shape))
        branch_shape = shapes.chain_output_shape(self._branch_path(), shape)
        skip_shape = shape if self.shortcut_layer is None else shapes.output_shape(self.shortcut_layer, shape)
        return tuple(self.merge_layer.compute_output_shape([skip_shape, branch_shape]))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns the mask, or None where the time axis has changed."""
        return previous_mask if self._keeps_time else None


def _scaled(tensor: Any, factor: Any) -> Any:
    """Returns the product with a factor of the context, a number or a scalar tensor; None stands for 1."""
    if factor is None or isinstance(factor, float):
        return chain.apply(factor, tensor, None)
    return tensor * ops.cast(factor, tensor.dtype)


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, list(sizes)[:3]))
