"""One residual connection, and the layers that its branches need and Keras lacks."""

from keras_residual.layers.blur_pool import BlurPool2D
from keras_residual.layers.drop_block import DropBlock2D
from keras_residual.layers.efficient_channel_attention import EfficientChannelAttention
from keras_residual.layers.evonorm import EvoNormS0
from keras_residual.layers.filter_response_norm import FilterResponseNorm
from keras_residual.layers.multi_scale import MultiScaleConv2D
from keras_residual.layers.selective_kernel import SelectiveKernel2D
from keras_residual.layers.split_attention import SplitAttention2D
from keras_residual.layers.squeeze_excite import SqueezeExcite
from keras_residual.layers.standardized_conv import WSConv2D
from keras_residual.layers.symmetric_max_pool import SymmetricMaxPool2D
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
