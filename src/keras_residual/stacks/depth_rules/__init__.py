"""What keeps a deep stack trainable: rules for `ResidualStack(depth_rule=…)`, and two of them as plain scales."""

from keras_residual.stacks.depth_rules.admin import Admin, admin_profile
from keras_residual.stacks.depth_rules.base import DepthPlan, DepthRule
from keras_residual.stacks.depth_rules.init_rules import GPT2, Fixup, TFixup
from keras_residual.stacks.depth_rules.norm_rules import DeepNorm, DepthScales, Keel, LayerNormScaling, deepnorm, keel
from keras_residual.stacks.depth_rules.registry import RULES, get_rule
from keras_residual.stacks.depth_rules.scale_rules import (
    DepthMuP,
    InverseDepth,
    InverseSqrtDepth,
    LayerScaleRule,
    NFResNet,
    SkipInitRule,
)

__all__ = [
    "GPT2",
    "RULES",
    "Admin",
    "DeepNorm",
    "DepthMuP",
    "DepthPlan",
    "DepthRule",
    "DepthScales",
    "Fixup",
    "InverseDepth",
    "InverseSqrtDepth",
    "Keel",
    "LayerNormScaling",
    "LayerScaleRule",
    "NFResNet",
    "SkipInitRule",
    "TFixup",
    "admin_profile",
    "deepnorm",
    "get_rule",
    "keel",
]
