"""Which columns of a table are features."""

from __future__ import annotations

from keras_residual._errors import bad_data, did_you_mean, shown
from keras_residual.data.request import Request


def pick_features(columns: tuple[str, ...], request: Request, *, target: str | None) -> tuple[str, ...]:
    """Returns the names of the feature columns: those of the request, or all but the target and the dropped ones.

    Args:
        columns: Names of all columns, each once.
        request: Gives `features` and `drop`.
        target: The column that holds the answer, None where it is no column.

    Raises:
        ValueError: If a name is not a column, the target is dropped or a feature, or no feature is left.
    """
    check_columns(request.features, columns, owner=request.owner)
    for name in request.drop:
        if name not in columns:
            raise bad_data(
                request.owner, f"`drop` names {shown(name)}, which is not a column", did_you_mean(name, columns).strip()
            )
    if target is not None and target in request.drop:
        raise bad_data(request.owner, f"`drop` names the target column {shown(target)}", "Take it out of `drop`.")
    if target is not None and target in request.features:
        raise bad_data(
            request.owner, f"the target column {shown(target)} is one of the columns that the model takes",
            "Name another target.",
        )  # fmt: skip
    if request.features:
        return request.features
    dropped = {target, *request.drop}
    features = tuple(name for name in columns if name not in dropped)
    if not features:
        raise bad_data(request.owner, "no column is left to learn from beside the target and the dropped ones")
    return features


def check_columns(features: tuple[str, ...], columns: tuple[str, ...], *, owner: str) -> None:
    """Raises a ValueError for the first of a model's features that is no column; the others may be in any order."""
    known = set(columns)
    for name in features:
        if name not in known:
            raise bad_data(owner, f"the model needs the column {shown(name)}", did_you_mean(name, columns).strip())
