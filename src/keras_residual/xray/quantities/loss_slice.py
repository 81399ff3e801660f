"""The loss along lines and planes through the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual.xray.find.structure import distinct, trained_weights
from keras_residual.xray.quantities.chart import TIGHT, Chart, alone
from keras_residual.xray.quantities.directions import own_draws
from keras_residual.xray.quantities.quantity import Passes, Quantity, needs_targets

REACH = 1.0
"""How far a slice goes to either side. At 1 each filter has been moved by as much as it is long."""

SLICE_POINTS = 51
SURFACE_POINTS = 21


Direction = list[tuple[keras.Variable, np.ndarray]]
"""How each of the weights moves."""


def filter_normalised(drawn: np.ndarray, weights: np.ndarray, filters: Sequence[int] | None) -> np.ndarray:
    """Returns a direction of which each filter is as long as that of the weights: `d_f ||w_f|| / ||d_f||`.

    So that a slice tells the same of a net and of one with all its weights times ten behind a norm, which computes the
    same. Zeros for a weight without filters: biases, and the factors and shifts of norms, stay where they are, as in
    the authors' code (`--xignore biasbn`).

    Args:
        drawn: Array of normal draws.
        weights: Array of the same shape.
        filters: The axes that number filters; None for a weight that stays where it is.

    Reference:
        Li et al., Visualizing the Loss Landscape of Neural Nets, 2018. https://arxiv.org/abs/1712.09913, section 4
    """
    if filters is None:
        return np.zeros(weights.shape, "float32")
    kept = {axis % weights.ndim for axis in filters}
    others = tuple(axis for axis in range(weights.ndim) if axis not in kept)
    lengths, own = (np.sqrt(np.square(x.astype("float64")).sum(axis=others, keepdims=True)) for x in (drawn, weights))
    return (drawn * (own / np.where(lengths > 0, lengths, 1.0))).astype("float32")


def curvature(at: Sequence[float], losses: Sequence[float]) -> float:
    """Returns the second derivative of a slice in its middle, from the three points there.

    Range: any number. It is `d' H d` for the Hessian `H` and the direction `d`: a sharp minimum has a large one. A
    random direction meets the mean of all curvatures; the largest is the sharpness.

    Args:
        at: Distances along the direction, evenly spaced, an odd number of them.
        losses: The loss at each.
    """
    middle = len(at) // 2
    step = at[middle + 1] - at[middle]
    return float((losses[middle + 1] - 2 * losses[middle] + losses[middle - 1]) / step**2)


def slice_points(count: int = SLICE_POINTS) -> np.ndarray:
    """Returns the distances along one direction, `(count, 1)`, with 0 among them.

    Args:
        count: Number of points, odd.
    """
    return np.linspace(-REACH, REACH, count)[:, None].astype("float32")


def surface_points(count: int = SURFACE_POINTS) -> np.ndarray:
    """Returns the distances along two directions, `(count * count, 2)`, row by row.

    Args:
        count: Number of points along each, odd.
    """
    line = np.linspace(-REACH, REACH, count)
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2).astype("float32")


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

    return np.asarray(ops.convert_to_numpy(_backend.compiled(program, variables)((given, moves, points))))


def _add_slice(look: Any, blocks: Any, model: Any) -> None:
    points = slice_points()
    losses = _losses(look, points, 1).tolist()
    at = [float(point) for point in points[:, 0]]
    model["loss_slice"] = {"at": at, "loss": losses, "curvature": curvature(at, losses)}


def _add_surface(look: Any, blocks: Any, model: Any) -> None:
    """Adds `loss_surface`: a row for each distance along the first direction."""
    points = surface_points()
    side = round(len(points) ** 0.5)
    losses = _losses(look, points, 2).reshape(side, side)
    model["loss_surface"] = {"at": [float(point) for point in points[:side, 1]], "loss": losses.tolist()}


def _losses(look: Any, points: np.ndarray, count: int) -> np.ndarray:
    # The first direction of the plane is that of the line.
    directions = [random_direction_of(look.model, seed) for seed in range(count)]
    return losses_around(look.model, look.loss_at_inference, directions, points, look.given)


def _draw_slice(found: Mapping[str, Any], model: Mapping[str, Any], names: list[str]) -> Chart:
    pairs = zip(found["at"], found["loss"], strict=True)
    points = [{"at": at, "loss": loss} for at, loss in pairs if loss is not None]
    sharpness = model.get("sharpness")
    spec = {
        "layer": [
            {"mark": {"type": "line", "color": "--first"}},
            {
                "transform": [{"filter": "datum.at === 0"}],
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "color": "--picked"},
            },
        ],
        "encoding": {
            "x": {"field": "at", "type": "quantitative", "title": "distance from the weights, in their own size"},
            "y": {"field": "loss", "type": "quantitative", "axis": {"title": "loss", "format": "~g"}},
            "tooltip": [
                {"field": "at", "type": "quantitative", "title": "distance", "format": ".3~g"},
                {"field": "loss", "type": "quantitative", "title": "loss", "format": ".4~g"},
            ],
        },
    }
    return Chart(
        key="loss_slice",
        title="How rough is the ground that training walks on?",
        words="The dot is the net with its weights as they are. To both sides all weights are moved in one random "
        "direction, and the line shows the loss, the measure of mistakes. Healthy is a wide, smooth valley with the "
        "dot at its bottom. Jags and cliffs make small steps of training fail.",
        here="" if sharpness is None else f"Here the sharpest direction bends by {sharpness:.3g} (sharpness).",
        chapter="whole",
        spec=alone(spec, points),
    )


def _draw_surface(found: Mapping[str, Any], model: Mapping[str, Any], names: list[str]) -> Chart:
    at = found["at"]
    half = (at[-1] - at[0]) / (len(at) - 1) / 2 if len(at) > 1 else 0.5
    cells = [
        {"left": a - half, "right": a + half, "low": b - half, "high": b + half, "loss": loss}
        for a, row in zip(at, found["loss"], strict=True)
        for b, loss in zip(at, row, strict=True)
        if loss is not None
    ]
    losses = [cell["loss"] for cell in cells]
    wide = losses and min(losses) > 0 and max(losses) > 20 * min(losses)
    spec = {
        "mark": {"type": "rect"},
        "encoding": {
            "x": {"field": "left", "type": "quantitative", "title": "first random direction", "scale": TIGHT},
            "x2": {"field": "right"},
            "y": {"field": "low", "type": "quantitative", "title": "second random direction", "scale": TIGHT},
            "y2": {"field": "high"},
            "color": {
                "field": "loss",
                "type": "quantitative",
                "scale": {"scheme": "viridis", "reverse": True, "type": "log" if wide else "linear"},
                "legend": {"title": "loss", "format": "~g"},
            },
            "tooltip": [{"field": "loss", "type": "quantitative", "title": "loss", "format": ".4~g"}],
        },
    }
    return Chart(
        key="loss_surface",
        title="What does the ground look like from above?",
        words="The net as it is lies in the middle; outwards all weights are moved in two random directions. Bright "
        "is a small loss, dark a large one. Healthy is one smooth bright basin around the middle.",
        here="",
        chapter="whole",
        spec={**alone(spec, cells), "height": 320},
    )


LOSS_SLICE = Quantity(
    key="loss_slice",
    definition="the loss along one random direction through the weights, and its `curvature` there",
    of="request",
    of_whole=True,
    by=_add_slice,
    cost=Passes(forward=SLICE_POINTS, beside="the weights are kept once more"),
    check=needs_targets,
    draw=_draw_slice,
)

LOSS_SURFACE = Quantity(
    key="loss_surface",
    definition="the same over the plane of two directions",
    of="request",
    of_whole=True,
    by=_add_surface,
    cost=Passes(forward=SURFACE_POINTS**2, beside="the weights are kept twice more"),
    check=needs_targets,
    draw=_draw_surface,
)
