"""The architecture of a ResNet v1, and what it may be: data and its rules only."""

from __future__ import annotations

from dataclasses import dataclass

from keras_residual._errors import bad_argument, unknown_name
from keras_residual.models.parts import NORMS

BLOCKS = ("basic", "bottleneck", "res2net", "resnest", "sk_basic", "sk_bottleneck")
STEMS = ("conv7", "deep", "deep_tiered", "conv3")
POOLS = ("max", "max_ceil", "conv", "none")
SHORTCUTS = ("projection", "avg_pool", "zero_pad")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig:
    """Architecture of a ResNet v1: a stem, stages of residual blocks, global pooling and a linear head.

    With the defaults it is the ImageNet ResNet of the paper, with the stride in the 3×3 convolution.

    Args:
        block: `"basic"`, `"bottleneck"`, `"res2net"`, `"resnest"`, `"sk_basic"` or `"sk_bottleneck"`, or one of these
            a stage.
        depths: Number of blocks in each stage; each stage after the first halves the map.
        widths: Filters in each stage, before the bottleneck's expansion by 4.
        rank: Number of spatial dimensions: 1, 2 or 3.
        stem: `"conv7"`: a convolution 7 wide; `"deep"`: three 3 wide; `"deep_tiered"`: three, the first narrower; all
            of these with stride 2. `"conv3"`: one 3 wide without stride, for small pictures.
        stem_filters: Filters after the stem.
        stem_pool: `"max"`, `"max_ceil"` (Caffe's), `"conv"` (a convolution with stride 2 in its place), or `"none"`.
        cardinality: Groups of the bottleneck's 3×3 convolution (ResNeXt).
        base_width: Channels of a group for each 64 of the stage's width, over 64: the inner width is
            `width * base_width / 64 * cardinality`.
        reduce_first: Divides the width of the first convolution of each block.
        strides_first: Whether a bottleneck has its stride in the first, 1 wide convolution (Caffe's) and not in the
            second.
        shortcut: What is done where shapes change: `"projection"` (option B), `"avg_pool"` (averages, then a
            projection: ResNet-D) or `"zero_pad"` (option A).
        shortcut_kernel_size: Width of the projection where it has a stride, 1 or 3.
        anti_aliasing: `"average"` or `"blur"` after each strided convolution, which then has no stride; or None.
        attention: `"se"` (squeeze-excite), `"eca"` (efficient channel attention) at the end of each branch; or None.
        se_ratio: Channels inside squeeze-excite over those outside.
        se_divisor: They are rounded to a multiple of this.
        relu_before_attention: Whether an activation stands before the attention, as in Caffe's basic SE blocks.
        scale: Number of parts of `"res2net"`.
        radix: Number of splits of `"resnest"`.
        pool_first: Whether a strided `"resnest"` block averages before its split attention and not after it.
        sk_split: Whether each path of `"sk_…"` sees its share of the channels only.
        sk_ratio: Channels inside its attention over those outside.
        sk_divisor: They are rounded to a multiple of this.
        norm: `"batch_norm"` or `"group_norm"`.
        zero_init_last: Whether the last norm's scale of each block starts at zero.
        inner_widths: For irregular (pruned) bottlenecks: for each block of each stage the filters of its three
            convolutions. None for what follows from `widths`.

    Raises:
        ValueError: For a value that breaks its rule, so that a config that exists can be built.

    Example:
        >>> ResNetConfig(block="basic", depths=(2, 2, 2, 2)).stage_filters
        (64, 128, 256, 512)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385
    """

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
        """Checks every rule."""
        owner = "ResNetConfig"
        for block in self.blocks:
            _one_of(owner, "block", block, BLOCKS)
        if not self.depths or min(self.depths) < 1:
            raise bad_argument(owner, "depths", "at least one stage of at least one block", self.depths)
        if len(self.widths) != len(self.depths) or min(self.widths) < 1:
            rule = f"one positive number a stage, {len(self.depths)} in all"
            raise bad_argument(owner, "widths", rule, self.widths)
        if len(self.blocks) != len(self.depths):
            raise bad_argument(owner, "block", f"one name, or one a stage, {len(self.depths)} in all", self.block)
        if self.rank not in (1, 2, 3):
            raise bad_argument(owner, "rank", "1, 2 or 3 spatial dimensions", self.rank)
        _one_of(owner, "stem", self.stem, STEMS)
        _one_of(owner, "stem_pool", self.stem_pool, POOLS)
        _one_of(owner, "shortcut", self.shortcut, SHORTCUTS)
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
    def stem_stride(self) -> int:
        """Stride of the map that the first stage gets."""
        return (1 if self.stem == "conv3" else 2) * (1 if self.stem_pool == "none" else 2)


def _one_of(owner: str, argument: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(owner, argument, value, known)
