"""The largest curvature of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_residual import _backend
from keras_residual.xray.find.structure import distinct, trained_weights
from keras_residual.xray.quantities.directions import first_vectors, lanczos_step, largest_eigenvalue
from keras_residual.xray.quantities.quantity import Passes, Quantity, needs_targets

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


def sharpness_of(model: keras.Layer, loss_of: Callable[[Any], Any], given: Any) -> float:
    """Returns the sharpness of a loss in a model's trainable weights.

    Args:
        model: The model.
        loss_of: From what is given to the loss, by the model's weights as they are then.
        given: Structure of tensors.
    """
    variables = distinct(model.variables)
    trained = [variable for variable, _ in trained_weights(model)]
    moving = {id(variable) for variable in trained}
    others = [variable for variable in variables if id(variable) not in moving]

    def program(given: Any) -> Any:
        kept = [ops.convert_to_tensor(variable.value) for variable in others]

        def loss(values: list[Any]) -> Any:
            cast = [ops.cast(value, variable.dtype) for value, variable in zip(values, trained, strict=True)]
            pairs = [*zip(trained, cast, strict=True), *zip(others, kept, strict=True)]
            with keras.StatelessScope(pairs):
                return loss_of(given)

        return sharpness(loss, [ops.convert_to_tensor(variable.value) for variable in trained])

    return largest_eigenvalue(*_backend.compiled(program, variables)(given))


def _add(look: Any, blocks: Any, model: Any) -> None:
    model["sharpness"] = sharpness_of(look.model, look.loss_at_inference, look.given)


SHARPNESS = Quantity(
    key="sharpness",
    definition="eigenvalue of the loss's Hessian that is largest in size",
    of="request",
    of_whole=True,
    by=_add,
    cost=Passes(forward=2 * STEPS, backward=2 * STEPS, beside="the weights are kept three times more"),
    check=needs_targets,
)
