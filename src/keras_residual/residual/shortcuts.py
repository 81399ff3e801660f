"""Shortcuts: what the skip path does where the branch changes the shape."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import keras
from keras import ops

from keras_residual._arguments import owner_of
from keras_residual._errors import bad_argument, unknown_name
from keras_residual._types import Shape, Tensor
from keras_residual.residual import chain
from keras_residual.residual.configured import Configured, Untracked
from keras_residual.residual.norms import NORMS, make_norm
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import Resampling, data_format_of, spatial_axes
from keras_residual.residual.symmetric_conv import SymmetricConv2D


class Shortcut(Configured):
    """Maps an input to the channels and spatial size of a branch. Abstract.

    `filters` and `strides` may be left open: `Residual` infers them from the branch when it is built. If the branch
    drops an incomplete last window (`padding="valid"`), so does the shortcut; if the branch upsamples by a whole
    factor, the shortcut repeats each position.

    Args:
        filters: Number of output channels, at least 1, or None to be inferred.
        strides: A positive integer, or one per spatial axis; None to be inferred.
        always: Whether the shortcut applies even if the input already has the branch's shape; otherwise the identity
            does.
        data_format: `"channels_last"` or `"channels_first"`, or None to be inferred
            (without a `Residual`: `keras.config.image_data_format()`).
    """

    def __init__(
        self,
        filters: int | None = None,
        strides: int | tuple[int, ...] | None = None,
        *,
        always: bool = True,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        if filters is not None and (isinstance(filters, bool) or not isinstance(filters, int) or filters < 1):
            raise bad_argument(owner, "filters", "a positive whole number or None", filters)
        each = strides if isinstance(strides, (tuple, list)) else (strides,)
        if strides is not None and not all(isinstance(s, int) and s >= 1 for s in each):
            raise bad_argument(owner, "strides", "positive whole numbers or None", strides)
        if data_format not in (None, "channels_first", "channels_last"):
            raise unknown_name(owner, "data_format", str(data_format), ["channels_first", "channels_last"])
        self.filters = filters
        self.strides = tuple(strides) if isinstance(strides, list) else strides
        self.always = always
        self.data_format = data_format
        self._inferred = _Inferred(filters, (), data_format)

    def infer(self, *, filters: int | None, resampling: Sequence[Resampling | None], axis: int) -> None:
        """Infers what was left open.

        Args:
            filters: Number of output channels of the branch.
            resampling: How the branch changes each spatial axis; None where no rule describes that.
            axis: Axis of the channels, 1 or -1.
        """
        given = self._given_strides(len(resampling))
        chosen = tuple(
            found or Resampling()
            if stride is None
            else found
            if found and found.stride == stride
            else Resampling(stride)
            for stride, found in zip(given, resampling, strict=True)
        )
        inferred = _Inferred(self.filters or filters, chosen, data_format_of(axis))
        if self.built and inferred != self._inferred:
            raise ValueError(
                f"{owner_of(self)}: already serves another connection, with {self._inferred}, and cannot serve one "
                f"with {inferred}. Create a second shortcut."
            )
        self._inferred = inferred

    def build(self, input_shape: Shape) -> None:
        """Checks that nothing is left open and creates the sub-layers."""
        owner = owner_of(self)
        filters, _, data_format = self._inferred
        if filters is None:
            raise bad_argument(
                owner, "filters", "a positive whole number", None, "Outside a Residual nothing can infer it."
            )
        rank = len(input_shape)
        axes = spatial_axes(rank, self._axis(rank))
        if isinstance(self.strides, tuple) and len(self.strides) != len(axes):
            rule = f"one number or {len(axes)} of them, for the input shape {tuple(input_shape)}"
            raise bad_argument(owner, "strides", rule, self.strides)
        self._inferred = _Inferred(filters, self._resampling(rank), data_format)
        self._make(tuple(input_shape))

    @abstractmethod
    def _make(self, input_shape: Shape) -> None:
        """Creates the sub-layers; `filters`, `strides` and rank have been checked."""

    @abstractmethod
    def shorten(self, inputs: Tensor, training: bool | None) -> Tensor:
        """Returns the inputs with `filters` channels, and each spatial size `n` as `ceil(n / stride)`."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the inputs in the shape of the branch."""
        axes = spatial_axes(len(inputs.shape), self._axis(len(inputs.shape)))
        places = list(zip(axes, self._inferred.resampling, strict=True))
        windows = [slice(None)] * len(inputs.shape)
        for axis, change in places:
            if change.floor:
                size = cast(Any, ops.shape(inputs))[axis]
                windows[axis] = slice(size // change.stride * change.stride)
        if any(change.floor for _, change in places):
            inputs = inputs[tuple(windows)]
        outputs = self.shorten(inputs, training)
        for axis, change in places:
            if change.repeats > 1:
                outputs = ops.repeat(outputs, change.repeats, axis=axis)
        return outputs

    def _axis(self, rank: int) -> int:
        data_format = self._inferred.data_format or keras.config.image_data_format()
        return 1 if data_format == "channels_first" and rank > 2 else -1

    def _given_strides(self, axes: int) -> tuple[int | None, ...]:
        return self.strides if isinstance(self.strides, tuple) else (self.strides,) * axes

    def _resampling(self, rank: int) -> tuple[Resampling, ...]:
        alone = (Resampling(stride or 1) for stride in self._given_strides(len(spatial_axes(rank, -1))))
        return self._inferred.resampling or tuple(alone)

    @property
    def _strides(self) -> tuple[int, ...]:
        return tuple(change.stride for change in self._inferred.resampling)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the input's shape with `filters` channels and the spatial sizes of the branch."""
        axis = self._axis(len(input_shape))
        shape = list(input_shape)
        for spatial, change in zip(spatial_axes(len(shape), axis), self._resampling(len(shape)), strict=True):
            size = shape[spatial]
            shape[spatial] = None if size is None else change.size(size)
        shape[axis] = self._inferred.filters
        return tuple(shape)

    def compute_mask(self, inputs: Tensor, previous_mask: Any) -> Any:
        """Returns the mask if every step of the sequence is kept, else None."""
        return previous_mask if all(change.keeps_size for change in self._resampling(len(inputs.shape))) else None


class _Inferred(NamedTuple):
    """What was inferred from the branch."""

    filters: int | None
    resampling: tuple[Resampling, ...]
    data_format: str | None

    def __str__(self) -> str:
        return f"{self.filters} filters, {self.data_format}, sizes ({', '.join(map(str, self.resampling))})"


class _NormedProjection(Shortcut):
    """A shortcut that ends in a learned projection and, optionally, a norm. Abstract."""

    def __init__(
        self,
        filters: int | None = None,
        strides: int | tuple[int, ...] | None = None,
        *,
        norm: str | keras.Layer | None = None,
        use_bias: bool | None = None,
        kernel_initializer: Any = "he_normal",
        always: bool = True,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, strides, always=always, data_format=data_format, **kwargs)
        if isinstance(norm, str) and norm not in NORMS:
            raise unknown_name(type(self).__name__, "norm", norm, NORMS)
        self._given_norm = Untracked(norm)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    @property
    def norm(self) -> str | keras.Layer | None:
        """The norm as it was given; `projection_norm` is its copy, which is used."""
        return self._given_norm.value

    def _make_projection(self, input_shape: Shape, strides: tuple[int, ...]) -> None:
        rank = len(input_shape)
        axis = self._axis(rank)
        filters = int(self._inferred.filters or 0)
        arguments: dict[str, Any] = {
            "use_bias": self.norm is None if self.use_bias is None else self.use_bias,
            "kernel_initializer": self.kernel_initializer,
            "name": "projection",
            "dtype": self.dtype_policy,
        }
        # On vectors and sequences without strides, Dense is the same map and passes masks on.
        if axis == -1 and (rank not in (4, 5)) and set(strides) <= {1}:
            projection = keras.layers.Dense(filters, **arguments)
        elif rank == 4 and len(set(strides)) == 1:
            projection = SymmetricConv2D(filters, 1, strides=strides[0], data_format=data_format_of(axis), **arguments)
        else:
            convolution = {3: keras.layers.Conv1D, 4: keras.layers.Conv2D, 5: keras.layers.Conv3D}[rank]
            projection = convolution(filters, 1, strides=strides, data_format=data_format_of(axis), **arguments)
        self.projection = self._made("projection", projection)
        self.projection.build(input_shape)
        self.projection_norm = None
        if self.norm is not None:
            norm = make_norm(self.norm, channels=filters, axis=axis, name="norm", dtype=self.dtype_policy)
            self.projection_norm = self._made("projection_norm", norm)
            self.projection_norm.build(self.projection.compute_output_shape(input_shape))

    def _project(self, inputs: Tensor, training: bool | None) -> Any:
        return chain.apply([self.projection, self.projection_norm], inputs, training)


@register
class ProjectionShortcut(_NormedProjection):
    """A learned linear map: `S(x) = N(W x)`, by a Dense layer or a 1×1 convolution with strides.

    Dense on vectors and on sequences without strides, else a 1×1 convolution in 1, 2 or 3 dimensions. With the
    identity matrix it is the identity. Used where shapes change, it is option B of the paper; everywhere, option C.

    Args:
        filters: Number of output channels, at least 1, or None to be inferred by `Residual`.
        strides: A positive integer, or one per spatial axis, or None to be inferred by `Residual` (otherwise 1).
        norm: Norm after the projection: a name (`"batch_norm"` …) or a layer to copy; None for none.
        use_bias: Whether the projection has a bias; None: only if no norm follows.
        kernel_initializer: Initializer of `W`.
        always: Whether to project even if the input already has the branch's shape (option C of the paper); with False,
            `Residual` uses the identity there (option B).
        data_format: `"channels_last"`, `"channels_first"`, or None to be inferred.

    Input shape:
        `(batch, …, channels)` of rank 2 to 5.

    Output shape:
        `(batch, …, filters)`, each spatial size `n` as `ceil(n / stride)`.

    Raises:
        ValueError: For a filter count or a stride under 1, an unknown norm, or `filters` still open at build time.

    Example:
        >>> kr.ProjectionShortcut(32, strides=2)(np.zeros((1, 8, 8, 16))).shape
        (1, 4, 4, 32)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, eq. 2
    """

    def _make(self, input_shape: Shape) -> None:
        self._make_projection(input_shape, self._strides)

    def shorten(self, inputs: Tensor, training: bool | None) -> Tensor:
        """Returns the projection of the inputs."""
        return self._project(inputs, training)


@register
class AvgPoolShortcut(_NormedProjection):
    """Average pooling, then a projection without strides: `S(x) = N(W AvgPool(x))`, the shortcut of ResNet-D.

    A strided 1×1 convolution ignores three quarters of a map; with pooling before it, every input counts. Where the
    size is not divisible, a window at the edge averages the inputs that it covers.

    Args:
        filters: Number of output channels, at least 1, or None to be inferred by `Residual`.
        strides: Size and stride of the pooling, or None to be inferred by `Residual` (otherwise 1, no pooling).
        norm: Norm after the projection: a name (`"batch_norm"` …) or a layer to copy; None for none.
        use_bias: Whether the projection has a bias; None: only if no norm follows.
        kernel_initializer: Initializer of `W`.
        always: Whether to project even if the input already has the branch's shape (option C of the paper); with False,
            `Residual` uses the identity there (option B).
        data_format: `"channels_last"`, `"channels_first"`, or None to be inferred.

    Input shape:
        `(batch, …, channels)` of rank 3 to 5; at rank 2 it is just a projection.

    Output shape:
        `(batch, …, filters)`, each spatial size `n` as `ceil(n / stride)`.

    Raises:
        ValueError: For a filter count or a stride under 1, an unknown norm, or `filters` still open at build time.

    Example:
        >>> kr.AvgPoolShortcut(32, strides=2)(np.zeros((1, 8, 8, 16))).shape
        (1, 4, 4, 32)

    Reference:
        He et al., Bag of Tricks for Image Classification with Convolutional Neural Networks, 2018.
        https://arxiv.org/abs/1812.01187, figure 2c
    """

    def _make(self, input_shape: Shape) -> None:
        rank = len(input_shape)
        strides = self._strides
        self.pool = None
        if set(strides) - {1}:
            pooling = {
                3: keras.layers.AveragePooling1D,
                4: keras.layers.AveragePooling2D,
                5: keras.layers.AveragePooling3D,
            }
            pool = pooling[rank](
                strides,
                strides=strides,
                padding="same",
                data_format=data_format_of(self._axis(rank)),
                name="pool",
                dtype=self.dtype_policy,
            )
            self.pool = self._made("pool", pool)
            input_shape = self.pool.compute_output_shape(input_shape)
        self._make_projection(input_shape, (1,) * len(strides))

    def shorten(self, inputs: Tensor, training: bool | None) -> Tensor:
        """Returns the projection of the pooled inputs."""
        return self._project(inputs if self.pool is None else self.pool(inputs), training)


@register
class ZeroPadShortcut(Shortcut):
    """Takes every stride-th position and pads the channels with zeros: option A of the paper, without parameters.

    In the added channels, the output of `Residual` is that of the branch.

    Args:
        filters: Number of output channels, at least the input's, or None to be inferred by `Residual`.
        strides: A positive integer, or one per spatial axis, or None to be inferred by `Residual` (otherwise 1).
        pad: Where to pad: `"end"` (after the channels, as the Torch implementations of the paper have it) or
            `"both"` (half before and half after, as the common PyTorch CIFAR checkpoints need).
        always: As in the other shortcuts; where shapes agree, nothing is padded either way.
        data_format: `"channels_last"`, `"channels_first"`, or None to be inferred.

    Input shape:
        `(batch, …, channels)` of rank 2 to 5.

    Output shape:
        `(batch, …, filters)`, each spatial size `n` as `ceil(n / stride)`.

    Raises:
        ValueError: If `filters` is smaller than the number of input channels.

    Example:
        >>> kr.ZeroPadShortcut(3)(np.ones((1, 2))).shape
        (1, 3)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, section 3.3
    """

    def __init__(
        self,
        filters: int | None = None,
        strides: int | tuple[int, ...] | None = None,
        *,
        pad: str = "end",
        always: bool = True,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, strides, always=always, data_format=data_format, **kwargs)
        if pad not in ("end", "both"):
            raise unknown_name("ZeroPadShortcut", "pad", pad, ["end", "both"])
        self.pad = pad

    def _make(self, input_shape: Shape) -> None:
        channels = input_shape[self._axis(len(input_shape))]
        if channels is None or int(self._inferred.filters or 0) < channels:
            raise bad_argument(
                owner_of(self),
                "filters",
                f"at least the number of input channels, {channels}",
                self._inferred.filters,
                "Zeros can only be added: use a projection for fewer channels.",
            )

    def shorten(self, inputs: Tensor, training: bool | None) -> Tensor:
        """Returns every stride-th position of the inputs, padded with channels of zeros."""
        rank = len(inputs.shape)
        axis = self._axis(rank) % rank
        windows = [slice(None)] * rank
        for spatial, stride in zip(spatial_axes(rank, self._axis(rank)), self._strides, strict=True):
            windows[spatial] = slice(None, None, stride)
        added = int(self._inferred.filters or 0) - inputs.shape[axis]
        before = added // 2 if self.pad == "both" else 0
        padding = [(before, added - before) if i == axis else (0, 0) for i in range(rank)]
        return ops.pad(inputs[tuple(windows)], padding)


SHORTCUTS: MappingProxyType[str, type[Shortcut]] = MappingProxyType(
    {"projection": ProjectionShortcut, "zero_pad": ZeroPadShortcut, "avg_pool": AvgPoolShortcut}
)
"""Names that `shortcut=` takes, beside `"auto"` and `"identity"`."""
