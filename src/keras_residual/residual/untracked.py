"""What a layer holds without having it: templates that are copied, choices that were not taken."""

from __future__ import annotations

from typing import Any


class Untracked:
    """Holds what is no part of a layer, so that Keras neither counts nor saves it, nor misses that it is not built.

    A model with a layer that is not built is called once more, operation by operation, at each `predict_on_batch`.

    Args:
        value: What is held.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
