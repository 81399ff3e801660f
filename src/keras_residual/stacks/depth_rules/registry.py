"""Depth rules by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from keras_residual._arguments import named
from keras_residual.stacks.depth_rules.admin import Admin
from keras_residual.stacks.depth_rules.base import DepthRule
from keras_residual.stacks.depth_rules.init_rules import GPT2, Fixup, TFixup
from keras_residual.stacks.depth_rules.norm_rules import DeepNorm, Keel, LayerNormScaling
from keras_residual.stacks.depth_rules.scale_rules import (
    DepthMuP,
    InverseDepth,
    InverseSqrtDepth,
    LayerScaleRule,
    NFResNet,
    SkipInitRule,
)

_ALL = (
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

RULES: MappingProxyType[str, type[DepthRule]] = MappingProxyType({rule.name: rule for rule in _ALL})


def get_rule(value: Any) -> DepthRule:
    """Returns a rule by its name, or the one that is given."""
    return named("ResidualStack", "depth_rule", value, DepthRule, RULES)
