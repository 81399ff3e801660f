"""Names for values whose type depends on the backend: to a type checker `Any`, to a reader what they are."""

from __future__ import annotations

from typing import Any

Shape = tuple[int | None, ...]
"""Sizes of a tensor, the batch first; None for a size that is not known."""

Tensor = Any
"""A tensor of the backend, or one of Keras that stands for it while a model is built; a variable counts as one too."""

Tree = Any
"""A structure of tensors: tuples, lists and dictionaries, nested as `keras.tree` takes them; or one tensor."""
