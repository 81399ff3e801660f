"""Random regularization of a branch in training: stochastic depth, Shake-Shake and ShakeDrop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import choice, number, owner_of, share
from keras_residual._backend import scale_with_other_gradient
from keras_residual._errors import bad_argument, shape_mismatch, wrong_type
from keras_residual._types import Shape, Tensor
from keras_residual.residual import chain
from keras_residual.residual.configured import Configured, ShapePreserving
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import chain_output_shape

MODES = ("row", "batch")


@register
class DropPath(ShapePreserving):
    """In training, sets its input to 0 with probability `rate` and divides it by `1 - rate` otherwise.

    The expected output is the input, so the layer does nothing at inference.

    Args:
        rate: Probability of a drop, in `[0, 1)`; with 0 the layer does nothing.
        mode: `"row"` draws per sample, `"batch"` once for the whole batch.
        seed: Integer that makes the draws reproducible, or `None`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, ...)`.
        training: Whether to drop.

    Output shape:
        The shape of the input.

    Example:
        >>> y = kr.DropPath(0.5)(np.ones((1, 1)))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[1.]]

    Reference:
        Huang et al., Deep Networks with Stochastic Depth, 2016. https://arxiv.org/abs/1603.09382. There the branch is
        multiplied by `1 - rate` at inference; here it is divided in training, which gives the same mean.
    """

    def __init__(self, rate: float, mode: str = "row", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = share(owner_of(self), "rate", rate)
        self.mode = choice(owner_of(self), "mode", mode, MODES)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Drops at random in training; returns the inputs otherwise."""
        return self.drop(inputs, self.rate) if training else inputs

    def drop(self, inputs: Tensor, rate: Any) -> Tensor:
        """Drops as in training, at the given rate, a number or a scalar tensor, instead of the layer's own."""
        if isinstance(rate, float):
            if rate == 0:
                return inputs
            kept = inputs / (1 - rate)
        else:
            kept = inputs / ops.cast(1 - rate, inputs.dtype)
        draw = keras.random.uniform(draw_shape(inputs, self.mode), dtype="float32", seed=self.seed_generator)
        # `where` rather than a product: a dropped branch that overflowed must not leave 0 * inf = nan.
        return ops.where(draw >= rate, kept, ops.zeros_like(inputs))


def draw_shape(inputs: Tensor, mode: str) -> tuple[Any, ...]:
    """Returns the shape of one draw per sample (`"row"`) or one in all (`"batch"`), of the rank of `inputs`."""
    ones = (1,) * (len(inputs.shape) - 1)
    sizes: Any = ops.shape(inputs)
    return (sizes[0] if mode == "row" else 1, *ones)


@register
class ShakeShake(Configured):
    """Mixes two branches at random: `y = a * F_1(x) + (1 - a) * F_2(x)`.

    In training `a` is drawn from `U(0, 1)`, and the backward pass uses another draw in its place. At inference `a` is
    1/2. Use it as the branch of a residual connection, which adds the skip path.

    Args:
        branches: Two branches, each a layer or a list of layers applied in order, with outputs of one shape.
        mode: `"row"` draws per sample, `"batch"` once for the whole batch.
        seed: Integer that makes the draws reproducible, or `None`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, ...)`.
        training: Whether to draw.

    Output shape:
        The shape of the outputs of the branches.

    Raises:
        ValueError: If there are not two branches, or their outputs differ in shape.

    Example:
        >>> tuple(kr.ShakeShake([keras.layers.Dense(3), keras.layers.Dense(3)])(np.ones((2, 4))).shape)
        (2, 3)

    Reference:
        Gastaldi, Shake-Shake Regularization, 2017. https://arxiv.org/abs/1705.07485
    """

    def __init__(self, branches: Sequence[Any], mode: str = "row", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(branches, (list, tuple)) or len(branches) != 2:
            raise bad_argument(owner_of(self), "branches", "two branches, each a layer or a list of layers", branches)
        # Two flat lists: Keras saves the weights of a list of layers, but not of a list of lists.
        self.first, self.second = (self._as_layers(branch) for branch in branches)
        self.supports_masking = all(layer.supports_masking for layer in (*self.first, *self.second))
        self.mode = choice(owner_of(self), "mode", mode, MODES)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        """Builds both branches and compares the shapes of their outputs."""
        for branch in (self.first, self.second):
            chain.build(owner_of(self), "branches", branch, tuple(input_shape), self.compute_dtype)
        self.compute_output_shape(input_shape)

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Returns the weighted sum of both branches."""
        first, second = (chain.apply(branch, inputs, training, mask) for branch in (self.first, self.second))
        if not training:
            return 0.5 * first + 0.5 * second
        shape = draw_shape(first, self.mode)
        forward = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        backward = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return scale_with_other_gradient(first, forward, backward) + scale_with_other_gradient(
            second, 1 - forward, 1 - backward
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the output shape that both branches share."""
        first, second = (chain_output_shape(branch, tuple(input_shape)) for branch in (self.first, self.second))
        if first != second:
            way_out = "Give both branches outputs of one shape."
            raise shape_mismatch(owner_of(self), "the first branch's output", first, "the second's", second, way_out)
        return first

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        """Returns the mask that the first branch passes on; both outputs have one shape."""
        for layer in self.first:
            previous_mask = layer.compute_mask(inputs, previous_mask)
        return previous_mask

    def _argument(self, name: str) -> Any:
        return [self.first, self.second] if name == "branches" else super()._argument(name)

    def _as_layers(self, branch: Any) -> list[keras.layers.Layer]:
        layers = list(branch) if isinstance(branch, (list, tuple)) else [branch]
        if not layers or not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise wrong_type(owner_of(self), "branches", "two branches, each a layer or a list of layers", branch)
        return layers


@register
class ShakeDrop(ShapePreserving):
    """In training, scales the branch by `b + a - b * a` forward and by `b + c - b * c` backward.

    `b` is 1 with probability `1 - rate` and 0 otherwise, `a` is drawn from `U(alpha_range)`, `c` from `U(beta_range)`:
    a kept branch is unchanged, any other is scaled by `a`, and its gradient by `c`. At inference the factor is the mean
    of the forward one: `1 - rate` where `alpha_range` is centered on 0.

    Args:
        rate: Probability in `[0, 1]` that the branch is not kept; with 0 the layer does nothing.
        alpha_range: Bounds of the forward factor, low and high.
        beta_range: Bounds of the backward factor, low and high.
        mode: `"row"` draws per sample, `"batch"` once for the whole batch.
        seed: Integer that makes the draws reproducible, or `None`.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        inputs: The output of the branch, of shape `(batch, ...)`.
        training: Whether to draw.

    Output shape:
        The shape of the input.

    Example:
        >>> y = kr.ShakeDrop(0.5)(np.ones((1, 1)))
        >>> print(keras.ops.convert_to_numpy(y).round(3))
        [[0.5]]

    Reference:
        Yamada et al., ShakeDrop Regularization for Deep Residual Learning, 2018. https://arxiv.org/abs/1802.02375
    """

    def __init__(
        self,
        rate: float,
        alpha_range: Sequence[float] = (-1.0, 1.0),
        beta_range: Sequence[float] = (0.0, 1.0),
        mode: str = "row",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rate = number(owner_of(self), "rate", rate, "a number in [0, 1]", lambda v: 0 <= v <= 1)
        self.alpha_range = self._as_range("alpha_range", alpha_range)
        self.beta_range = self._as_range("beta_range", beta_range)
        self.mode = choice(owner_of(self), "mode", mode, MODES)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Multiplies by random factors in training, and by their mean otherwise."""
        if self.rate == 0:
            return inputs
        if not training:
            return inputs * (1 - self.rate + self.rate * sum(self.alpha_range) / 2)
        shape = draw_shape(inputs, self.mode)
        kept = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) >= self.rate
        factors = [
            ops.where(kept, 1.0, keras.random.uniform(shape, low, high, dtype="float32", seed=self.seed_generator))
            for low, high in (self.alpha_range, self.beta_range)
        ]
        return scale_with_other_gradient(inputs, *factors)

    def _as_range(self, argument: str, value: Any) -> tuple[float, float]:
        rule = "two numbers, low and high, with low <= high"
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise bad_argument(owner_of(self), argument, rule, value)
        low, high = (number(owner_of(self), argument, bound, rule) for bound in value)
        if low > high:
            raise bad_argument(owner_of(self), argument, rule, value)
        return low, high
