"""Architectures as data, and what a user chooses besides; each class checks its own rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_residual._arguments import share
from keras_residual._errors import bad_argument, unknown_name

V1_BLOCKS = ("basic", "bottleneck", "res2net", "resnest", "sk_basic", "sk_bottleneck")
V2_BLOCKS = ("basic", "bottleneck")
STEMS = ("conv7", "deep", "deep_tiered", "conv3")
NORMS = ("batch_norm", "group_norm", "evonorm_s0", "filter_response_norm")
CONVOLUTIONS = ("plain", "standardized")
OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig:
    """Architecture of a ResNet v1: a stem, stages of residual blocks, global pooling and a linear head.

    The defaults are the ImageNet ResNet of the paper, with the stride in the 3×3 convolution.

    Args:
        block: `"basic"`, `"bottleneck"`, `"res2net"`, `"resnest"`, `"sk_basic"` or `"sk_bottleneck"`, or a tuple with
            one of these for each stage.
        depths: Number of blocks in each stage; every stage after the first halves the feature map.
        widths: Filters in each stage, before the bottleneck expands them by 4.
        rank: Number of spatial dimensions: 1, 2 or 3.
        stem: `"conv7"`: one 7-wide convolution; `"deep"`: three 3-wide ones; `"deep_tiered"`: three, the first
            narrower; all of these have stride 2. `"conv3"`: one 3-wide convolution of stride 1, for small pictures.
        stem_filters: Filters after the stem.
        stem_pool: `"max"`, `"max_ceil"` (as in Caffe), `"conv"` (a convolution of stride 2 instead), or `"none"`.
        cardinality: Groups of the bottleneck's 3×3 convolution (ResNeXt).
        base_width: Channels of a group for every 64 of the stage's width: the inner width is
            `width * base_width / 64 * cardinality`.
        reduce_first: Divisor of the width of each block's first convolution.
        strides_first: Whether a bottleneck strides in its first, 1-wide convolution (as in Caffe) instead of the
            second.
        shortcut: What happens where the shape changes: `"projection"` (option B), `"avg_pool"` (an average, then a
            projection: ResNet-D) or `"zero_pad"` (option A).
        shortcut_kernel_size: Width of a projection that strides, 1 or 3.
        anti_aliasing: `"average"` or `"blur"` after each strided convolution, which then has stride 1; or None.
        attention: `"se"` (squeeze-and-excitation) or `"eca"` (efficient channel attention) at the end of each branch;
            or None.
        se_ratio: Ratio of the channels inside squeeze-and-excitation to those outside.
        se_divisor: The inner channels are rounded to a multiple of this.
        relu_before_attention: Whether an activation precedes the attention, as in Caffe's basic SE blocks.
        scale: Number of parts of `"res2net"`.
        radix: Number of splits of `"resnest"`.
        pool_first: Whether a strided `"resnest"` block averages before its split attention instead of after it.
        sk_split: Whether each path of `"sk_…"` receives only its share of the channels.
        sk_ratio: Ratio of the channels inside its attention to those outside.
        sk_divisor: The inner channels are rounded to a multiple of this.
        norm: `"batch_norm"` or `"group_norm"`.
        zero_init_last: Whether the scale of each block's last norm starts at zero.
        inner_widths: For irregular (pruned) bottlenecks: the filters of the three convolutions of each block of each
            stage. None derives them from `widths`.

    Raises:
        ValueError: If a value breaks its rule; a config that exists can be built.

    Example:
        >>> ResNetConfig(block="basic", depths=(2, 2, 2, 2)).stage_filters
        (64, 128, 256, 512)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385
    """

    preactivation: ClassVar[bool] = False
    # What only a ResNet v2 may choose.
    convolution: ClassVar[str] = "plain"

    block: str | tuple[str, ...] = "bottleneck"
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    rank: int = 2
    stem: str = "conv7"
    stem_filters: int = 64
    stem_pool: str = "max"
    cardinality: int = 1
    base_width: int = 64
    reduce_first: int = 1
    strides_first: bool = False
    shortcut: str = "projection"
    shortcut_kernel_size: int = 1
    anti_aliasing: str | None = None
    attention: str | None = None
    se_ratio: float = 1 / 16
    se_divisor: int = 8
    relu_before_attention: bool = False
    scale: int = 4
    radix: int = 2
    pool_first: bool = False
    sk_split: bool = True
    sk_ratio: float = 1 / 16
    sk_divisor: int = 8
    norm: str = "batch_norm"
    zero_init_last: bool = True
    inner_widths: tuple[tuple[tuple[int, int, int], ...], ...] | None = None

    def __post_init__(self) -> None:
        owner = "ResNetConfig"
        for block in self.blocks:
            _one_of(owner, "block", block, V1_BLOCKS)
        _check_stages(owner, "widths", self.depths, self.widths)
        if len(self.blocks) != len(self.depths):
            raise bad_argument(owner, "block", f"one name, or one a stage, {len(self.depths)} in all", self.block)
        if self.rank not in (1, 2, 3):
            raise bad_argument(owner, "rank", "1, 2 or 3 spatial dimensions", self.rank)
        _one_of(owner, "stem", self.stem, STEMS)
        _one_of(owner, "stem_pool", self.stem_pool, ("max", "max_ceil", "conv", "none"))
        _one_of(owner, "shortcut", self.shortcut, ("projection", "avg_pool", "zero_pad"))
        _one_of(owner, "norm", self.norm, NORMS[:2])
        if self.attention is not None:
            _one_of(owner, "attention", self.attention, ("se", "eca"))
        if self.anti_aliasing is not None:
            _one_of(owner, "anti_aliasing", self.anti_aliasing, ("average", "blur"))
        for argument in ("stem_filters", "cardinality", "base_width", "reduce_first", "se_divisor", "sk_divisor"):
            if getattr(self, argument) < 1:
                raise bad_argument(owner, argument, "a whole number of at least 1", getattr(self, argument))
        if self.rank != 2 and (self.anti_aliasing == "blur" or set(self.blocks) - {"basic", "bottleneck"}):
            raise bad_argument(
                owner, "rank", "2 for blur pools and for blocks other than basic and bottleneck", self.rank
            )
        if self.inner_widths is not None:
            found = tuple(len(stage) for stage in self.inner_widths)
            if found != self.depths or set(self.blocks) != {"bottleneck"}:
                rule = f"three numbers for each bottleneck, {self.depths} blocks in the stages"
                raise bad_argument(owner, "inner_widths", rule, found)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block of each stage."""
        return (self.block,) * len(self.depths) if isinstance(self.block, str) else self.block

    @property
    def stage_filters(self) -> tuple[int, ...]:
        """Number of channels after each stage."""
        if self.inner_widths is not None:
            return tuple(stage[0][2] for stage in self.inner_widths)
        pairs = zip(self.blocks, self.widths, strict=True)
        return tuple(width * (1 if block.endswith("basic") else 4) for block, width in pairs)

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Filters of each convolution of the stem."""
        return _stem_widths(self.stem, self.stem_filters, 3 * (self.stem_filters // 8))

    @property
    def stem_stride(self) -> int:
        """Stride of the feature map that enters the first stage."""
        return _stem_stride(self.stem, self.stem_pool)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetV2Config:
    """Architecture of a ResNet v2: norm and activation precede each convolution, and nothing follows the sum.

    Args:
        block: `"basic"` or `"bottleneck"`.
        depths: Number of blocks in each stage; every stage after the first halves the feature map.
        filters: Channels after each stage.
        expansion: Ratio of a bottleneck's output channels to its inner ones.
        stem: `"conv7"`, `"deep"` or `"deep_tiered"`, with stride 2, or `"conv3"` with stride 1; see `ResNetConfig`.
        stem_filters: Filters after the stem.
        stem_pool: `"max"`, `"max_zero"` (the edge is padded with zeros, which win against negative values, as in Big
            Transfer), or `"none"`.
        shortcut: What happens where the shape changes: `"projection"` or `"avg_pool"`.
        project: Where that happens: at the start of `"each"` stage, or `"where_needed"`, at starts that change the
            shape.
        norm: `"batch_norm"`, `"group_norm"`, `"evonorm_s0"` or `"filter_response_norm"`.
        convolution: `"plain"` or `"standardized"`.
        dropout_rate: Rate in `[0, 1)` of the dropout between a basic block's convolutions (Wide ResNets).
        zero_init_last: Whether the last convolution of each block starts at zero.

    Raises:
        ValueError: If a value breaks its rule; a config that exists can be built.

    Example:
        >>> ResNetV2Config(depths=(3, 4, 6, 3)).filters
        (256, 512, 1024, 2048)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027
        Kolesnikov et al., Big Transfer, 2019. https://arxiv.org/abs/1912.11370
    """

    preactivation: ClassVar[bool] = True
    # What only a ResNet v1 may choose.
    rank: ClassVar[int] = 2
    anti_aliasing: ClassVar[None] = None
    inner_widths: ClassVar[None] = None
    shortcut_kernel_size: ClassVar[int] = 1

    block: str = "bottleneck"
    depths: tuple[int, ...]
    filters: tuple[int, ...] = (256, 512, 1024, 2048)
    expansion: int = 4
    stem: str = "conv7"
    stem_filters: int = 64
    stem_pool: str = "max"
    shortcut: str = "projection"
    project: str = "each"
    norm: str = "batch_norm"
    convolution: str = "plain"
    dropout_rate: float = 0.0
    zero_init_last: bool = False

    def __post_init__(self) -> None:
        owner = "ResNetV2Config"
        known = {
            "block": V2_BLOCKS,
            "stem": STEMS,
            "stem_pool": ("max", "max_zero", "none"),
            "shortcut": ("projection", "avg_pool"),
            "project": ("each", "where_needed"),
            "norm": NORMS,
            "convolution": CONVOLUTIONS,
        }
        for argument, values in known.items():
            _one_of(owner, argument, getattr(self, argument), values)
        _check_stages(owner, "filters", self.depths, self.filters)
        if self.expansion < 1:
            raise bad_argument(owner, "expansion", "a whole number of at least 1", self.expansion)
        if not 0 <= self.dropout_rate < 1:
            raise bad_argument(owner, "dropout_rate", "a rate in [0, 1)", self.dropout_rate)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block of each stage."""
        return (self.block,) * len(self.depths)

    @property
    def stage_filters(self) -> tuple[int, ...]:
        """Number of channels after each stage."""
        return self.filters

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Filters of each convolution of the stem."""
        return _stem_widths(self.stem, self.stem_filters, 3 * self.stem_filters // 8)

    @property
    def stem_stride(self) -> int:
        """Stride of the feature map that enters the first stage."""
        return _stem_stride(self.stem, self.stem_pool)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesResNetConfig:
    """Architecture of the time-series ResNet: blocks of 1-D convolutions, global pooling and a linear head.

    Args:
        filters: Filters of each block.
        kernel_sizes: Widths of the convolutions in each block, in time steps.

    Reference:
        Wang et al., Time Series Classification from Scratch with Deep Neural Networks, 2016.
        https://arxiv.org/abs/1611.06455
    """

    filters: tuple[int, ...] = (64, 128, 128)
    kernel_sizes: tuple[int, ...] = (8, 5, 3)

    def __post_init__(self) -> None:
        for argument, value in (("filters", self.filters), ("kernel_sizes", self.kernel_sizes)):
            if not value or min(value) < 1:
                raise bad_argument("SeriesResNetConfig", argument, "at least one number, each at least 1", value)


@dataclass(frozen=True, kw_only=True, slots=True)
class TabularResNetConfig:
    """Architecture of the tabular ResNet: a linear stem, blocks of two dense layers, and a linear head.

    Args:
        units: Width of the stream.
        depth: Number of blocks.
        hidden_factor: Ratio of the width inside a block to that of the stream.
        hidden_dropout: Dropout rate in `[0, 1)` after a block's activation.
        residual_dropout: Dropout rate in `[0, 1)` at the end of a branch.

    Reference:
        Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, 2021. https://arxiv.org/abs/2106.11959,
        section 3.2
    """

    units: int = 64
    depth: int = 3
    hidden_factor: int = 2
    hidden_dropout: float = 0.2
    residual_dropout: float = 0.0

    def __post_init__(self) -> None:
        for argument in ("units", "depth", "hidden_factor"):
            if getattr(self, argument) < 1:
                raise bad_argument("TabularResNetConfig", argument, "at least 1", getattr(self, argument))
        for argument in ("hidden_dropout", "residual_dropout"):
            if not 0 <= getattr(self, argument) < 1:
                raise bad_argument("TabularResNetConfig", argument, "a rate in [0, 1)", getattr(self, argument))


StagedConfig = ResNetConfig | ResNetV2Config
Config = StagedConfig | SeriesResNetConfig | TabularResNetConfig

_FORMS = {1: "(length, channels)", 2: "(height, width, channels)", 3: "(depth, height, width, channels)"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What a user chooses for a network besides its architecture.

    Args:
        input_shape: `(*sizes, channels)`, or channels first where Keras is set so; sizes may be None.
        num_classes: Number of logits.
        include_top: Whether the model ends in pooling and a head; without them it returns the last feature map.
        features_only: Whether the output is a dictionary of the feature maps of the stem and of each stage.
        drop_path_rate: Rate of the last block, in `[0, 1)`; it rises linearly from 0 at the first.
        drop_block_rate: DropBlock's rate in the last two stages, in `[0, 1)`.
        dropout_rate: Rate in `[0, 1)` of the dropout before the head.
        output_stride: 8, 16 or 32: later strides become dilations. For networks whose stride would be 32.
        execution: How the equal blocks of each stage are executed, see `ResidualStack`; None for `SCANNED_FROM`'s rule.
        remat: Which of their activations are recomputed in the backward pass, see `ResidualStack`.
        name: Name of the model.
        owner: What the user called, for messages.
    """

    input_shape: tuple[int | None, ...]
    num_classes: int
    include_top: bool = True
    features_only: bool = False
    drop_path_rate: float = 0.0
    drop_block_rate: float = 0.0
    dropout_rate: float = 0.0
    output_stride: int = 32
    execution: str | None = None
    remat: bool | str = False
    name: str | None = None
    owner: str = "create_model"

    def __post_init__(self) -> None:
        if isinstance(self.input_shape, list):
            object.__setattr__(self, "input_shape", tuple(self.input_shape))

    def check(self, config: Config) -> None:
        """Raises ValueError if a choice breaks its rule, or this architecture does not offer it."""
        if isinstance(config, StagedConfig):
            self._check_input_shape(_FORMS[config.rank], config.rank + 1)
        else:
            form, length = ("(time, channels)", 2) if isinstance(config, SeriesResNetConfig) else ("(features,)", 1)
            self._check_input_shape(f"{form} for {self.name!r}", length)
            self._check_for_no_pictures()
        if isinstance(self.num_classes, bool) or not isinstance(self.num_classes, int) or self.num_classes < 1:
            rule = "a positive whole number"
            raise bad_argument(self.owner, "num_classes", rule, self.num_classes, "Without a head: include_top=False.")
        for argument in ("drop_path_rate", "drop_block_rate", "dropout_rate"):
            share(self.owner, argument, getattr(self, argument))
        if self.output_stride not in OUTPUT_STRIDES:
            raise bad_argument(self.owner, "output_stride", "8, 16 or 32", self.output_stride)
        if isinstance(config, ResNetV2Config) and self.drop_block_rate:
            rule = "0: DropBlock is not defined for pre-activation blocks"
            raise bad_argument(self.owner, "drop_block_rate", rule, self.drop_block_rate, "Use drop_path_rate.")

    def _check_input_shape(self, form: str, length: int) -> None:
        shape: Any = self.input_shape
        if not isinstance(shape, tuple) or len(shape) != length or not all(map(_is_size, shape)):
            raise bad_argument(self.owner, "input_shape", form, shape)
        channels = 0 if keras.config.image_data_format() == "channels_first" and length > 2 else -1
        if shape[channels] is None:
            raise bad_argument(self.owner, "input_shape", f"{form} with a known number of channels", shape)

    def _check_for_no_pictures(self) -> None:
        for argument in ("include_top", "features_only", "drop_block_rate", "dropout_rate", "output_stride"):
            default = type(self).__dataclass_fields__[argument].default
            if getattr(self, argument) != default:
                rule = f"{default} for {self.name!r}, which does not take pictures"
                raise bad_argument(self.owner, argument, rule, getattr(self, argument))


def _check_stages(owner: str, argument: str, depths: tuple[int, ...], widths: tuple[int, ...]) -> None:
    if not depths or min(depths) < 1:
        raise bad_argument(owner, "depths", "at least one stage of at least one block", depths)
    if len(widths) != len(depths) or min(widths) < 1:
        raise bad_argument(owner, argument, f"one positive number a stage, {len(depths)} in all", widths)


def _stem_widths(stem: str, filters: int, narrow: int) -> tuple[int, ...]:
    if stem in ("conv7", "conv3"):
        return (filters,)
    return (narrow if stem == "deep_tiered" else filters // 2, filters // 2, filters)


def _stem_stride(stem: str, pool: str) -> int:
    return (1 if stem == "conv3" else 2) * (1 if pool == "none" else 2)


def _one_of(owner: str, argument: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(owner, argument, value, known)


def _is_size(size: object) -> bool:
    return size is None or (isinstance(size, (int, np.integer)) and not isinstance(size, bool) and int(size) >= 1)
