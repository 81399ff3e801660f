"""What reads the hostile files of `test_weights.py`, as the harness calls it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_hub import fake_hub
from keras_residual._errors import CheckpointError
from keras_residual.models.keras_file import KerasFileError, load_keras_model
from keras_residual.weights.files import read_checkpoint
from keras_residual.weights.hub import open_location

ABSOLUTE = Path(tempfile.gettempdir()) / "keras-residual-must-not-be-written"
"""Where an answer that is an absolute path leads to."""


def digest(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what says whether two sets of arrays are the same."""
    return {
        name: [list(array.shape), str(array.dtype), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
        for name, array in arrays.items()
    }


def checkpoint(path: str) -> dict[str, Any]:
    return digest(read_checkpoint(path))


checkpoint.refuses = (CheckpointError,)


def keras_model(path: str) -> dict[str, Any]:
    model = load_keras_model(Path(path))
    return digest({f"{n} {weight.path}": np.asarray(weight.numpy()) for n, weight in enumerate(model.weights)})


keras_model.refuses = (KerasFileError,)


def hub(path: str) -> dict[str, Any]:
    """Reads a repository from a server that answers as the file says; outside the cache nothing may come to be."""
    answers = json.loads(Path(path).read_bytes())
    folder = Path(path).parent / "a" / "b" / "c"
    folder.mkdir(parents=True)
    patch = pytest.MonkeyPatch()
    files, answers["sent"] = (
        {name: bytes.fromhex(content) for name, content in answers.pop(key).items()} for key in ("files", "sent")
    )
    before = _outside(folder)
    try:
        with fake_hub(patch, "owner/name", files) as server:
            vars(server).update(answers)
            return digest(open_location("hf://owner/name", cache_dir=folder / "cache").tensors)
    finally:
        if _outside(folder) != before:
            raise AssertionError(f"written outside the cache: {sorted(_outside(folder) - before)}")


hub.refuses = (CheckpointError, ConnectionError)


def _outside(folder: Path) -> set[str]:
    inside = folder / "cache"
    found = {str(entry) for entry in folder.parents[2].rglob("*") if not entry.is_relative_to(inside)}
    return found | {str(entry) for entry in (ABSOLUTE, *Path.cwd().iterdir()) if os.path.lexists(entry)}
