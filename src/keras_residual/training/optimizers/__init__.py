"""The optimizers of the papers, their schedules, and means of weights: steps as PyTorch and timm take them."""

from keras_residual.training.optimizers import schedules
from keras_residual.training.optimizers.averages import Averaged, EvaluateAverages, averaged
from keras_residual.training.optimizers.discriminative import Discriminative
from keras_residual.training.optimizers.layerwise import Lamb, Lars
from keras_residual.training.optimizers.sgd import SGD

__all__ = ["SGD", "Averaged", "Discriminative", "EvaluateAverages", "Lamb", "Lars", "averaged", "schedules"]
