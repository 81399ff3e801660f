"""The backend's primitives on PyTorch; `keras_residual._backend` describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, forward: Any, backward: Any) -> Any:
        ctx.save_for_backward(backward)
        return x * forward

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None, None]:
        (backward,) = ctx.saved_tensors
        return grad_outputs[0] * backward, None, None


scale = _Scale.apply


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Returns the gradient of a scalar function."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]
