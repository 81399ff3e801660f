"""The arrays of one model in what a training program has saved, under the names that the model gave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._backend.torch_pickle import Tensor, Unread
from keras_residual._errors import bad_checkpoint, listed

# The keys under which training programs keep the weights beside the optimizer, in the order of preference.
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params", "weights")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema", "ema")
_MOST_MAPPINGS, _MOST_PREFIXES = 64, 8
# What DistributedDataParallel, torch.compile, Lightning and other programs put before each name of the model's.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "ema_model.")
# Counters: of a batch norm, which with a fixed momentum has no use for it, and of an averaged model.
_COUNTERS = ("num_batches_tracked", "n_averaged")
# Beside its model such a program may hold the weights of its loss.
_LOSSES = ("criterion.", "loss.", "loss_fn.", "loss_function.", "metrics.")


def find_state_dict(content: Any, path: Path, *, ema: bool = False) -> dict[str, Any]:
    """Returns the weights, without the prefixes that all names share.

    Args:
        content: Mapping of names to arrays, or to descriptions of tensors in the file, on its own or under the keys of
            training programs.
        path: The file, for messages.
        ema: Whether to take the averaged weights.

    Raises:
        CheckpointError: If there are no such weights; the message says what there is.
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


def _inside(tree: Mapping, keys: tuple[str, ...], seen: set[int] | None = None) -> Mapping | None:
    """Returns the innermost mapping with weights under these keys."""
    seen = set() if seen is None else seen
    for key in keys:
        under = tree.get(key)
        # Mappings may lie in each other in any depth, and in themselves.
        if isinstance(under, Mapping) and id(under) not in seen and len(seen) < _MOST_MAPPINGS:
            seen.add(id(under))
            deeper = _inside(under, _PLAIN, seen)
            if deeper is not None:
                return deeper
            if _weights(under):
                return under
    return None


def _weights(tree: Mapping) -> dict[str, Any]:
    return {
        name: value
        for name, value in tree.items()
        if isinstance(name, str)
        and isinstance(value, np.ndarray | Tensor | Unread)
        and name.rpartition(".")[2] not in _COUNTERS
    }


def _without_prefixes(arrays: dict[str, Any]) -> dict[str, Any]:
    for _ in range(_MOST_PREFIXES):
        ours = [name for name in arrays if not name.startswith(_LOSSES)]
        shared = next((prefix for prefix in _PREFIXES if ours and all(name.startswith(prefix) for name in ours)), None)
        if shared is None:
            break
        arrays = {name.removeprefix(shared): arrays[name] for name in ours}
    return arrays


def _keys(tree: Mapping) -> str:
    return f"Its keys: {listed(tree)}" if tree else "It is empty or no dictionary"
