"""The largest curvature of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_residual import _backend
from keras_residual.xray.quantities.lanczos import first_vectors, lanczos_step

STEPS = 24


def sharpness(loss_of: Callable[[list[Any]], Any], weights: Sequence[Any], *, steps: int = STEPS) -> tuple[Any, Any]:
    """Returns the tridiagonal matrix whose `largest_eigenvalue` is that of the loss's Hessian, largest in size.

    Range: any number. Gradient descent with a learning rate `r` is stable below `2 / r`. It is found from below, to
    about two percent where thousands of eigenvalues are nearly as large, and else to the three digits to which `H v`
    is good, a central difference of gradients. Cost: two passes forward and back for each of the `steps`.

    Args:
        loss_of: From a list of tensors, the weights, to a scalar.
        weights: The weights, float tensors.
        steps: Number of Lanczos steps.

    Returns:
        The entries on the diagonal and beside it, `(steps,)` each, in float32.

    Reference:
        Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, 2021.
        https://arxiv.org/abs/2103.00065
        Yao et al., PyHessian, 2020. https://arxiv.org/abs/1912.07145
    """
    weights = [ops.cast(weight, "float32") for weight in weights]
    squares: list[Any] = [ops.sum(ops.square(weight)) for weight in weights]
    size: Any = ops.sqrt(sum(squares[1:], start=squares[0]))
    step: Any = ops.where(size > 0, size, ops.ones_like(size))
    step = 1e-3 * step

    def gradient(v: list[Any], sign: float) -> list[Any]:
        moved = [weight + sign * step * part for weight, part in zip(weights, v, strict=True)]
        loss, pullback = _backend.vjp(loss_of, moved)
        return pullback(ops.ones_like(loss))[0]

    def product(v: list[Any]) -> list[Any]:
        ends = zip(gradient(v, 1.0), gradient(v, -1.0), strict=True)
        return [(there - back) / (2 * step) for there, back in ends]

    def body(carry: Any, _: Any, __: Any) -> tuple[Any, tuple[Any, Any]]:
        before, vector, beside = carry
        following, entry, beside = lanczos_step(product, before, vector, beside)
        return (vector, following, beside), (entry, beside)

    first = (*first_vectors([weight.shape for weight in weights]), ops.zeros((), "float32"))
    return _backend.scan(body, first, (ops.zeros((steps,), "float32"),))[1]
