"""One residual connection around any branch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import keras
from keras import ops

from keras_residual._errors import bad_argument, shape_mismatch
from keras_residual.layers import arguments, shapes
from keras_residual.layers._checks import owner_of
from keras_residual.layers.drop_path import DropPath
from keras_residual.layers.merges import MERGES, Merge
from keras_residual.layers.norms import make_norm
from keras_residual.layers.scales import NAMED_FACTORS, SCALES, LayerScale
from keras_residual.layers.serialization import deserialize, register, serialize
from keras_residual.layers.shapes import Shape
from keras_residual.layers.shortcuts import SHORTCUTS, Shortcut


@register
class Residual(keras.layers.Layer):
    """Adds the output of a branch to its input: `y = x + F(x)`, with every part of the connection as a choice.

    In full, for the branch `F` and the shortcut `S`:

        y = activation(norm_post(merge(skip_scale * S(x), drop_path(branch_scale * norm_out(F(norm_pre(x)))))))

    Args:
        branch: The residual function `F`: a layer, or a list of layers applied in order. One tensor in, one out.
        shortcut: What the skip path does: `"identity"`, `"projection"`, `"zero_pad"`, `"avg_pool"`, or a layer.
            `"auto"` is the identity where shapes agree, else a projection. Filters and strides that a shortcut leaves
            open are inferred from the branch.
        merge: How the two paths meet: a name of `MERGES` (`"add"`, `"concat"`, `"highway"`, `"gru"`, …) or a layer
            called with `[skip, branch]`.
        branch_scale: Factor on the branch: a number, `"inverse_sqrt_2"`, `"skip_init"` (`"rezero"`), `"layer_scale"`,
            `"fixup"`, or a layer.
        skip_scale: Factor on the skip path, of the same kinds; `keras_residual.depth_rules` has DeepNorm's and Keel's.
        norm: A norm's name (`"batch_norm"`, `"layer_norm"`, `"group_norm"`, `"rms_norm"`) or a norm layer. Where
            more than one place needs it, each has a copy of its own.
        norm_position: `"pre"` (before the branch), `"out"` (on the branch's output), `"post"` (after the merge),
            `"peri"` (pre and out), or a sequence of these, such as `("pre", "post")` for Keel.
        drop_path_rate: Probability in `[0, 1)` that the branch of a sample is dropped in training (stochastic depth).
        activation: Activation after the merge, as ResNet v1 has it: a name, a function or a layer.
        name: Name of the layer.
        **kwargs: What every Keras layer takes, such as `dtype` and `trainable`.

    Call arguments:
        inputs: Tensor of shape `(batch, …, channels)`, or `(batch, channels, …)` where the branch is channels_first.
        training: Whether drop path, dropout and norms act as in training.
        mask: Mask of a sequence, `(batch, time)`; it reaches every part, and comes out where the time
            axis is kept.

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
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        owner = owner_of(self)
        self.branch = arguments.as_branch(owner, branch)
        arguments.check_name_or_layer(owner, "shortcut", shortcut, ["auto", "identity", *SHORTCUTS])
        arguments.check_name_or_layer(owner, "merge", merge, MERGES)
        scales = [*SCALES, *NAMED_FACTORS]
        arguments.check_scale(owner, "branch_scale", branch_scale, scales)
        arguments.check_scale(owner, "skip_scale", skip_scale, scales)
        self._norm_positions = arguments.as_norm_positions(owner, norm, norm_position)
        arguments.check_not_shared(
            owner,
            self.branch,
            shortcut=shortcut,
            merge=merge,
            branch_scale=branch_scale,
            skip_scale=skip_scale,
            norm=norm,
            activation=activation,
        )
        self.shortcut = shortcut
        self.merge = merge
        self.branch_scale = branch_scale
        self.skip_scale = skip_scale
        self.norm = norm
        self.norm_position = norm_position if isinstance(norm_position, str) else tuple(norm_position)
        self.drop_path_rate = arguments.check_rate(owner, "drop_path_rate", drop_path_rate)
        self.activation = arguments.as_activation(owner, activation)
        self.supports_masking = True

    # --- Building: every choice becomes a layer, a number, or None ---------------------------------------------------

    def build(self, input_shape: Shape) -> None:
        """Builds the branch, infers the shortcut and checks that both paths can be merged."""
        if not input_shape or not all(size is None or isinstance(size, int) for size in input_shape):
            rule = "one tensor of shape (batch, …, channels)"
            raise bad_argument(
                owner_of(self), "inputs", rule, input_shape, "Merge several tensors, or choose one, before."
            )
        shape = (None, *input_shape[1:])
        axis = shapes.channel_axis(self.branch, len(shape))
        if len(shape) < 2 or shape[axis] is None:
            rule = "a tensor (batch, …, channels) with a known number of channels"
            raise bad_argument(owner_of(self), "inputs", rule, tuple(input_shape))

        self._pre_norm = self._make_norm("pre", shape, axis)
        branch_shape = self._build_branch(shape)
        self._out_norm = self._make_norm("out", branch_shape, axis)
        self._branch_scale = self._make_scale("branch_scale", branch_shape, axis)
        self._drop_path = None
        if self.drop_path_rate:
            self._drop_path = DropPath(self.drop_path_rate, name="drop_path", dtype=self.dtype_policy)
            self._drop_path.build(branch_shape)

        self._merge = (
            MERGES[self.merge](axis=axis, name="merge", dtype=self.dtype_policy)
            if isinstance(self.merge, str)
            else self.merge
        )
        self._shortcut = self._make_shortcut(shape, branch_shape, axis)
        skip_shape = shape if self._shortcut is None else shapes.output_shape(self._shortcut, shape)
        self._skip_scale = self._make_scale("skip_scale", skip_shape, axis)
        merged_shape = self._build_merge(skip_shape, branch_shape)
        self._post_norm = self._make_norm("post", merged_shape, axis)
        if isinstance(self.activation, keras.Layer) and not self.activation.built:
            self.activation.build(merged_shape)

    def _build_branch(self, shape: Shape) -> Shape:
        tensor = keras.KerasTensor(shape, dtype=self.compute_dtype)
        for layer in self.branch:
            outputs = self._build_branch_layer(layer, tensor)
            if not isinstance(outputs, keras.KerasTensor):
                what = "None" if outputs is None else f"a {type(outputs).__name__} of {len(outputs)}"
                raise ValueError(
                    f"{owner_of(self)}: `branch` must return one tensor, but its layer {layer.name!r} "
                    f"({type(layer).__name__}) returned {what}. Wrap it in one that returns the tensor to be merged."
                )
            tensor = outputs
        return tuple(tensor.shape)

    def _build_branch_layer(self, layer: keras.Layer, tensor: keras.KerasTensor) -> Any:
        was_built, built_for = layer.built, (layer.get_build_config() or {}).get("input_shape")
        what = f"{owner_of(self)}: `branch` has a layer, {layer.name!r} ({type(layer).__name__}), that"
        try:
            # A symbolic call builds any layer, also one that has no `build`, and checks its input.
            outputs = layer(tensor)
            if was_built:
                # A layer with weights for another shape may only notice it in its `call`.
                keras.Operation.compute_output_spec(layer, tensor)
        except Exception as error:
            if was_built:
                raise ValueError(
                    f"{what} was already built for another input{f' {built_for}' if built_for else ''} and cannot take "
                    f"one of shape {tuple(tensor.shape)}. Pass a new layer."
                ) from error
            raise ValueError(
                f"{what} cannot be called on one tensor of shape {tuple(tensor.shape)}, or does not return one tensor: "
                f"{error}"
            ) from error
        return outputs

    def _make_norm(self, position: str, shape: Shape, axis: int) -> keras.Layer | None:
        if position not in self._norm_positions:
            return None
        norm = self.norm
        # The first place takes the user's own layer, so that what they hold is what is trained.
        if not isinstance(norm, keras.Layer) or position != self._norm_positions[0]:
            norm = make_norm(
                norm, channels=int(shape[axis] or 0), axis=axis, name=f"{position}_norm", dtype=self.dtype_policy
            )
        if not norm.built:
            norm.build(shape)
        return norm

    def _make_scale(self, argument: str, shape: Shape, axis: int) -> keras.Layer | float | None:
        value = getattr(self, argument)
        if isinstance(value, str):
            if value in NAMED_FACTORS:
                return NAMED_FACTORS[value]
            scale_class = SCALES[value]
            keywords = {"axis": axis} if scale_class is LayerScale else {}
            value = scale_class(**keywords, name=argument, dtype=self.dtype_policy)
        if isinstance(value, keras.Layer) and not value.built:
            value.build(shape)
        return value

    def _make_shortcut(self, shape: Shape, branch_shape: Shape, axis: int) -> keras.Layer | None:
        shortcut = self.shortcut
        if isinstance(shortcut, keras.Layer) and not isinstance(shortcut, Shortcut):
            shortcut(keras.KerasTensor(shape, dtype=self.compute_dtype))
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
        strides = tuple(shapes.infer_stride(pairs) for pairs in sizes)
        keeps_size = set(strides) <= {1}
        equal_channels = shape[axis] == branch_shape[axis] or not self._needs_equal_shapes
        if keeps_size and equal_channels and (shortcut == "auto" or not getattr(shortcut, "always", True)):
            return None
        if None in strides and getattr(shortcut, "strides", None) is None:
            raise self._no_stride(shape, branch_shape, sizes[strides.index(None)])
        if isinstance(shortcut, str):
            name = "projection" if shortcut == "auto" else shortcut
            shortcut = SHORTCUTS[name](name="shortcut", dtype=self.dtype_policy)
        filters = branch_shape[axis] if self._needs_equal_shapes else shape[axis]
        shortcut.infer(filters=filters, strides=tuple(s or 1 for s in strides), axis=axis)
        if not shortcut.built:
            shortcut.build(shape)
        return shortcut

    @property
    def _needs_equal_shapes(self) -> bool:
        return getattr(self._merge, "needs_equal_shapes", not isinstance(self._merge, keras.layers.Concatenate))

    def _no_stride(self, shape: Shape, branch_shape: Shape, pairs: list[tuple[int, int]]) -> ValueError:
        return shape_mismatch(
            owner_of(self),
            "the input",
            shape,
            "the branch's output",
            branch_shape,
            f"No shortcut can be inferred, since no whole stride takes a size of {pairs[0][0]} to {pairs[0][1]}. Pass "
            "padding='same' to the branch's layers, or `shortcut=` a layer that makes the branch's shape, such as a "
            "cropping or an upsampling layer.",
        )

    def _build_merge(self, skip_shape: Shape, branch_shape: Shape) -> Shape:
        if self._needs_equal_shapes and isinstance(self._merge, Merge) and skip_shape[1:] != branch_shape[1:]:
            known = zip(skip_shape[1:], branch_shape[1:], strict=False)
            if len(skip_shape) != len(branch_shape) or any(None not in pair and pair[0] != pair[1] for pair in known):
                raise shape_mismatch(
                    owner_of(self),
                    "the shortcut's output",
                    skip_shape,
                    "the branch's output",
                    branch_shape,
                    "Pass shortcut='projection', or a layer that makes the branch's shape.",
                )
        pair = [skip_shape, branch_shape]
        if not self._merge.built:
            self._merge.build(pair)
        self._merges_directly = isinstance(self.merge, str) and not self._merge.weights
        return tuple(self._merge.compute_output_shape(pair))

    # --- Calling -----------------------------------------------------------------------------------------------------

    def _branch_path(self) -> list[keras.Layer]:
        layers = [self._pre_norm, *self.branch]
        return [layer for layer in layers if layer is not None]

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Returns the merged paths."""
        branch = inputs
        for part in (self._pre_norm, *self.branch, self._out_norm, self._branch_scale, self._drop_path):
            branch = _apply(part, branch, training, mask)
        skip = _apply(self._shortcut, inputs, training, mask)
        skip = _apply(self._skip_scale, skip, training, mask)
        outputs = self._merged(skip, branch, training)
        outputs = _apply(self._post_norm, outputs, training, mask)
        if isinstance(self.activation, keras.Layer) or self.activation is None:
            return _apply(self.activation, outputs, training, mask)
        return self.activation(outputs)

    def _merged(self, skip: Any, branch: Any, training: bool | None) -> Any:
        if not self._merges_directly:
            return _apply(self._merge, [skip, branch], training, None)
        # Keras spends more on a layer's `__call__` than eager PyTorch on a sum; of that only the cast is needed here.
        return self._merge.call([self._cast(skip), self._cast(branch)])

    def _cast(self, tensor: Any) -> Any:
        dtype = self.compute_dtype
        return tensor if keras.backend.standardize_dtype(tensor.dtype) == dtype else ops.cast(tensor, dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the merged paths; builds the layer if that has not happened."""
        if not self.built:
            self.build(input_shape)
        branch_shape = shapes.chain_output_shape(self._branch_path(), tuple(input_shape))
        skip_shape = tuple(input_shape)
        if self._shortcut is not None:
            skip_shape = shapes.output_shape(self._shortcut, skip_shape)
        return tuple(self._merge.compute_output_shape([skip_shape, branch_shape]))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns the mask, or None where the time axis has changed."""
        if previous_mask is None or self.compute_output_shape(inputs.shape)[1] != inputs.shape[1]:
            return None
        return previous_mask

    # --- Configuration -----------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Returns every argument as it was given; layers as Keras serialises them."""
        activation = self.activation
        if activation is not None and not isinstance(activation, keras.Layer):
            activation = keras.activations.serialize(activation)
        return {
            **super().get_config(),
            "branch": serialize(self.branch),
            "shortcut": serialize(self.shortcut),
            "merge": serialize(self.merge),
            "branch_scale": serialize(self.branch_scale),
            "skip_scale": serialize(self.skip_scale),
            "norm": serialize(self.norm),
            "norm_position": serialize(self.norm_position),
            "drop_path_rate": self.drop_path_rate,
            "activation": serialize(activation),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Residual:
        """Makes the layer from `get_config`'s dictionary."""
        nested = ("branch", "shortcut", "merge", "branch_scale", "skip_scale", "norm", "activation")
        return super().from_config({**config, **{key: deserialize(config[key]) for key in nested}})


def _apply(part: keras.Layer | float | None, tensor: Any, training: bool | None, mask: Any) -> Any:
    """Applies a layer with what its `call` takes, multiplies by a number, or does nothing."""
    if part is None:
        return tensor
    if not isinstance(part, keras.Layer):
        return tensor * part
    takes_training, takes_mask = _call_takes(type(part).call)
    arguments_taken: dict[str, Any] = {}
    # Given by hand, and not left to the call context, which `stateless_call` does not set up.
    if takes_training and training is not None:
        arguments_taken["training"] = training
    if takes_mask and mask is not None and tensor.shape[: len(mask.shape)] == mask.shape:
        arguments_taken["mask"] = mask
    return part(tensor, **arguments_taken)


@cache
def _call_takes(call: Callable[..., Any]) -> tuple[bool, bool]:
    parameters = inspect.signature(call).parameters
    return "training" in parameters, "mask" in parameters
