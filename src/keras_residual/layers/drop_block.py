"""DropBlock: drops square regions of feature maps at random in training."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from keras_residual._arguments import owner_of, positive, share, whole_number
from keras_residual._types import Tensor
from keras_residual.layers.maps import MapLayer, check_rank
from keras_residual.residual.serialization import register


@register
class DropBlock2D(MapLayer):
    """Sets random `block_size` × `block_size` blocks of positions to 0 in training, in all channels.

    A block starts from each position with the probability

        gamma = gamma_scale * rate * height * width / (block^2 * (height - block + 1) * (width - block + 1))

    and is clipped at the map's border; along each axis it is at most as large as the map. The remaining values are
    multiplied by the ratio of all positions in the batch to those that remain, which preserves the mean. At inference
    the layer does nothing.

    Args:
        rate: Expected share of positions that are dropped, in `[0, 1)`; 0 makes the layer do nothing.
        block_size: Side of a block in positions, at least 1; 1 drops positions one by one.
        gamma_scale: Factor on `gamma`, above 0: more than 1 drops more blocks.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        seed: Integer that makes the draws reproducible, or `None`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`, or channels first by `data_format`.
        training: Whether to drop.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For an argument out of range, and for an input that is not of rank 4.

    Example:
        >>> y = kr.layers.DropBlock2D(0.1, block_size=3, seed=0)(np.ones((2, 8, 8, 4)), training=True)
        >>> print(keras.ops.convert_to_numpy(y).mean().round(3))
        1.0

    Reference:
        Ghiasi et al., DropBlock: A regularization method for convolutional networks, 2018.
        https://arxiv.org/abs/1810.12890, algorithm 1 and eq. 1. There blocks start only where they fit into the map;
        here, as in timm, they start anywhere, so that the border is dropped as well, and somewhat more than `rate`.
    """

    ranks: ClassVar[tuple[int, ...]] = (4,)

    def __init__(
        self,
        rate: float,
        block_size: int = 7,
        *,
        gamma_scale: float = 1.0,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.rate = share(owner_of(self), "rate", rate)
        self.block_size = whole_number(owner_of(self), "block_size", block_size)
        self.gamma_scale = positive(owner_of(self), "gamma_scale", gamma_scale)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Sets random blocks to 0 in training; returns the inputs otherwise."""
        check_rank(owner_of(self), tuple(inputs.shape), self.ranks)
        if not training or self.rate == 0:
            return inputs
        kept: Any = self._kept(inputs)
        share: Any = ops.mean(ops.cast(kept, "float32"))
        # Where nothing remains the factor does not matter, but must be finite.
        factor: Any = ops.reciprocal(ops.where(share > 0, share, 1.0))
        # `where` rather than a product: a dropped value that overflowed must not leave 0 * inf = nan.
        shown = ops.expand_dims(kept, self.channel_axis)
        return ops.where(shown, inputs * ops.cast(factor, inputs.dtype), ops.zeros_like(inputs))

    def _kept(self, inputs: Tensor) -> Any:
        """Returns booleans of shape `(batch, height, width)`: which positions no block covers."""
        sizes: Any = ops.shape(inputs)
        batch, height, width = sizes[0], *(sizes[2:] if self.channel_axis == 1 else sizes[1:3])
        rows, columns = _least(self.block_size, height), _least(self.block_size, width)
        places = _as_float(height - rows + 1) * _as_float(width - columns + 1)
        positions = _as_float(height) * _as_float(width)
        gamma = self.gamma_scale * self.rate * positions / (_as_float(rows) * _as_float(columns) * places)
        draws: Any = keras.random.uniform((batch, height, width), dtype="float32", seed=self.seed_generator)
        starts = ops.cast(ops.less(draws, gamma), "float32")
        # As matrix products, which work for any size, known or not.
        covered: Any = ops.matmul(ops.matmul(_reach(height, rows), starts), ops.transpose(_reach(width, columns)))
        return covered < 0.5


def _reach(size: Any, block: Any) -> Any:
    """Returns a matrix of shape `(size, size)`: 1 where the block that starts from `j`, the column, covers row `i`."""
    index: Any = ops.arange(size, dtype="int32")
    ahead: Any = ops.subtract(ops.expand_dims(index, 0), ops.expand_dims(index, 1))
    return ops.cast(ops.logical_and(ahead >= -((block - 1) // 2), ahead <= block // 2), "float32")


def _least(block: int, size: Any) -> Any:
    return min(block, size) if isinstance(size, int) else ops.minimum(block, size)


def _as_float(size: Any) -> Any:
    return float(size) if isinstance(size, int) else ops.cast(size, "float32")
