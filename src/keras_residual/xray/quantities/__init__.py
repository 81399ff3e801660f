"""What is measured: each quantity is one object, which says how it is measured, shown and judged."""

from __future__ import annotations

from keras_residual.xray.quantities.branch import BRANCH_COSINE, BRANCH_RATIO, BRANCH_VARIANCE, SHARE, UNDERFLOW
from keras_residual.xray.quantities.cka import CKA
from keras_residual.xray.quantities.early_exit import EARLY_EXIT
from keras_residual.xray.quantities.gradients import (
    GRADIENT_NAN,
    GRADIENT_NORM,
    GRADIENT_OVER_TIME,
    GRADIENT_RATIO,
    GRADIENT_SLOPE,
    GRADIENT_SPREAD,
    GRADIENT_UNDERFLOW,
    LOSS,
)
from keras_residual.xray.quantities.jacobian import BRANCH_GAIN, CHI, PATH_LENGTHS, SINGULAR_VALUE
from keras_residual.xray.quantities.lesion import LESION
from keras_residual.xray.quantities.loss_slice import LOSS_SLICE, LOSS_SURFACE
from keras_residual.xray.quantities.numerics import INF, NAN
from keras_residual.xray.quantities.quantity import Of, Quantity
from keras_residual.xray.quantities.sharpness import SHARPNESS
from keras_residual.xray.quantities.shattering import SHATTERING
from keras_residual.xray.quantities.signal import (
    POWER,
    SAMPLE_COSINE,
    SIGNAL_RATIO,
    SIGNAL_SLOPE,
    SQUARED_MEAN,
    VARIANCE,
)
from keras_residual.xray.quantities.streams import DOUBLE_STOCHASTICITY, STREAM_COLLAPSE, TRANSPORT_GAIN
from keras_residual.xray.quantities.units import DEAD_UNITS, SATURATED_UNITS
from keras_residual.xray.quantities.weights import (
    LEARNING_RATE,
    UPDATE_RATIO,
    UPDATE_SIZE,
    WEIGHT_GRADIENT_ENDS,
    WEIGHT_GRADIENT_NORM,
    WEIGHT_GRADIENT_RATIO,
    WEIGHT_GRADIENT_SLOPE,
    WEIGHT_NORM,
)

QUANTITIES: list[Quantity] = [
    *(GRADIENT_NORM, WEIGHT_GRADIENT_RATIO, UPDATE_RATIO, GRADIENT_SPREAD, WEIGHT_NORM),
    *(VARIANCE, SAMPLE_COSINE),
    *(BRANCH_RATIO, BRANCH_COSINE, SHARE, LESION, CHI, BRANCH_GAIN, SINGULAR_VALUE),
    *(STREAM_COLLAPSE, TRANSPORT_GAIN, DOUBLE_STOCHASTICITY, EARLY_EXIT),
    *(DEAD_UNITS, SATURATED_UNITS, NAN, INF, GRADIENT_NAN, GRADIENT_UNDERFLOW),
    # Those that no page shows by depth.
    *(SQUARED_MEAN, POWER, BRANCH_VARIANCE, UNDERFLOW, WEIGHT_GRADIENT_NORM, UPDATE_SIZE, GRADIENT_OVER_TIME),
    # Those of the whole.
    *(PATH_LENGTHS, SHATTERING, CKA, LOSS_SLICE, LOSS_SURFACE, SHARPNESS),
    *(LOSS, LEARNING_RATE, GRADIENT_RATIO, GRADIENT_SLOPE, WEIGHT_GRADIENT_ENDS, WEIGHT_GRADIENT_SLOPE),
    *(SIGNAL_RATIO, SIGNAL_SLOPE),
]
"""In the order in which a page has them. Whatever measures or shows quantities looks here at that moment."""


def measured_of(of: Of) -> list[Quantity]:
    """Returns the quantities that are measured of one thing, as `Quantity` names these."""
    return [quantity for quantity in QUANTITIES if quantity.of == of]


def by_request() -> dict[str, Quantity]:
    """Returns the quantities on request by their names in `quantities=`."""
    return {quantity.asked_as: quantity for quantity in measured_of("request")}
