"""What gated merges share: dense layers over the channels, and the bias at which the gate starts."""

from __future__ import annotations

from typing import Any

import keras

from keras_residual._arguments import number, owner_of
from keras_residual.residual.merges.base import Merge, channels_of
from keras_residual.residual.shapes import Shape


class KernelMerge(Merge):
    """A merge with dense layers over the channels. Abstract.

    Args:
        kernel_initializer: Initializer of each kernel. Where it has an integer seed, each further kernel takes the
            next one, so that no two are alike.
        **kwargs: `axis`, and what every Keras layer takes.
    """

    acts_on_channels = True

    def __init__(self, *, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self._dense_layers = 0

    def dense(self, name: str, units: int, shape: Shape, *, bias: float | None = None) -> keras.layers.Dense:
        """Returns a built dense layer; `bias` is where its bias starts, `None` for no bias."""
        bias_initializer: Any = keras.initializers.Constant(bias or 0.0)
        layer = keras.layers.Dense(
            units,
            use_bias=bias is not None,
            kernel_initializer=_distinct(self.kernel_initializer, self._dense_layers),
            bias_initializer=bias_initializer,
            dtype=self.dtype_policy,
            name=name,
        )
        layer = self._made(name, layer)
        layer.build(shape)
        self._dense_layers += 1
        return layer


class BiasedGateMerge(KernelMerge):
    """A merge whose gate has a bias per channel. Abstract.

    Args:
        gate_bias: Where the bias starts; a leaf says which way it opens the gate.
        **kwargs: `kernel_initializer`, `axis`, and what every Keras layer takes.
    """

    def __init__(self, *, gate_bias: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate_bias = number(owner_of(self), "gate_bias", gate_bias, "a finite number")

    def subtracted_bias(self, shape: Shape) -> Any:
        """Returns a new bias per channel, for the papers that subtract it within the gate."""
        initializer = keras.initializers.Constant(self.gate_bias)
        return self.add_weight(shape=(channels_of(shape),), initializer=initializer, name="gate_bias")


def _distinct(initializer: Any, index: int) -> Any:
    """Returns a copy of `initializer` for the kernel number `index`: one instance gives equal values at each call."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config = {**config, "seed": config["seed"] + index}
    return type(initializer).from_config(config)
