"""The two nets of the comparison: the same layers with the same first weights, with and without the connection."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_residual.models.blocks import batch_norm
from keras_residual.residual.residual import Residual
from keras_residual.training.compare_settings import LAYERS_IN_A_BLOCK


def plain_net(*, inputs: int, outputs: int, depth: int, width: int, seed: int) -> keras.Model:
    """Returns the net whose blocks are the branch alone: `y = relu(BN(W2 relu(BN(W1 x))))`.

    The block is the paper's basic one with Dense layers in the place of its 3×3 convolutions, so that it takes pictures
    (as a vector of numbers) and tables alike and a depth of 64 trains in seconds. Everything by which a deep net may
    fail for a lesser reason than its depth is as the paper has it, in both nets: He initialisation and batch norm after
    each layer, which keep the signal's size from layer to layer.

    Args:
        inputs: Numbers in an example.
        outputs: Number of classes, or 1.
        depth: Dense layers in blocks, an even number; with the first and the last layer there are two more.
        width: Width of each layer in a block.
        seed: Seed of the first weights.
    """
    return _net(False, inputs=inputs, outputs=outputs, depth=depth, width=width, seed=seed)


def residual_net(*, inputs: int, outputs: int, depth: int, width: int, seed: int) -> keras.Model:
    """Returns the net of the same layers and first weights with `kr.Residual` around each branch.

    A block is `y = relu(x + BN(W2 relu(BN(W1 x))))`. The shortcut is the identity, so the net has no more weights.
    Arguments as for `plain_net`.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015. https://arxiv.org/abs/1512.03385, section 3.3
    """
    return _net(True, inputs=inputs, outputs=outputs, depth=depth, width=width, seed=seed)


def _net(residual: bool, *, inputs: int, outputs: int, depth: int, width: int, seed: int) -> keras.Model:
    seeds = np.random.default_rng(seed)

    def dense(units: int, name: str, *, use_bias: bool = False) -> keras.layers.Dense:
        initializer: Any = keras.initializers.HeNormal(seed=int(seeds.integers(2**31)))
        return keras.layers.Dense(units, use_bias=use_bias, kernel_initializer=initializer, name=name)

    x = first = keras.Input((inputs,), name="inputs")
    for layer in (dense(width, "stem"), batch_norm("stem_norm"), keras.layers.ReLU(name="stem_relu")):
        x = layer(x)
    for index in range(1, depth // LAYERS_IN_A_BLOCK + 1):
        branch = [
            dense(width, f"block{index}_dense1"),
            batch_norm(f"block{index}_norm1"),
            keras.layers.ReLU(name=f"block{index}_relu1"),
            dense(width, f"block{index}_dense2"),
            batch_norm(f"block{index}_norm2"),
        ]
        if residual:
            x = Residual(branch, shortcut="identity", name=f"block{index}")(x)
        else:
            for layer in branch:
                x = layer(x)
        x = keras.layers.ReLU(name=f"block{index}_relu2")(x)
    x = dense(outputs, "head", use_bias=True)(x)
    return keras.Model(first, x, name="residual" if residual else "plain")
