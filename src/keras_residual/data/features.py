"""Which columns of a table are features."""

from __future__ import annotations

from keras_residual._errors import did_you_mean
from keras_residual.data.request import Request


def pick_features(columns: tuple[str, ...], request: Request, *, target: str | None) -> tuple[str, ...]:
    """Returns the names of the feature columns: those of the request, or all but the target and the dropped ones.

    Args:
        columns: Names of all columns, each once.
        request: Gives `features` and `drop`.
        target: The column that holds the answer, None where it is no column.

    Raises:
        ValueError: If a name is not a column, the target is dropped, or no feature is left.
    """
    for argument in ("drop", "features"):
        for name in getattr(request, argument):
            if name not in columns:
                raise ValueError(
                    f"{request.owner}: `{argument}` names {name!r}, which is not a column.{did_you_mean(name, columns)}"
                )
    if target is not None and target in request.drop:
        raise ValueError(f"{request.owner}: `drop` names the target column {target!r}. Take it out of `drop`.")
    if request.features:
        return request.features
    features = tuple(name for name in columns if name != target and name not in request.drop)
    if not features:
        raise ValueError(f"{request.owner}: no column is left to learn from beside the target and the dropped ones.")
    return features
