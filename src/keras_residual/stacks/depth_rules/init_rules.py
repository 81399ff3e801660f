"""Rules for initial weights: Fixup and T-Fixup, which replace norms, and GPT-2's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_residual.residual.residual import Residual
from keras_residual.residual.scales import ScalarBias
from keras_residual.residual.serialization import register
from keras_residual.residual.shapes import ATTENTION
from keras_residual.stacks.depth_rules.base import (
    DepthPlan,
    DepthRule,
    Gains,
    needs_no_norm,
    needs_no_scale,
    needs_sum,
)
from keras_residual.stacks.depth_rules.linear_maps import linear_maps, value_path
from keras_residual.stacks.pattern import with_arguments

_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Softmax,
)


@register
class Fixup(DepthRule):
    """Fixup: no norms. The last of a branch's `m` linear maps starts at zero, the others at `L^(-1 / (2 m - 2))`.

    `L` is the number of connections. In a branch of one map, that map starts at zero. In attention, the maps are values
    and output; queries and keys are left alone. The branch gets a learnable shift before each linear map, attention and
    activation, and a learnable factor and shift at its end.

    The classifier after the stack should start at zero too, weights and biases: this is up to the user.

    Reference:
        Zhang et al., Fixup Initialization: Residual Learning Without Normalization, 2019.
        https://arxiv.org/abs/1901.09321, section 3
    """

    name = "fixup"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Returns the connection with the shifts, and the factor at its end."""
        del depth, per_block
        needs_no_norm(self.name, connection)
        needs_no_scale(self.name, connection, "branch_scale")
        needs_sum(self.name, connection)
        branch: list[keras.Layer] = []
        for index, layer in enumerate(_flat(connection.branch)):
            if _has_shift(layer):
                branch.append(ScalarBias(name=f"shift{index}", dtype=connection.dtype_policy))
            branch.append(layer)
        return with_arguments(connection, branch=branch, branch_scale="fixup")

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the factors on the initial weights."""

        def gains(connection: Residual) -> Gains:
            maps = value_path(linear_maps(connection.branch))
            if not maps:
                return []
            *inner, last = maps
            factor = (depth * per_block) ** (-1 / (2 * len(maps) - 2)) if inner else 1.0
            found = [(each.kernel, np.full(depth, factor, "float32")) for each in inner]
            return [*found, (last.kernel, np.zeros(depth, "float32"))]

        return DepthPlan(gains=gains)


def _flat(layers: Iterable[keras.Layer]) -> Iterator[keras.Layer]:
    """Yields the layers in order, with each `Sequential` replaced by its layers."""
    for layer in layers:
        if isinstance(layer, keras.Sequential):
            yield from _flat(layer.layers)
        else:
            yield layer


def _has_shift(layer: keras.Layer) -> bool:
    # A layer with a kernel is a linear map, or begins with one.
    is_linear = any(hasattr(layer, f"{kind}_initializer") for kind in ("kernel", "depthwise"))
    return is_linear or isinstance(layer, (*_ACTIVATIONS, *ATTENTION))


@register
class TFixup(DepthRule):
    """T-Fixup, for an encoder without norms: values, outputs and feed-forward weights start at `0.67 N^(-1/4)`.

    A stack of `L` connections has `N = L / 2` layers of attention and feed-forward. Queries, keys and biases are left
    alone; kernels should have Glorot's initialisation, the default of Keras. Embeddings, which are up to the user,
    should be normal with variance `1 / d`, times `(9 N)^(-1/4)`. A decoder with cross-attention has other factors.

    Reference:
        Huang et al., Improving Transformer Optimization Through Better Initialization, 2020.
        https://proceedings.mlr.press/v119/huang20f.html
    """

    name = "t_fixup"

    def configure(self, connection: Residual, *, depth: int, per_block: int) -> Residual:
        """Checks that there is no norm."""
        del depth, per_block
        needs_no_norm(self.name, connection)
        needs_sum(self.name, connection)
        return connection

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the factors on the initial weights."""
        factors = np.full(depth, 0.67 * (depth * per_block / 2) ** -0.25, "float32")

        def gains(connection: Residual) -> Gains:
            return [(found.kernel, factors) for found in value_path(linear_maps(connection.branch))]

        return DepthPlan(gains=gains)


@register
class GPT2(DepthRule):
    """GPT-2's initialisation: the last linear map of each of `L` branches is scaled by `1 / sqrt(L)`.

    In the paper `L = 2 N`: each layer has an attention and a feed-forward branch.

    Reference:
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019, section 2.3
    """

    name = "gpt2"

    def plan(self, *, depth: int, per_block: int) -> DepthPlan:
        """Returns the factors on the initial weights."""
        factors = np.full(depth, (depth * per_block) ** -0.5, "float32")

        def gains(connection: Residual) -> Gains:
            maps = linear_maps(connection.branch)
            return [(maps[-1].kernel, factors)] if maps else []

        return DepthPlan(gains=gains)
