"""The rules from which advice follows: a function each, with its threshold, its reason and its reach above it."""

from keras_residual.xray.rules import batch, gradients, numbers, setup, signal, streams, units  # noqa: F401
from keras_residual.xray.rules.rule import RULES, Advice, Rule, advise

__all__ = ["RULES", "Advice", "Rule", "advise"]
