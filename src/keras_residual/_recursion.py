"""Long chains of layers in a Functional model: Keras walks back through them with one Python frame per layer."""

from __future__ import annotations

import math
import sys
from typing import Any
from weakref import WeakKeyDictionary

from keras_residual._errors import bad_argument

LONGEST = 100_000
"""Length of the longest chain for which the limit is raised; it was tried that far, on a C stack of 256 KiB."""

HEADROOM = 1000
"""Frames for everything else, including layers after the last residual one: Python's own default."""

_STEP = 1000

_lengths: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def make_room(owner: str, inputs: Any) -> None:
    """Raises Python's recursion limit if a layer called on `inputs` would make the graph too long for it.

    The limit is never lowered: the model is made later, and may be saved, loaded and cloned at any time after that.
    CPython 3.11 and newer keep the frames of calls from Python to Python on the heap, so a higher limit does not
    use more of the C stack in this walk.

    Args:
        owner: What is being called, for example `"Residual 'block1'"`.
        inputs: Symbolic tensor.

    Raises:
        ValueError: For a chain that is too long for this Python.
    """
    length = _length_at(inputs) + 1
    if length + HEADROOM <= sys.getrecursionlimit():
        return
    frames_on_heap = sys.implementation.name == "cpython"
    if length > LONGEST or not frames_on_heap:
        most = LONGEST if frames_on_heap else max(sys.getrecursionlimit() - HEADROOM, 0)
        rule = f"a tensor that makes a chain of at most {most} layers with this one on {sys.implementation.name}"
        way_out = "Use kr.ResidualStack(block, depth), which is one layer of the graph however deep it is."
        raise bad_argument(owner, "inputs", rule, length, way_out)
    # In steps, so that one new limit serves the next layers as well.
    sys.setrecursionlimit(math.ceil((length + HEADROOM) / _STEP) * _STEP)


def _length_at(tensor: Any) -> int:
    """Returns the number of layers on the longest path from an input of the graph to `tensor`, without recursion."""
    last = _node_of(tensor)
    if last is None:
        return 0
    waiting = [last]
    while waiting:
        node = waiting[-1]
        before = [found for found in map(_node_of, node.input_tensors) if found is not None]
        unknown = [found for found in before if found not in _lengths]
        if unknown:
            waiting.extend(unknown)
        else:
            waiting.pop()
            _lengths[node] = 1 + max((_lengths[found] for found in before), default=0)
    return _lengths[last]


def _node_of(tensor: Any) -> Any:
    """Returns the node that produced a symbolic tensor, or None if Keras did not record it."""
    # Keras has no public API for the graph that it walks itself.
    history = getattr(tensor, "_keras_history", None)
    return history.operation._inbound_nodes[history.node_index] if history and history.operation else None
