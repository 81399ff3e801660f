"""Gradient and signal by depth in the nets of a comparison, at the same points of both: the stem, and each block."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._backend import input_gradient
from keras_residual.xray.quantities.gradients import gradient_norm
from keras_residual.xray.quantities.signal import power


def by_depth(net: keras.Model, x: Any, y: Any, loss: keras.losses.Loss, when: str) -> dict[str, list[float]]:
    """Returns the quantities of the X-ray behind the stem and behind each block, with batch norm as in training.

    The X-ray itself looks at residual connections, or at layers where there are none. To set two nets beside each other
    it must be the same places: the last layer of the stem and of each block, whose output is the stream. It runs
    without compiling, as it is for two moments of a net.

    - `gradient_by_depth_WHEN`: mean over the examples of the norm of the gradient of their loss.
    - `signal_by_depth_WHEN`: mean square of the stream.

    Args:
        net: A net of `compare_nets`, whose layers are a chain.
        x: A batch.
        y: Its targets.
        loss: The loss.
        when: What the names end with.
    """
    x = ops.convert_to_tensor(x)
    with keras.StatelessScope():  # drops the new moving averages
        *streams, _ = _streams(net, x)
    # Zeros that are added to each stream: their gradients are those of the streams.
    zeros = ops.zeros((len(streams), *streams[0].shape))
    gradient = input_gradient(lambda added: loss(y, _streams(net, x, added)[-1]), zeros)
    norms = ops.convert_to_numpy(gradient_norm(gradient, batch_axis=1))
    return {
        f"gradient_by_depth_{when}": np.asarray(norms).tolist(),
        f"signal_by_depth_{when}": [np.asarray(ops.convert_to_numpy(power(stream))).item() for stream in streams],
    }


def _streams(net: keras.Model, x: Any, added: Any = None) -> list[Any]:
    """Returns the streams behind the stem and behind each block, to which something may be added, and the answer."""
    found: list[Any] = []
    for layer in net.layers[1:]:
        x = layer(x, **({"training": True} if layer._call_has_training_arg else {}))
        if layer.name.endswith(("stem_relu", "_relu2")):
            x = x if added is None else x + added[len(found)]
            found.append(x)
    return [*found, x]
