"""Random changes to training pictures, in NumPy: a pure function of the pictures, a seed, the epoch and their indices.

What happens to a picture follows from `(seed, epoch, index)` alone, whichever batch, process or run it is in. Only
Mixup and CutMix, which put two pictures together, depend on the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from keras_residual._errors import bad_argument

# Pictures, targets, seed, epoch and indices in; pictures of the same shape and type, and their targets, out.
Augment = Callable[[np.ndarray, np.ndarray, int, int, np.ndarray], tuple[np.ndarray, np.ndarray]]

_ATTEMPTS = 10  # of boxes that may not fit, as in torchvision
_RATIOS = (3 / 4, 4 / 3)  # width to height of a crop
_ERASED_AREA, _ERASED_RATIOS = (0.02, 0.33), (0.3, 3.3)
_SHIFT, _FLIP, _CROP, _CUTOUT, _ERASE, _MIX = range(6)  # what is drawn for one is the same without the others


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes training pictures `(examples, height, width, channels)`, in the order of the arguments.

    Args:
        crop: Smallest share of a picture's area in `[0, 1]` that is cut out, of an aspect ratio in [3/4, 4/3], and
            scaled to the picture's size bilinearly; 0 leaves pictures whole.
        shift: Largest shift in pixels along each side, 0 or more: padded on all sides, then cropped.
        border: What a shift brings in: `"zero"`, or the picture mirrored without its edge, `"reflect"`.
        flip: Whether a picture is mirrored left to right with probability 1/2; with `"alternating"` that is drawn for
            the first epoch, and from then on it is mirrored in every other one.
        cutout: Side in pixels of the square that is blackened; its centre is anywhere, so that it may lie partly
            outside.
        erase: Probability in `[0, 1]` that a box of 2 to 33 % of the area, of a ratio in [0.3, 3.3], is blackened.
        mixup: `a`, 0 or more: a batch is `l * x + (1 - l) * (x, rolled by one)` with `l` from Beta(a, a), and so are
            the targets.
        cutmix: `a`, 0 or more: a box of the share `1 - l` of the area is that of the batch rolled by one, with `l` from
            Beta(a, a), and the targets are mixed by what is left of it within the picture. With `mixup` each batch has
            one of the two, with probability 1/2.
        classes: Number of classes, which `mixup` and `cutmix` need.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> x = np.zeros((2, 8, 8, 3), np.uint8)
        >>> pictures, targets = Augmentation(shift=2, mixup=0.2, classes=3)(x, np.array([0, 2]), 0, 0, np.arange(2))
        >>> pictures.shape, targets.shape
        ((2, 8, 8, 3), (2, 3))

    Reference:
        He et al., 2015 (shift). https://arxiv.org/abs/1512.03385. Szegedy et al., 2014 (crop).
        https://arxiv.org/abs/1409.4842. Jordan, 2024 (alternating flip). https://arxiv.org/abs/2404.00498. DeVries and
        Taylor, 2017 (Cutout). https://arxiv.org/abs/1708.04552. Zhong et al., 2017 (random erasing).
        https://arxiv.org/abs/1708.04896. Zhang et al., 2017 (Mixup). https://arxiv.org/abs/1710.09412. Yun et al., 2019
        (CutMix). https://arxiv.org/abs/1905.04899
    """

    crop: float = 0.0
    shift: int = 0
    border: Literal["zero", "reflect"] = "zero"
    flip: bool | Literal["alternating"] = False
    cutout: int = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    classes: int = 0

    def __post_init__(self) -> None:
        check_shift("Augmentation", "shift", self.shift)
        for argument in ("cutout", "mixup", "cutmix"):
            if not getattr(self, argument) >= 0:
                raise bad_argument("Augmentation", argument, "0 or more", getattr(self, argument))
        for argument in ("crop", "erase"):
            if not 0 <= getattr(self, argument) <= 1:
                raise bad_argument("Augmentation", argument, "in [0, 1]", getattr(self, argument))
        if (self.mixup or self.cutmix) and self.classes < 2:
            raise bad_argument("Augmentation", "classes", "2 or more where `mixup` or `cutmix` is set", self.classes)

    def __call__(
        self, pictures: np.ndarray, targets: np.ndarray, seed: int, epoch: int, indices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the changed pictures and their targets, which are shares of the classes where pictures are mixed.

        Args:
            pictures: Shape `(examples, height, width, channels)`; what comes back has the same shape and type.
            targets: Shape `(examples,)`: indices of classes, or numbers.
            seed: Whole number, 0 or more.
            epoch: Passes over the examples before this one.
            indices: Places of the examples in the whole set, shape `(examples,)`.
        """

        def drawn(what: int, count: int) -> np.ndarray:
            return uniform(seed, epoch, indices, what, count)

        if self.crop:
            pictures = resized_crops(pictures, *crop_boxes(pictures.shape, drawn(_CROP, 2 * _ATTEMPTS + 2), self.crop))
        if self.shift:
            offsets = np.floor(drawn(_SHIFT, 2) * (2 * self.shift + 1)).astype(int)
            pictures = shifted(pictures, offsets[0], offsets[1], self.shift, self.border)
        if self.flip:
            # Drawn once for all epochs where it alternates.
            once = uniform(seed, 0, indices, _FLIP, 1)[0] < 0.5 if self.flip == "alternating" else None
            mirrored = drawn(_FLIP, 1)[0] < 0.5 if once is None else once ^ bool(epoch % 2)
            pictures = np.where(mirrored[:, None, None, None], pictures[:, :, ::-1], pictures)
        if self.cutout:
            pictures = blackened(pictures, *cutout_boxes(pictures.shape, drawn(_CUTOUT, 2), self.cutout))
        if self.erase:
            draws = drawn(_ERASE, 2 * _ATTEMPTS + 3)
            top, left, height, width = erased_boxes(pictures.shape, draws[1:])
            height = np.where(draws[0] < self.erase, height, 0)
            pictures = blackened(pictures, top, left, height, width)
        if self.mixup or self.cutmix:
            generator = np.random.default_rng((seed, epoch, int(indices[0]), _MIX))
            targets = np.eye(self.classes, dtype=np.float32)[targets]
            by_box = self.cutmix and (not self.mixup or generator.random() < 0.5)
            pictures, share = (
                _cut_in(pictures, self.cutmix, generator) if by_box else _mixed(pictures, self.mixup, generator)
            )
            targets = (share * targets + (1 - share) * np.roll(targets, 1, axis=0)).astype(np.float32)
        return pictures, targets


def uniform(seed: int, epoch: int, indices: np.ndarray, stream: int, count: int) -> np.ndarray:
    """Returns numbers in `[0, 1)` of shape `(count, examples)`, each a function of its own place and of nothing else.

    NumPy's generators draw in an order; these are the values of SplitMix64 at counters that are made of the arguments.

    Args:
        seed: Whole number, 0 or more.
        epoch: Whole number, 0 or more.
        indices: Whole numbers, 0 or more, shape `(examples,)`.
        stream: What the numbers are for.
        count: Numbers for each example.

    Reference:
        Steele et al., Fast splittable pseudorandom number generators, 2014.
    """
    state = np.zeros(1, np.uint64)  # an array, since NumPy warns where a single number wraps around
    for number in (seed, epoch, stream):
        state = _mix64(state + _step(number))
    each = _mix64(state + np.asarray(indices).astype(np.uint64) * _GOLDEN)
    values = [_mix64(each + _step(place)) >> np.uint64(11) for place in range(count)]
    return np.stack(values) * 2.0**-53


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _step(number: int) -> np.uint64:
    return np.uint64((number + 1) * int(_GOLDEN) % 2**64)


def _mix64(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def shifted(
    pictures: np.ndarray, down: np.ndarray, right: np.ndarray, pixels: int, border: Literal["zero", "reflect"] = "zero"
) -> np.ndarray:
    """Returns each picture padded by `pixels` on all sides, then cropped at `down` and `right` in `[0, 2 * pixels]`."""
    count, height, width, _ = pictures.shape
    check_shift("Augmentation", "shift", pixels, side=min(height, width))
    around = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = np.pad(pictures, around, mode="constant" if border == "zero" else "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return np.ascontiguousarray(np.moveaxis(windows[np.arange(count), down, right], 1, -1))


Boxes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # top, left, height, width, each a number a picture


def crop_boxes(shape: tuple[int, ...], draws: np.ndarray, smallest: float) -> Boxes:
    """Returns boxes of a share of the area in `[smallest, 1]` and a ratio in [3/4, 4/3], the first that fits of ten.

    Where none fits it is the largest of such a ratio, in the middle.
    """
    _, high, wide, _ = shape
    height, width, fits = _drawn_sizes(shape, draws[:-2], (smallest, 1.0), _RATIOS)
    ratio = np.clip(wide / high, *_RATIOS)
    middle_height, middle_width = min(high, round(wide / ratio)), min(wide, round(high * ratio))
    top = np.where(fits, np.floor(draws[-2] * (high - height + 1)), (high - middle_height) // 2)
    left = np.where(fits, np.floor(draws[-1] * (wide - width + 1)), (wide - middle_width) // 2)
    height, width = np.where(fits, height, middle_height), np.where(fits, width, middle_width)
    return top.astype(int), left.astype(int), height.astype(int), width.astype(int)


def erased_boxes(shape: tuple[int, ...], draws: np.ndarray) -> Boxes:
    """Returns boxes of 2 to 33 % of the area and a ratio in [0.3, 3.3], the first that fits of ten, or empty ones."""
    _, high, wide, _ = shape
    height, width, fits = _drawn_sizes(shape, draws[:-2], _ERASED_AREA, _ERASED_RATIOS)
    height, width = np.where(fits, height, 0), np.where(fits, width, 0)
    top, left = np.floor(draws[-2] * (high - height + 1)), np.floor(draws[-1] * (wide - width + 1))
    return top.astype(int), left.astype(int), height.astype(int), width.astype(int)


def cutout_boxes(shape: tuple[int, ...], draws: np.ndarray, side: int) -> Boxes:
    """Returns squares with a centre that is any pixel; a part of one may lie outside."""
    count, high, wide, _ = shape
    top, left = np.floor(draws[0] * high) - side // 2, np.floor(draws[1] * wide) - side // 2
    sides = np.full(count, side)
    return top.astype(int), left.astype(int), sides, sides


def _drawn_sizes(
    shape: tuple[int, ...], draws: np.ndarray, areas: tuple[float, float], ratios: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns height and width of the first of several boxes that fits a picture, and whether one does."""
    _, high, wide, _ = shape
    half = len(draws) // 2
    area = high * wide * (areas[0] + draws[:half] * (areas[1] - areas[0]))
    low, top = np.log(ratios)
    ratio = np.exp(low + draws[half:] * (top - low))
    width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (width > 0) & (width <= wide) & (height > 0) & (height <= high)
    first = np.argmax(fits, axis=0)[None]
    return np.take_along_axis(height, first, 0)[0], np.take_along_axis(width, first, 0)[0], fits.any(axis=0)


def resized_crops(
    pictures: np.ndarray, top: np.ndarray, left: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Returns the boxes of pictures, each scaled bilinearly to the size of the whole, as PyTorch's `interpolate`.

    No box is larger than the picture, so that nothing is scaled down and no filter is missed.
    """
    result = np.empty_like(pictures)
    _, high, wide, _ = pictures.shape
    for index, picture in enumerate(pictures):
        part = picture[top[index] : top[index] + height[index], left[index] : left[index] + width[index]]
        scaled = _interpolated(_interpolated(part.astype(np.float32), high, 0), wide, 1)
        result[index] = np.rint(scaled) if pictures.dtype.kind in "ui" else scaled
    return result


def _interpolated(picture: np.ndarray, size: int, axis: int) -> np.ndarray:
    length = picture.shape[axis]
    place = np.clip((np.arange(size, dtype=np.float32) + 0.5) * (length / size) - 0.5, 0, length - 1)
    before = np.floor(place).astype(int)
    share = (place - before).astype(np.float32).reshape([-1 if axis == each else 1 for each in range(3)])
    after = np.minimum(before + 1, length - 1)
    return picture.take(before, axis) * (1 - share) + picture.take(after, axis) * share


def blackened(
    pictures: np.ndarray, top: np.ndarray, left: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Returns the pictures with 0 in their boxes, as far as these lie inside."""
    rows, columns = np.arange(pictures.shape[1])[None], np.arange(pictures.shape[2])[None]
    down = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    across = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return np.where((down[:, :, None] & across[:, None, :])[..., None], np.zeros((), pictures.dtype), pictures)


def _mixed(pictures: np.ndarray, alpha: float, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    share = generator.beta(alpha, alpha)
    mixed = share * pictures.astype(np.float32) + (1 - share) * np.roll(pictures, 1, axis=0)
    return (np.rint(mixed) if pictures.dtype.kind in "ui" else mixed).astype(pictures.dtype), share


def _cut_in(pictures: np.ndarray, alpha: float, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    _, high, wide, _ = pictures.shape
    side = np.sqrt(1 - generator.beta(alpha, alpha)) / 2
    row, column = generator.integers(high), generator.integers(wide)
    top, bottom = (int(np.clip(row + sign * int(side * high), 0, high)) for sign in (-1, 1))
    left, right = (int(np.clip(column + sign * int(side * wide), 0, wide)) for sign in (-1, 1))
    pictures = pictures.copy()
    pictures[:, top:bottom, left:right] = np.roll(pictures, 1, axis=0)[:, top:bottom, left:right]
    return pictures, 1 - (bottom - top) * (right - left) / (high * wide)


def check_shift(owner: str, argument: str, pixels: int, *, side: int | None = None) -> None:
    """Raises a ValueError where pictures cannot be shifted so far.

    Args:
        owner: Who asks, for the message.
        argument: How the caller calls it.
        pixels: The largest shift.
        side: The smaller side of the pictures, None where that is not known yet.
    """
    if pixels < 0:
        raise bad_argument(owner, argument, "0 or more", pixels)
    if side is not None and pixels >= side > 0:
        raise bad_argument(owner, argument, f"less than {side}, the smaller side of the pictures", pixels)
