"""Random changes of training pictures: a pure function of the picture, a seed, the epoch and its index.

What happens to a picture follows from `(seed, epoch, index)` alone, whichever batch, process or run it is in. Only
Mixup and CutMix, which put two pictures together, depend on the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from keras_residual._errors import bad_argument
from keras_residual.data import picture_ops, policies

# Pictures, targets, seed, epoch and indices in; pictures of one shape, and their targets, out.
Augment = Callable[[np.ndarray, np.ndarray, int, int, np.ndarray], tuple[np.ndarray, np.ndarray]]
Policy = Literal["none", "randaugment", "trivialaugment"]

_ATTEMPTS = 10  # of boxes that may not fit, as in torchvision
_RATIOS = (3 / 4, 4 / 3)  # width to height of a crop
_ERASED_AREA, _ERASED_RATIOS = (0.02, 0.33), (0.3, 3.3)
_JITTERS = (picture_ops.brightness, picture_ops.contrast, picture_ops.color, picture_ops.hue)
_HUE = 3
_PICTURE, _MIX = 1, 2  # what a generator is for
# Each change has its own places among the numbers that are drawn for a picture: what is drawn for one is the same
# without the others. A policy has what follows them.
_PLACES, _FIRST_OF_POLICY = {}, 0
for _change, _count in (
    ("crop", 2 * _ATTEMPTS + 2), ("shift", 2), ("flip", 1), ("jitter", 8), ("cutout", 2), ("erase", 2 * _ATTEMPTS + 3),
):  # fmt: skip
    _PLACES[_change] = slice(_FIRST_OF_POLICY, _FIRST_OF_POLICY + _count)
    _FIRST_OF_POLICY += _count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes training pictures, uint8 of shape `(height, width, 1 or 3)`, in the order of the arguments.

    Args:
        sizes: `(epoch, side)` in pixels, by rising epochs of which the first is 0: pictures have that side from that
            epoch on. Left out, they keep the size that they come in.
        crop: Smallest share of a picture's area in `[0, 1]` that is cut out, of an aspect ratio in [3/4, 4/3], and
            resized without aliasing; with 0 a picture is resized until it covers the size, and its middle is kept.
        shift: Largest shift in pixels along each side, 0 or more: padded on all sides, then cropped.
        border: What a shift brings in: `"zero"`, or the picture mirrored without its edge, `"reflect"`.
        flip: Whether a picture is mirrored left to right with probability 1/2; with `"alternating"` that is drawn for
            the first epoch, and from then on it is mirrored in every other one.
        policy: `"randaugment"`, which is timm's `rand-mM-mstdS-nN-inc1` with N operations of magnitude M and spread S;
            or `"trivialaugment"`, torchvision's `TrivialAugmentWide`.
        operations: Number of changes of RandAugment, each of which is made with probability 1/2.
        magnitude: Strength of RandAugment, in `[0, 10]`.
        magnitude_spread: Standard deviation of that strength from change to change, 0 or more.
        jitter: Up to four numbers, of 0 or more: brightness, contrast and saturation are multiplied by a number in
            `[max(0, 1 - j), 1 + j]`, and the hue is turned by up to the fourth, at most 1/2 of the circle; in an order
            that is drawn.
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
        ImportError: If OpenCV is missing, which changes sizes, shapes and colours.

    Example:
        >>> x = np.zeros((2, 8, 8, 3), np.uint8)
        >>> pictures, targets = Augmentation(shift=2, mixup=0.2, classes=3)(x, np.array([0, 2]), 0, 0, np.arange(2))
        >>> pictures.shape, targets.shape
        ((2, 8, 8, 3), (2, 3))
        >>> Augmentation(flip=True).picture(x[0], seed=0, epoch=3, index=17).shape
        (8, 8, 3)

    Reference:
        He et al., 2015 (shift). https://arxiv.org/abs/1512.03385. Szegedy et al., 2014 (crop).
        https://arxiv.org/abs/1409.4842. Jordan, 2024 (alternating flip). https://arxiv.org/abs/2404.00498. Cubuk et
        al., 2019 (RandAugment). https://arxiv.org/abs/1909.13719. Müller and Hutter, 2021 (TrivialAugment).
        https://arxiv.org/abs/2103.10158. DeVries and Taylor, 2017 (Cutout). https://arxiv.org/abs/1708.04552. Zhong et
        al., 2017 (random erasing). https://arxiv.org/abs/1708.04896. Zhang et al., 2017 (Mixup).
        https://arxiv.org/abs/1710.09412. Yun et al., 2019 (CutMix). https://arxiv.org/abs/1905.04899
    """

    sizes: Sequence[tuple[int, int]] = ()
    crop: float = 0.0
    shift: int = 0
    border: Literal["zero", "reflect"] = "zero"
    flip: bool | Literal["alternating"] = False
    policy: Policy = "none"
    operations: int = 2
    magnitude: float = 9.0
    magnitude_spread: float = 0.5
    jitter: Sequence[float] = ()
    cutout: int = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    classes: int = 0

    def __post_init__(self) -> None:
        check_shift("Augmentation", "shift", self.shift)
        epochs = [epoch for epoch, _ in self.sizes]
        if epochs and (epochs[0] != 0 or epochs != sorted(set(epochs)) or min(side for _, side in self.sizes) < 1):
            raise bad_argument("Augmentation", "sizes", "(epoch, side) by rising epochs from 0 on", self.sizes)
        for argument in ("cutout", "mixup", "cutmix", "magnitude_spread"):
            if not getattr(self, argument) >= 0:
                raise bad_argument("Augmentation", argument, "0 or more", getattr(self, argument))
        for argument in ("crop", "erase"):
            if not 0 <= getattr(self, argument) <= 1:
                raise bad_argument("Augmentation", argument, "in [0, 1]", getattr(self, argument))
        if self.policy not in ("none", "randaugment", "trivialaugment"):
            rule = "'none', 'randaugment' or 'trivialaugment'"
            raise bad_argument("Augmentation", "policy", rule, self.policy)
        if not self.operations >= 1:
            raise bad_argument("Augmentation", "operations", "1 or more", self.operations)
        if not 0 <= self.magnitude <= policies.LARGEST_MAGNITUDE:
            raise bad_argument("Augmentation", "magnitude", f"in [0, {policies.LARGEST_MAGNITUDE}]", self.magnitude)
        if len(self.jitter) > 4 or not all(each >= 0 for each in self.jitter) or max(self.jitter[3:], default=0) > 0.5:
            rule = "up to four numbers of 0 or more, the fourth at most 0.5"
            raise bad_argument("Augmentation", "jitter", rule, self.jitter)
        if (self.mixup or self.cutmix) and self.classes < 2:
            raise bad_argument("Augmentation", "classes", "2 or more where `mixup` or `cutmix` is set", self.classes)

    def __call__(
        self, pictures: Sequence[np.ndarray] | np.ndarray, targets: np.ndarray, seed: int, epoch: int,
        indices: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Returns the changed pictures and their targets, which are shares of the classes where pictures are mixed.

        Args:
            pictures: uint8 of shape `(examples, height, width, 1 or 3)`.
            targets: Shape `(examples,)`: indices of classes, or numbers.
            seed: Whole number, 0 or more.
            epoch: Passes over the examples before this one.
            indices: Places of the examples in the whole set, shape `(examples,)`.
        """
        each = zip(pictures, indices, strict=True)
        changed = [self.picture(picture, seed=seed, epoch=epoch, index=int(index)) for picture, index in each]
        return self.mix(np.stack(changed), targets, seed=seed, epoch=epoch, index=int(indices[0]))

    @property
    def changes_pictures(self) -> bool:
        """Whether there is anything to be done to a picture by itself."""
        changes = (self.sizes, self.crop, self.shift, self.flip, self.jitter, self.cutout, self.erase)
        return any(changes) or self.policy != "none"

    def side(self, epoch: int) -> int | None:
        """Returns the side of the pictures of an epoch, None where they keep their size."""
        return next((side for first, side in reversed(self.sizes) if epoch >= first), None)

    def picture(self, picture: np.ndarray, *, seed: int, epoch: int, index: int) -> np.ndarray:
        """Returns one changed picture; arguments as in a call, of one example. What came in stays as it was."""
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3):
            rule = "uint8 of shape (height, width, 1 or 3)"
            raise bad_argument("Augmentation", "picture", rule, picture)
        draws = _draws(seed, epoch, index, _FIRST_OF_POLICY + self._draws_of_policy)
        side = self.side(epoch)
        height, width = (side, side) if side else picture.shape[:2]
        if self.crop:
            top, left, high, wide = crop_box(picture.shape, draws[_PLACES["crop"]], self.crop)
            picture = picture_ops.resized(picture[top : top + high, left : left + wide], height, width)
        elif side:
            picture = picture_ops.fitted(picture, side, side)
        if self.shift:
            down, right = (int(draw * (2 * self.shift + 1)) for draw in draws[_PLACES["shift"]])
            picture = shifted(picture, down, right, self.shift, self.border)
        if self._is_mirrored(draws, seed, epoch, index):
            picture = picture[:, ::-1]
        if self.policy != "none" or self.jitter:
            picture = self._recoloured(np.ascontiguousarray(picture), draws)
        if self.cutout:
            picture = blackened(picture, cutout_box(picture.shape, draws[_PLACES["cutout"]], self.cutout))
        whether, *box = draws[_PLACES["erase"]]
        if whether < self.erase:
            picture = blackened(picture, erased_box(picture.shape, box))
        return picture

    def mix(
        self, pictures: np.ndarray, targets: np.ndarray, *, seed: int, epoch: int, index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a batch after Mixup or CutMix, if either is asked for, and the targets.

        Args:
            pictures: uint8 of shape `(examples, height, width, 1 or 3)`, changed one by one already.
            targets: Shape `(examples,)`.
            seed: Whole number, 0 or more.
            epoch: Passes over the examples before this one.
            index: That of the first example.
        """
        if not self.mixup and not self.cutmix:
            return pictures, targets
        generator = np.random.default_rng((seed, epoch, index, _MIX))
        targets = np.eye(self.classes, dtype=np.float32)[targets]
        by_box = self.cutmix and (not self.mixup or generator.random() < 0.5)
        pictures, share = (
            _cut_in(pictures, self.cutmix, generator) if by_box else _mixed(pictures, self.mixup, generator)
        )
        return pictures, (share * targets + (1 - share) * np.roll(targets, 1, axis=0)).astype(np.float32)

    @property
    def _draws_of_policy(self) -> int:
        counts = {
            "randaugment": policies.DRAWS_OF_RANDAUGMENT * self.operations,
            "trivialaugment": policies.DRAWS_OF_TRIVIALAUGMENT,
        }
        return counts.get(self.policy, 0)

    def _is_mirrored(self, draws: np.ndarray, seed: int, epoch: int, index: int) -> bool:
        if self.flip != "alternating":
            return bool(self.flip) and bool(draws[_PLACES["flip"]][0] < 0.5)
        first = draws if epoch == 0 else _draws(seed, 0, index, len(draws))
        return bool(first[_PLACES["flip"]][0] < 0.5) ^ bool(epoch % 2)

    def _recoloured(self, picture: np.ndarray, draws: np.ndarray) -> np.ndarray:
        if self.policy == "randaugment":
            rest = draws[_FIRST_OF_POLICY:]
            picture = policies.randaugment(picture, rest, self.magnitude, self.magnitude_spread)
        elif self.policy == "trivialaugment":
            picture = policies.trivialaugment(picture, draws[_FIRST_OF_POLICY:])
        amounts, order = np.split(draws[_PLACES["jitter"]], 2)
        for place in np.argsort(order):
            most = self.jitter[place] if place < len(self.jitter) else 0
            if most:
                least, middle = (-most, 0) if place == _HUE else (max(-1, -most), 1)
                picture = _JITTERS[place](picture, float(middle + least + amounts[place] * (most - least)))
        return picture


def _draws(seed: int, epoch: int, index: int, count: int) -> np.ndarray:
    """Returns numbers in `[0, 1)`, of which the first are the same however many are drawn."""
    return np.random.default_rng((seed, epoch, index, _PICTURE)).random(count)


def shifted(
    picture: np.ndarray, down: int, right: int, pixels: int, border: Literal["zero", "reflect"] = "zero"
) -> np.ndarray:
    """Returns a picture padded by `pixels` on all sides, then cropped at `down` and `right` in `[0, 2 * pixels]`."""
    height, width, _ = picture.shape
    check_shift("Augmentation", "shift", pixels, side=min(height, width))
    if border == "reflect":
        padded = np.pad(picture, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")
        return padded[down : down + height, right : right + width]
    result = np.zeros_like(picture)
    down, right = down - pixels, right - pixels
    kept = picture[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    top, left = max(0, -down), max(0, -right)
    result[top : top + kept.shape[0], left : left + kept.shape[1]] = kept
    return result


Box = tuple[int, int, int, int]  # top, left, height, width


def crop_box(shape: tuple[int, ...], draws: Sequence[float] | np.ndarray, smallest: float) -> Box:
    """Returns a box of a share of the area in `[smallest, 1]` and a ratio in [3/4, 4/3], the first that fits of ten.

    Where none fits it is the largest of such a ratio, in the middle.
    """
    high, wide, _ = shape
    box = _drawn_box(shape, draws, (smallest, 1.0), _RATIOS)
    if box is not None:
        return box
    ratio = min(max(wide / high, _RATIOS[0]), _RATIOS[1])
    height, width = min(high, round(wide / ratio)), min(wide, round(high * ratio))
    return (high - height) // 2, (wide - width) // 2, height, width


def erased_box(shape: tuple[int, ...], draws: Sequence[float] | np.ndarray) -> Box:
    """Returns a box of 2 to 33 % of the area and a ratio in [0.3, 3.3], the first that fits of ten, or an empty one."""
    return _drawn_box(shape, draws, _ERASED_AREA, _ERASED_RATIOS) or (0, 0, 0, 0)


def cutout_box(shape: tuple[int, ...], draws: Sequence[float] | np.ndarray, side: int) -> Box:
    """Returns a square with a centre that is any pixel; a part of it may lie outside."""
    high, wide, _ = shape
    return int(draws[0] * high) - side // 2, int(draws[1] * wide) - side // 2, side, side


def _drawn_box(
    shape: tuple[int, ...],
    draws: Sequence[float] | np.ndarray,
    areas: tuple[float, float],
    ratios: tuple[float, float],
) -> Box | None:
    """Returns the first of several boxes that fits a picture, None if none does."""
    high, wide, _ = shape
    *sizes, down, right = (float(draw) for draw in draws)
    half = len(sizes) // 2
    low, top = math.log(ratios[0]), math.log(ratios[1])
    for share, place in zip(sizes[:half], sizes[half:], strict=True):
        area = high * wide * (areas[0] + share * (areas[1] - areas[0]))
        ratio = math.exp(low + place * (top - low))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= wide and 0 < height <= high:
            return int(down * (high - height + 1)), int(right * (wide - width + 1)), height, width
    return None


def blackened(picture: np.ndarray, box: Box) -> np.ndarray:
    """Returns a picture with 0 in a box, as far as that lies inside."""
    top, left, height, width = box
    result = picture.copy()
    result[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = 0
    return result


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
