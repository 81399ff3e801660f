"""From a name to a model."""

from __future__ import annotations

import fnmatch
import functools
from typing import Any

import keras

from keras_residual._errors import bad_argument, unknown_name
from keras_residual._order import natural_key
from keras_residual.layers.arguments import check_rate
from keras_residual.models.catalog import CATALOG
from keras_residual.models.resnet import ResNetConfig, build_resnet
from keras_residual.models.series import SeriesResNetConfig, build_series_resnet
from keras_residual.models.tabular import TabularResNetConfig, build_tabular_resnet
from keras_residual.stacks.initial_values import drawn_on_host

_BUILDERS: dict[type, Any] = {
    ResNetConfig: build_resnet,
    SeriesResNetConfig: build_series_resnet,
    TabularResNetConfig: build_tabular_resnet,
}
_RANKS: dict[type, tuple[int, str]] = {
    ResNetConfig: (3, "(height, width, channels)"),
    SeriesResNetConfig: (2, "(time, channels)"),
    TabularResNetConfig: (1, "(features,)"),
}


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the models, numbers in natural order.

    Args:
        pattern: Shell-style pattern, for example `"cifar_*"`.

    Example:
        >>> list_models("cifar_resnet*")[:2]
        ['cifar_resnet20', 'cifar_resnet32']
    """
    return sorted(fnmatch.filter(CATALOG, pattern), key=natural_key)


def create_model(
    name: str,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    drop_path_rate: float = 0.0,
    execution: str = "auto",
    remat: bool | str = False,
) -> keras.Model:
    """Returns a new model with random weights, from standardised inputs to logits.

    Args:
        name: One of `list_models()`.
        input_shape: Shape of one input: pictures `(height, width, channels)`, series `(time, channels)`, tables
            `(features,)`.
        num_classes: Number of logits, at least 1; for a regression the number of targets.
        drop_path_rate: Stochastic depth: rate of the last block in `[0, 1)`, rising linearly from 0 at the first.
        execution: How the equal blocks of each stage are executed, `"auto"`, `"unrolled"` or `"scan"`; see
            `ResidualStack`. It changes the time to compile, and no number.
        remat: `False`, `"full"` or `"sqrt"`: which activations are computed anew in the backward pass, see there.

    Returns:
        A functional `keras.Model` with output `(batch, num_classes)`.

    Raises:
        ValueError: For an unknown name (with the nearest one), a shape of the wrong rank or a rate outside `[0, 1)`.

    Example:
        >>> create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10).output_shape
        (None, 10)
    """
    if name not in CATALOG:
        raise unknown_name("create_model", "name", name, list_models())
    config = CATALOG[name]
    rank, form = _RANKS[type(config)]
    if len(input_shape) != rank or any(size is not None and size < 1 for size in input_shape):
        raise bad_argument("create_model", "input_shape", f"{form} for {name!r}", tuple(input_shape))
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise bad_argument("create_model", "num_classes", "a positive whole number", num_classes)
    rate = check_rate("create_model", "drop_path_rate", drop_path_rate)
    build = functools.partial(
        _BUILDERS[type(config)],
        config,
        input_shape=tuple(input_shape),
        num_classes=num_classes,
        drop_path_rate=rate,
        execution=execution,
        remat=remat,
        name=name,
    )
    return drawn_on_host(build)
