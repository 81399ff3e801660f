"""The residual blocks of the published ResNets, each one `Residual` made from plain arguments."""

from __future__ import annotations

import keras

from keras_residual._arguments import whole_number
from keras_residual._errors import bad_argument
from keras_residual.models.block_maker import BlockMaker, BlockPlace
from keras_residual.models.config import ResNetConfig, ResNetV2Config
from keras_residual.models.parts import Parts, batch_norm
from keras_residual.residual.residual import Residual
from keras_residual.residual.shortcuts import ProjectionShortcut


def basic_block(
    filters: int,
    strides: int = 1,
    *,
    shortcut: str | keras.Layer | None = None,
    zero_init_last: bool = True,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v1's basic block: `y = relu(S(x) + BN(W2 relu(BN(W1 x))))`, with 3-wide convolutions.

    Args:
        filters: Number of output channels, at least 1.
        strides: Stride of the first convolution, at least 1.
        shortcut: As in `Residual`; None is the identity where shapes agree, else a projection with batch norm.
        zero_init_last: Whether the last norm's scale starts at zero, which makes the branch zero at the start
            (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> basic_block(16, strides=2)(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, figure 5 left
    """
    parts, filters = _checked("basic_block", filters, rank)
    config = ResNetConfig(block="basic", depths=(1,), widths=(filters,), rank=rank, zero_init_last=zero_init_last)
    place = BlockPlace(strides=strides, drop_path_rate=drop_path_rate)
    return BlockMaker(config, parts)(place, name, shortcut=shortcut)


def bottleneck_block(
    filters: int,
    strides: int = 1,
    *,
    expansion: int = 4,
    shortcut: str | keras.Layer | None = None,
    zero_init_last: bool = True,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v1's bottleneck block: 1, 3 and 1 wide convolutions, the last with `expansion * filters`.

    The stride is that of the 3-wide convolution ("v1.5", as torchvision and timm have it).

    Args:
        filters: Number of channels inside; the output has `expansion * filters`.
        strides: Stride of the block, at least 1.
        expansion: Factor between inner and outer channels, at least 1.
        shortcut: As in `Residual`; None is the identity where shapes agree, else a projection with batch norm.
        zero_init_last: Whether the last norm's scale starts at zero.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> bottleneck_block(4, strides=2)(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, figure 5 right
    """
    parts, filters = _checked("bottleneck_block", filters, rank)
    widths = (((filters, filters, expansion * filters),),)
    config = ResNetConfig(depths=(1,), widths=(filters,), inner_widths=widths, rank=rank, zero_init_last=zero_init_last)
    place = BlockPlace(strides=strides, drop_path_rate=drop_path_rate)
    return BlockMaker(config, parts)(place, name, shortcut=shortcut)


def preact_basic_block(
    filters: int,
    strides: int = 1,
    *,
    project: bool = False,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v2's basic block: `y = x + W2 relu(BN(W1 relu(BN(x))))`, with nothing after the sum.

    Args:
        filters: Number of output channels, at least 1.
        strides: Stride of the first convolution, at least 1; more than 1 needs `project`.
        project: Whether the shape changes: then branch and a projection both start from `relu(BN(x))`, as in the paper.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> preact_basic_block(16, strides=2, project=True)(np.zeros((1, 8, 8, 8))).shape
        (1, 4, 4, 16)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027, figure 1b
    """
    parts, filters = _checked("preact_basic_block", filters, rank)
    config = ResNetV2Config(block="basic", depths=(1,), filters=(filters,))
    return _preactivation_block("preact_basic_block", config, parts, strides, project, drop_path_rate, name)


def preact_bottleneck_block(
    filters: int,
    strides: int = 1,
    *,
    expansion: int = 4,
    project: bool = False,
    drop_path_rate: float = 0.0,
    rank: int = 2,
    name: str | None = None,
) -> Residual:
    """Returns ResNet v2's bottleneck block: norm and activation before each of its 1, 3 and 1 wide convolutions.

    Args:
        filters: Number of channels inside; the output has `expansion * filters`.
        strides: Stride of the 3-wide convolution, at least 1; more than 1 needs `project`.
        expansion: Factor between inner and outer channels, at least 1.
        project: Whether the shape changes: then branch and a projection both start from `relu(BN(x))`, as in the paper.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        rank: Number of spatial dimensions: 1, 2 or 3.
        name: Name of the block.

    Example:
        >>> preact_bottleneck_block(4, project=True)(np.zeros((1, 8, 8, 8))).shape
        (1, 8, 8, 16)

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027, appendix
    """
    parts, filters = _checked("preact_bottleneck_block", filters, rank)
    config = ResNetV2Config(depths=(1,), filters=(expansion * filters,), expansion=expansion)
    return _preactivation_block("preact_bottleneck_block", config, parts, strides, project, drop_path_rate, name)


def series_block(
    filters: int, kernel_sizes: tuple[int, ...] = (8, 5, 3), *, drop_path_rate: float = 0.0, name: str | None = None
) -> Residual:
    """Returns the time-series ResNet's block: three 1-D convolutions of widths 8, 5 and 3 with batch norm.

    Where input and output have equal channels the shortcut is the identity, else a projection with batch norm.

    Args:
        filters: Number of output channels, at least 1.
        kernel_sizes: Width of each convolution in time steps; the time axis keeps its length.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        name: Name of the block.

    Input shape:
        `(batch, time, channels)`.

    Example:
        >>> series_block(64)(np.zeros((1, 20, 3))).shape
        (1, 20, 64)

    Reference:
        Wang et al., Time Series Classification from Scratch with Deep Neural Networks, 2016.
        https://arxiv.org/abs/1611.06455, section 2.3
    """
    branch: list[keras.Layer] = []
    for index, width in enumerate(kernel_sizes, start=1):
        branch += [
            keras.layers.Conv1D(
                filters, width, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"conv{index}"
            ),
            batch_norm(f"norm{index}"),
        ]
        if index < len(kernel_sizes):
            branch.append(keras.layers.ReLU(name=f"relu{index}"))
    shortcut = ProjectionShortcut(norm=batch_norm("norm"), always=False, name="shortcut")
    return Residual(branch, shortcut=shortcut, drop_path_rate=drop_path_rate, activation="relu", name=name)


def tabular_block(
    units: int,
    hidden_units: int,
    *,
    hidden_dropout: float = 0.0,
    residual_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
    name: str | None = None,
) -> Residual:
    """Returns the tabular ResNet's block: `y = x + Dropout(W2 Dropout(relu(W1 BN(x))))`.

    Args:
        units: Width of the stream, at least 1.
        hidden_units: Width inside the branch, at least 1.
        hidden_dropout: Rate in `[0, 1)` of the dropout after the activation.
        residual_dropout: Rate in `[0, 1)` of the dropout at the branch's end.
        drop_path_rate: Probability in `[0, 1)` of dropping the branch of a sample in training.
        name: Name of the block.

    Input shape:
        `(batch, units)`.

    Example:
        >>> tabular_block(32, 64)(np.zeros((1, 32))).shape
        (1, 32)

    Reference:
        Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, 2021. https://arxiv.org/abs/2106.11959, 3.2
    """
    branch: list[keras.Layer] = [
        keras.layers.Dense(hidden_units, activation="relu", kernel_initializer="he_normal", name="dense1")
    ]
    if hidden_dropout:
        branch.append(keras.layers.Dropout(hidden_dropout, name="dropout1"))
    branch.append(keras.layers.Dense(units, kernel_initializer="he_normal", name="dense2"))
    if residual_dropout:
        branch.append(keras.layers.Dropout(residual_dropout, name="dropout2"))
    return Residual(
        branch,
        shortcut="identity",
        norm=batch_norm("norm"),
        drop_path_rate=drop_path_rate,
        name=name,
    )


def _checked(owner: str, filters: int, rank: int) -> tuple[Parts, int]:
    if rank not in (1, 2, 3):
        raise bad_argument(owner, "rank", "1, 2 or 3 spatial dimensions", rank)
    return Parts(rank=rank), whole_number(owner, "filters", filters)


def _preactivation_block(
    owner: str,
    config: ResNetV2Config,
    parts: Parts,
    strides: int,
    project: bool,
    drop_path_rate: float,
    name: str | None,
) -> Residual:
    if strides > 1 and not project:
        raise bad_argument(owner, "project", "True where `strides` is more than 1", project)
    # Only the first block of a stage projects.
    place = BlockPlace(block=0 if project else 1, strides=strides, drop_path_rate=drop_path_rate)
    return BlockMaker(config, parts)(place, name)
