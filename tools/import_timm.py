"""Imports timm, also beside a PyTorch for the CPU alone: what the parity tests, tools and benchmarks compare with."""

from __future__ import annotations

import sys
from typing import Any

_kept: list[Any] = []  # the operators go when the object does that declared them


def import_timm() -> Any:
    """Returns timm.

    timm imports torchvision, of which PyPI has for Linux builds with CUDA alone, whatever the release. Beside a PyTorch
    without CUDA such a build cannot load its operators, and its import fails as it describes them to PyTorch. Declared
    by hand, they let it import; timm uses none of them.

    Raises:
        ImportError: Where PyTorch, torchvision or timm is not installed.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import torchvision  # noqa: F401
    import timm

    return timm
