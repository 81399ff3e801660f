"""Where values that are not finite come from, for a report that has any: the batch, the weights, or a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from keras import ops

from keras_residual.xray.measuring.loss import loss_scale
from keras_residual.xray.measuring.origin import broken_gradient, broken_layer

Numbers = dict[str, Any]


def broken_facts(collection: Any, blocks: Sequence[Numbers], whole: Numbers) -> Numbers:
    """Returns where broken numbers come from, as far as there are any: `broken_weights`, `broken_arrays`, and so on.

    Args:
        collection: The collection that has run.
        blocks: The entries of the blocks.
        whole: The quantities of the whole.
    """
    weights = list(_broken_weights(collection))
    if not weights and not _is_broken(blocks, whole):
        return {}
    given = [array for key in ("inputs", "targets", "sample_weights") for array in whole[key] if array["missing"]]
    arrays = [
        {
            "where": array["name"],
            "what": "NaN" if array["nan"] else "infinite values",
            "samples": array["missing"],
            "share": array["missing_share"],
        }
        for array in given
        if _is_broken(blocks, whole)
    ]
    places = collection.recorder.places
    found: Numbers = {"broken_weights": weights, "broken_arrays": arrays, "broken_layer": None, "broken_gradient": None}
    if weights or arrays:
        return found
    model, given, training = collection.model, collection.given, collection.training
    # Code of others is run in ways that it may not have been written for: without a layer there is still the block.
    with suppress(Exception):
        if math.isfinite(whole["loss"]):
            scale = loss_scale(model, collection.dtype == "float16")
            found["broken_gradient"] = broken_gradient(model, given, collection.loss, scale, training, places)
        else:
            found["broken_layer"] = broken_layer(model, given[0], training, places)
    return found


def _is_broken(blocks: Sequence[Numbers], whole: Numbers) -> bool:
    numbers = [whole["loss"], whole["gradient_norm_input"], whole["gradient_norm_output"]]
    numbers += [block[key] for block in blocks for key in ("power", "gradient_norm", "weight_gradient_norm")]
    numbers += [part["weight_gradient_norm"] for part in whole["outside"]]
    shares = (block[key] for block in blocks for key in ("nan", "inf", "gradient_nan"))
    return not all(number is None or math.isfinite(number) for number in numbers) or any(shares)


def _broken_weights(collection: Any) -> Any:
    """Yields each variable that is not finite, with the block that holds it."""
    owners = {id(v): place.name for place in collection.recorder.places for v, _ in place.weights}
    for variable, numbers in zip(collection.weights, collection.numbers["weights"], strict=True):
        if np.isfinite(numbers["norm"]).all():
            continue
        value = np.asarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")))
        broken = ~np.isfinite(value)
        if broken.any():
            yield {
                "owner": owners.get(id(variable), variable.path.rpartition("/")[0] or variable.name),
                "name": variable.path,
                "what": "NaN" if np.isnan(value).any() else "infinite",
                "count": int(broken.sum()),
                "size": int(value.size),
            }
