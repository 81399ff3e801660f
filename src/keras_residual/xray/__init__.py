"""A model and a batch become a report: whether the gradient arrives, what each block does, and what to change."""

from keras_residual.xray.callback import XrayCallback
from keras_residual.xray.drop_blocks import DropReport, drop_blocks
from keras_residual.xray.report import XrayReport
from keras_residual.xray.rules import Advice
from keras_residual.xray.xray import Xray, xray

__all__ = ["Advice", "DropReport", "Xray", "XrayCallback", "XrayReport", "drop_blocks", "xray"]
