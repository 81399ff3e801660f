"""Random changes to pictures that keep what they show: shifts and mirror images, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from keras_residual._errors import bad_argument

# A batch (examples, height, width, channels) and a generator in, a batch of the same shape and type out.
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def random_shift(
    batch: np.ndarray,
    rng: np.random.Generator,
    *,
    pixels: int,
    mode: Literal["constant", "reflect", "edge"] = "constant",
) -> np.ndarray:
    """Returns each picture moved by up to `pixels` along both axes, drawn for each: padded, then cropped.

    Args:
        batch: Shape `(examples, height, width, channels)`, any type.
        rng: Where the draws come from.
        pixels: Largest shift, 0 or more and less than the smaller side of the picture, of which something is to stay;
            every whole shift in `[-pixels, pixels]` is equally likely.
        mode: What fills the border: 0, the mirrored picture, or its edge.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, section 4.2
    """
    count, height, width, _ = batch.shape
    check_shift("random_shift", "pixels", pixels, side=min(height, width))
    if pixels == 0:
        return batch
    padded = np.pad(batch, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode=mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    down, right = rng.integers(0, 2 * pixels + 1, size=(2, count))
    return np.ascontiguousarray(np.moveaxis(windows[np.arange(count), down, right], 1, -1))


def random_flip(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the pictures `(examples, height, width, channels)`, each mirrored left to right with probability 1/2."""
    mirrored = rng.random(len(batch)) < 0.5
    return np.where(mirrored[:, None, None, None], batch[:, :, ::-1], batch)


def shift_and_flip(
    *, pixels: int = 0, flip: bool = False, mode: Literal["constant", "reflect", "edge"] = "constant"
) -> Augment:
    """Returns the function that shifts by up to `pixels` and, with `flip`, mirrors; arguments as in `random_shift`."""
    check_shift("shift_and_flip", "pixels", pixels)

    def augment(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        batch = random_shift(batch, rng, pixels=pixels, mode=mode)
        return random_flip(batch, rng) if flip else batch

    return augment


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
