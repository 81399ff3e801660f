"""The base class of the merges: two inputs `[skip, branch]`, their shapes, the channel axis, and masks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import keras
from keras import ops

from keras_residual._arguments import axis_in_rank, axis_index, owner_of
from keras_residual._backend import with_shape_of
from keras_residual._errors import bad_argument, shape_mismatch
from keras_residual._types import Shape, Tensor
from keras_residual.residual.configured import Configured
from keras_residual.residual.shapes import agree


class Merge(Configured):
    """Merges skip and branch. Abstract: a subclass defines `merge`, and `build_weights` if it has weights.

    Args:
        axis: The channel axis: -1, or 1 for `channels_first`.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: The list `[skip, branch]` of two tensors of one shape `(batch, ..., channels)`.

    Output shape:
        The shape of the inputs.

    Raises:
        ValueError: If the two shapes differ. Nothing is broadcast: `(None, 1)` and `(None, 64)` do not match.
    """

    needs_equal_shapes: ClassVar[bool] = True
    acts_on_channels: ClassVar[bool] = False  # whether `merge` must get the channel axis as the last one

    def __init__(self, *, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis_index(owner_of(self), "axis", axis)
        self.supports_masking = True

    @abstractmethod
    def merge(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Returns the merged tensor; where `acts_on_channels`, the channels come last."""
        raise NotImplementedError(f"{type(self).__name__} must define `merge(skip, branch)`.")

    def build_weights(self, shape: Shape) -> None:
        """Adds the weights; `shape` has its channels last. By default there are none."""

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        """Checks the two shapes and adds the weights."""
        shape = self._common_shape(*self._pair(input_shape))
        if self.acts_on_channels:
            axis = axis_in_rank(owner_of(self), self.axis, len(shape))
            shape = (*shape[:axis], *shape[axis + 1 :], shape[axis])
            if shape[-1] is None:
                raise bad_argument(owner_of(self), "inputs", "tensors with a known number of channels", input_shape)
        self.build_weights(shape)

    def call(self, inputs: Sequence[Any]) -> Tensor:
        """Returns the merged tensor, computed with the channels last where the merge needs that."""
        skip, branch = inputs
        self._common_shape(tuple(skip.shape), tuple(branch.shape))
        if self.needs_equal_shapes:
            branch = not_broadcast(owner_of(self), skip, branch)
        last = len(skip.shape) - 1
        if not self.acts_on_channels or self.axis in (-1, last):
            return self.merge(skip, branch)
        merged = self.merge(ops.moveaxis(skip, self.axis, -1), ops.moveaxis(branch, self.axis, -1))
        return ops.moveaxis(merged, -1, self.axis)

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> Shape:
        """Returns the shape of the merged tensor."""
        skip, branch = self._pair(input_shape)
        common = self._common_shape(skip, branch)
        if self.needs_equal_shapes:
            return common
        axis = axis_in_rank(owner_of(self), self.axis, len(common))
        first, second = skip[axis], branch[axis]
        total = None if first is None or second is None else first + second
        return (*common[:axis], total, *common[axis + 1 :])

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        """Returns the conjunction of both masks, the only one given, or None."""
        del inputs
        masks = previous_mask if isinstance(previous_mask, (list, tuple)) else [previous_mask]
        given = [mask for mask in masks if mask is not None]
        if len(given) == 2:
            return ops.logical_and(*given)
        return given[0] if given else None

    def _pair(self, shapes: Any) -> tuple[Shape, Shape]:
        if not isinstance(shapes, (list, tuple)) or [isinstance(s, (list, tuple)) for s in shapes] != [True, True]:
            raise bad_argument(
                owner_of(self), "inputs", "a list of two tensors, [skip, branch]", shapes, "The shapes are shown."
            )
        skip, branch = shapes
        return tuple(skip), tuple(branch)

    def _common_shape(self, skip: Shape, branch: Shape) -> Shape:
        """Returns the common shape; a size that one of the two knows is known."""
        free = None if self.needs_equal_shapes or not skip else axis_in_rank(owner_of(self), self.axis, len(skip))
        agree = len(skip) == len(branch) and all(
            index == free or a is None or b is None or a == b
            for index, (a, b) in enumerate(zip(skip, branch, strict=False))
        )
        if not agree:
            way_out = (
                'Give both the same shape, for example with shortcut="projection" on the Residual.'
                if self.needs_equal_shapes
                else "Give both the same shape, except along the channel axis."
            )
            raise shape_mismatch(owner_of(self), "skip", skip, "branch", branch, way_out)
        return tuple(a if a is not None else b for a, b in zip(skip, branch, strict=True))


def not_broadcast(owner: str, skip: Tensor, branch: Tensor) -> Any:
    """Returns the branch; raises if its shape differs from that of the skip, also while a compiled program runs.

    Shapes may change between eager calls, and a TensorFlow graph may not know sizes: either would silently broadcast 1
    against 2.
    """
    shapes = tuple(skip.shape), tuple(branch.shape)
    if not agree(*shapes):
        raise shape_mismatch(owner, "skip", shapes[0], "branch", shapes[1], "Nothing is broadcast.")
    known = all(isinstance(size, int) for shape in shapes for size in shape[1:])
    return branch if known else with_shape_of(skip, branch)


def needs_equal_shapes(merge: keras.Layer) -> bool:
    """Returns whether a merge layer, of this library or not, requires both inputs to have one shape."""
    return getattr(merge, "needs_equal_shapes", not isinstance(merge, keras.layers.Concatenate))


def checked_pair(owner: str, merge: keras.Layer, skip: Tensor, branch: Tensor) -> list[Any]:
    """Returns `[skip, branch]` for a merge layer; raises if one from outside this library would broadcast them."""
    if needs_equal_shapes(merge) and not isinstance(merge, Merge):  # ours checks them itself
        branch = not_broadcast(owner, skip, branch)
    return [skip, branch]


def channels_of(shape: Shape) -> int:
    """Returns the last size of a shape that `Merge.build` has checked."""
    return cast(int, shape[-1])


def widen(x: Tensor) -> Any:
    """Returns `x` in float32 if it is float16 or bfloat16, in which inner products and norms are too imprecise."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
