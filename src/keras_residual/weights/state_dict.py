"""The arrays of one model in what a training program has saved, under the names that the model gave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import bad_checkpoint

# The keys under which training programs keep the weights beside the optimizer, in the order of preference.
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model")
_AVERAGED = ("state_dict_ema", "model_ema")
# What DistributedDataParallel and torch.compile put before each name.
_PREFIXES = ("module.", "_orig_mod.")
# Counters: of a batch norm, which with a fixed momentum has no use for it, and of an averaged model.
_COUNTERS = ("num_batches_tracked", "n_averaged")


def find_state_dict(content: Any, path: Path, *, ema: bool = False) -> dict[str, np.ndarray]:
    """Returns the weights, whose names lose the prefixes that all of them share.

    Args:
        content: Mapping of names to arrays, on its own or under one of the keys of training programs.
        path: The file, for messages.
        ema: Whether to take the averaged weights.

    Raises:
        CheckpointError: If there are no such weights; says what there is.
    """
    tree = content if isinstance(content, Mapping) else {}
    inside = _inside(tree, _AVERAGED) if ema else tree
    if inside is None:
        raise bad_checkpoint(path, f"it has no averaged weights. {_keys(tree)}", "Read it without `ema`.")
    arrays = _weights(_inside(inside, _PLAIN) or inside)
    if not arrays:
        averaged = _inside(tree, _AVERAGED) is not None
        raise bad_checkpoint(
            path,
            f"it holds no tensor{' but the averaged weights' if averaged else ''}. {_keys(tree)}",
            "Pass `ema=True`."
            if averaged
            else "Save the state dict of the model: torch.save(model.state_dict(), path).",
        )
    return _without_prefixes(arrays)


def _inside(tree: Mapping, keys: tuple[str, ...]) -> Mapping | None:
    """Returns the innermost mapping with weights under these keys."""
    for key in keys:
        under = tree.get(key)
        if isinstance(under, Mapping):
            deeper = _inside(under, _PLAIN)
            if deeper is not None:
                return deeper
            if _weights(under):
                return under
    return None


def _weights(tree: Mapping) -> dict[str, np.ndarray]:
    return {
        name: value
        for name, value in tree.items()
        if isinstance(name, str) and isinstance(value, np.ndarray) and name.rpartition(".")[2] not in _COUNTERS
    }


def _without_prefixes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in arrays):
            return _without_prefixes({name.removeprefix(prefix): array for name, array in arrays.items()})
    return arrays


def _keys(tree: Mapping, most: int = 8) -> str:
    names = [str(key) for key in tree]
    if not names:
        return "It is empty or no dictionary"
    return f"Its keys: {', '.join(names[:most])}{', …' if len(names) > most else ''}"
