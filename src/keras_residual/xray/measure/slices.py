"""The loss around the weights, in one compiled program; the weights themselves stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual.xray.find.structure import distinct, trained_weights
from keras_residual.xray.quantities.draws import own_draws
from keras_residual.xray.quantities.lanczos import largest_eigenvalue
from keras_residual.xray.quantities.loss_slice import filter_normalised
from keras_residual.xray.quantities.sharpness import sharpness

Direction = list[tuple[keras.Variable, np.ndarray]]
"""How each of the weights moves."""


def random_direction_of(model: keras.Layer, seed: int) -> Direction:
    """Returns a random direction in the space of a model's trainable weights, normalised filter by filter.

    Args:
        model: A built model or layer.
        seed: Seed of the draws.
    """
    rng = own_draws(seed)
    direction: Direction = []
    for variable, filters in trained_weights(model):
        weights = np.asarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")))
        drawn = rng.normal(size=weights.shape)
        direction.append((variable, filter_normalised(drawn, weights, filters)))
    return direction


def losses_around(
    model: keras.Layer,
    loss_of: Callable[[Any], Any],
    directions: Sequence[Direction],
    points: np.ndarray,
    given: Any,
) -> np.ndarray:
    """Returns the loss at each point, `(points,)`: with the weights moved by so much along each direction.

    Args:
        model: The model.
        loss_of: From what is given to the loss, by the model's weights as they are then.
        directions: How the weights move.
        points: Distances along the directions, `(points, directions)`.
        given: Structure of tensors.
    """
    variables = distinct(model.variables)
    places = {id(variable): str(index) for index, variable in enumerate(variables)}
    moves = [{places[id(variable)]: moved for variable, moved in direction if moved.any()} for direction in directions]

    def program(arguments: Any) -> Any:
        given, moves, points = arguments
        start = [ops.convert_to_tensor(variable.value) for variable in variables]

        def body(carry: Any, x: Any, _: Any) -> tuple[Any, tuple[Any]]:
            values: list[Any] = list(start)
            for number, move in enumerate(moves):
                for place, moved in move.items():
                    step = x[0][number] * ops.cast(ops.convert_to_tensor(moved), "float32")
                    value = values[int(place)]
                    values[int(place)] = value + ops.cast(step, value.dtype)
            # Every variable, since a scope does not look into the one around it.
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                return carry, (loss_of(given),)

        _, (losses,) = _backend.scan(body, ops.zeros(()), (ops.convert_to_tensor(points),))
        return losses

    return np.asarray(ops.convert_to_numpy(_backend.run_compiled(program, variables, (given, moves, points))))


def sharpness_of(model: keras.Layer, loss_of: Callable[[Any], Any], given: Any) -> float:
    """Returns the sharpness of a loss in a model's trainable weights.

    Args:
        model: The model.
        loss_of: As for `losses_around`.
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

    return largest_eigenvalue(*_backend.run_compiled(program, variables, given))
