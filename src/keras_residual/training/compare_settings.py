"""What a comparison is told, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from keras_residual._errors import bad_argument

DEPTHS = (8, 16, 32, 64)
LAYERS_IN_A_BLOCK = 2
WIDEST, DEEPEST, MOST_EPOCHS = 2**16, 10_000, 10**6


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which nets are compared, and how each is trained, all alike.

    Args:
        depths: Numbers of Dense layers in the blocks, even and different, from 2 to 10,000.
        width: Width of each layer, in `[1, 65536]`.
        epochs: Passes over the training examples, in `[1, 1000000]`; None is what comes to about 660 steps.
        learning_rate: First rate of the optimizer, above 0; None is 0.05 for classes and 0.001 for numbers.
        seed: Seed of the first weights and of the order of the examples.

    Raises:
        ValueError: If a value is out of its range.
    """

    depths: tuple[int, ...] = DEPTHS
    width: int = 64
    epochs: int | None = None
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.depths or len(set(self.depths)) < len(self.depths) or not all(map(_is_depth, self.depths)):
            raise bad_depths(",".join(map(str, self.depths)))
        if not 1 <= self.width <= WIDEST:
            raise bad_argument("compare", "width", f"in [1, {WIDEST}]", self.width)
        if self.epochs is not None and not 1 <= self.epochs <= MOST_EPOCHS:
            raise bad_argument("compare", "epochs", f"in [1, {MOST_EPOCHS}]", self.epochs)
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise bad_argument("compare", "learning_rate", "a number above 0", self.learning_rate)
        if not 0 <= self.seed < 2**32:
            raise bad_argument("compare", "seed", "a whole number in [0, 4294967295]", self.seed)


def parse_depths(text: str) -> tuple[int, ...]:
    """Returns the depths in a text such as `"8,16,32,64"`.

    Raises:
        ValueError: If a part is no whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise bad_depths(text) from None


def bad_depths(text: str) -> ValueError:
    """Returns the error for depths that cannot be compared."""
    way_out = "A block has two layers, so for example: 8,16,32,64."
    rule = f"different even numbers, from 2 to {DEEPEST}, with commas between"
    return bad_argument("compare", "depths", rule, text, way_out)


def _is_depth(depth: int) -> bool:
    return LAYERS_IN_A_BLOCK <= depth <= DEEPEST and depth % LAYERS_IN_A_BLOCK == 0
