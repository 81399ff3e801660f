"""What keeps a deep stack trainable: rules for `ResidualStack(depth_rule=…)`, and two of them as plain scales.

This file has their names: a new rule is a line in `RULES`.
"""

from __future__ import annotations

from types import MappingProxyType

from keras_residual._arguments import named
from keras_residual.stacks.depth_rules.admin import Admin, admin_profile
from keras_residual.stacks.depth_rules.base import DepthPlan, DepthRule
from keras_residual.stacks.depth_rules.init_rules import GPT2, Fixup, TFixup
from keras_residual.stacks.depth_rules.norm_rules import DeepNorm, DepthScales, Keel, LayerNormScaling, deepnorm, keel
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

RULES: MappingProxyType[str, type[DepthRule]] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            InverseSqrtDepth,
            InverseDepth,
            DepthMuP,
            SkipInitRule,
            LayerScaleRule,
            NFResNet,
            Fixup,
            TFixup,
            GPT2,
            DeepNorm,
            Keel,
            LayerNormScaling,
            Admin,
        )
    }
)


def get_rule(value: str | DepthRule) -> DepthRule:
    """Returns the rule of a name; a rule is returned as it is."""
    return named("ResidualStack", "depth_rule", value, DepthRule, RULES)
