"""PyTorch's pickled checkpoints, read without running what they may hold."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_residual._errors import CheckpointError, bad_checkpoint, missing_package

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise missing_package("torch", extra="torch") from None

# Training scripts keep their arguments in it. It holds values and runs nothing.
_HARMLESS = [argparse.Namespace]
_GET_AGAIN = "Delete it and get it again."
_NAMED_OBJECT = re.compile(r"GLOBAL (\S+)")


def read(path: Path) -> Any:
    """Returns the content of a file that `torch.save` wrote, on the CPU.

    Mappings become dictionaries, and the tensors in them arrays: of float32 where they are floats of another width, of
    their own type else.

    Raises:
        CheckpointError: If the file is damaged, or holds objects that could run code when they are loaded.
    """
    # Added in version 2.5.
    allow = getattr(torch.serialization, "safe_globals", contextlib.nullcontext)
    try:
        # Of a path PyTorch looks at the ending, which may be wrong.
        with path.open("rb") as file, allow(_HARMLESS):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    # Of damaged bytes the reader makes RuntimeError, EOFError, KeyError, struct.error, UnicodeDecodeError and others.
    except Exception as error:
        raise _refused(path, error) from None
    return _arrays(content)


def _arrays(value: Any) -> Any:
    match value:
        case torch.Tensor():
            return _array(value)
        case Mapping():
            return {key: _arrays(item) for key, item in value.items()}
    return value


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return np.asarray(tensor.resolve_conj().numpy(), order="C")


def _refused(path: Path, error: Exception) -> CheckpointError:
    if not isinstance(error, pickle.UnpicklingError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        return bad_checkpoint(path, f"the file is damaged ({reason})", _GET_AGAIN)
    named = _NAMED_OBJECT.search(str(error))
    if named is None:
        # Of what it cannot read PyTorch says that it should be executed.
        return bad_checkpoint(path, "the file is damaged, or torch.save did not write it", _GET_AGAIN)
    return bad_checkpoint(
        path,
        f"it holds the Python object {named[1]}, and loading such an object can run any code, so nothing was loaded",
        "Where you trust the file, load it once with torch.load(path, weights_only=False) and save the state dict "
        "alone: torch.save(model.state_dict(), path).",
    )
