"""A model and a batch become a report: whether the gradient arrives, what each block does, and what to change."""

from keras_residual.xray.advice import Advice
from keras_residual.xray.collect import xray
from keras_residual.xray.report import XrayReport

__all__ = ["Advice", "XrayReport", "xray"]
