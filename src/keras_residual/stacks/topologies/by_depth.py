"""Initial values that depend on the index of the block, known or not yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops


class ByDepth:
    """An initializer whose values are those of a block, by its index.

    The one body of a scanned stack stands for every index: the stack asks for the values of each block with `at`.

    Args:
        values: Returns the initial value from the index of the block, from 0.
        index: Index of the block; None, where it is not known, draws as the first one.
    """

    def __init__(self, values: Callable[[int], np.ndarray], index: int | None) -> None:
        self.values = values
        self.index = index

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns the initial value."""
        return self.at(self.index or 0)(shape, dtype)

    def at(self, index: int) -> Callable[..., Any]:
        """Returns the initializer of the block with that index.

        It has no method `at` itself: what stacks there may be around this one is nothing to it.
        """
        values = self.values(index)

        def initializer(shape: Any, dtype: Any = None) -> Any:
            return ops.convert_to_tensor(np.reshape(values, shape), dtype=dtype)

        return initializer
