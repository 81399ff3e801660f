"""Layers that the branches of residual networks need and Keras lacks, and `Residual` itself."""

from keras_residual.layers.channel_attention import EfficientChannelAttention, SqueezeExcite
from keras_residual.layers.composite_conv import MultiScaleConv2D
from keras_residual.layers.drop_block import DropBlock2D
from keras_residual.layers.norms import EvoNormS0, FilterResponseNorm
from keras_residual.layers.pooling import BlurPool2D, SymmetricMaxPool2D
from keras_residual.layers.split_attention import SelectiveKernel2D, SplitAttention2D
from keras_residual.layers.weight_standardization import WSConv2D
from keras_residual.residual.residual import Residual
from keras_residual.residual.symmetric_conv import SymmetricConv2D

__all__ = [
    "BlurPool2D",
    "DropBlock2D",
    "EfficientChannelAttention",
    "EvoNormS0",
    "FilterResponseNorm",
    "MultiScaleConv2D",
    "Residual",
    "SelectiveKernel2D",
    "SplitAttention2D",
    "SqueezeExcite",
    "SymmetricConv2D",
    "SymmetricMaxPool2D",
    "WSConv2D",
]
