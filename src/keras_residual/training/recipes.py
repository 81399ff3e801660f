"""Recipes: how published nets were trained, as data. To add one, touch this table and its test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a published training.

    Args:
        settings: Keys of `TrainConfig`, dotted, with their values; what they leave out is as without a recipe. What
            happens in the course of a training is told in shares of its steps, so that it moves along with `epochs`.
        source: Where the settings are from.
        result: What was published for them.
        differs: What the source does that these settings do not; empty if nothing is known.
    """

    settings: Mapping[str, Any] = field(repr=False)
    source: str
    result: str
    differs: str = ""


_HELD_BACK = "The published training has no examples held back to choose the best epoch by."

_SGD = {
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.decayed": "all",
    "optimizer.warmup": 0.0,
}
_SHIFT_AND_FLIP = {"augment.shift": 4, "augment.border": "zero", "augment.flip": True}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "he2015_cifar": Recipe(
            settings={
                **_SGD,
                **_SHIFT_AND_FLIP,
                "model.name": "cifar_resnet20",
                # 64,000 steps of 128 of the 45,000 pictures that are not held back.
                "epochs": 182,
                "batch_size": 128,
                "data.validation_fraction": 0.1,
                "optimizer.learning_rate": 0.1,
                "optimizer.weight_decay": 1e-4,
                "optimizer.schedule": "step",
                "optimizer.milestones": [32 / 64, 48 / 64],
                "optimizer.factor": 0.1,
            },
            source="He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2. "
            "https://arxiv.org/abs/1512.03385",
            result="CIFAR-10, test error: ResNet-20 8.75 %, 32 7.51 %, 44 7.17 %, 56 6.97 %, 110 6.43 %",
            differs="The first 400 steps of ResNet-110 had a rate of 0.01.",
        ),
        "he2016_preact": Recipe(
            settings={
                **_SGD,
                **_SHIFT_AND_FLIP,
                "model.name": "cifar_preact_resnet1001",
                "epochs": 200,
                "batch_size": 64,
                "optimizer.learning_rate": 0.1,
                "optimizer.nesterov": True,
                "optimizer.weight_decay": 1e-4,
                "optimizer.schedule": "step",
                "optimizer.milestones": [80 / 200, 121 / 200],
                "optimizer.factor": 0.1,
            },
            source="He et al., Identity Mappings in Deep Residual Networks, 2016. https://arxiv.org/abs/1603.05027. "
            "https://github.com/KaimingHe/resnet-1k-layers",
            result="CIFAR-10, test error: ResNet-1001 4.62 %, of five runs 4.69 ± 0.20 %",
            differs=_HELD_BACK,
        ),
        "wrn": Recipe(
            settings={
                **_SGD,
                **_SHIFT_AND_FLIP,
                "augment.border": "reflect",
                "model.name": "cifar_wrn_28_10",
                "epochs": 200,
                "batch_size": 128,
                "optimizer.learning_rate": 0.1,
                "optimizer.nesterov": True,
                "optimizer.weight_decay": 5e-4,
                "optimizer.schedule": "step",
                "optimizer.milestones": [60 / 200, 120 / 200, 160 / 200],
                "optimizer.factor": 0.2,
            },
            source="Zagoruyko and Komodakis, Wide Residual Networks, 2016. https://arxiv.org/abs/1605.07146. "
            "https://github.com/szagoruyko/wide-residual-networks",
            result="Test error, median of five runs: WRN-28-10 4.00 % on CIFAR-10, 19.25 % on CIFAR-100",
            differs=_HELD_BACK,
        ),
        "airbench96_schedule": Recipe(
            settings={
                **_SGD,
                "epochs": 37,
                "batch_size": 1024,
                # The source has a rate of 9 and a decay of 0.012 for 1,024 examples, of the sum of their losses and
                # without momentum: here they are those of PyTorch for the mean of losses.
                "optimizer.learning_rate": 9.0 / (1 + 1 / (1 - 0.85)),
                "optimizer.momentum": 0.85,
                "optimizer.nesterov": True,
                "optimizer.weight_decay": 0.012 / 9.0,
                "optimizer.schedule": "linear",
                "optimizer.warmup": 0.1,
                "optimizer.warmup_start": 0.2,
                "loss.label_smoothing": 0.2,
                "augment.shift": 4,
                "augment.border": "reflect",
                "augment.flip": "alternating",
                "augment.cutout": 12,
            },
            source="Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024. https://arxiv.org/abs/2404.00498. "
            "legacy/airbench96.py of https://github.com/KellerJordan/cifar10-airbench",
            result="CIFAR-10, test accuracy with the source's own network: 96.03 %",
            differs="Its network, whose first layer whitens, is not here; its norms' biases have 64 times the rate; "
            "Lookahead; squares that lie wholly within; six views at the test. " + _HELD_BACK,
        ),
        "torchvision_v1": Recipe(
            settings={
                **_SGD,
                "model.name": "resnet50",
                "data.image_size": 224,
                "epochs": 90,
                "batch_size": 256,
                "optimizer.learning_rate": 0.1,
                "optimizer.weight_decay": 1e-4,
                "optimizer.schedule": "step",
                "optimizer.milestones": [30 / 90, 60 / 90],
                "optimizer.factor": 0.1,
                "augment.crop": 0.08,
                "augment.shift": 0,
                "augment.flip": True,
            },
            source="torchvision, references/classification, weights IMAGENET1K_V1. https://github.com/pytorch/vision",
            result="ImageNet-1k, top-1: ResNet-18 69.758 %, 34 73.314 %, 50 76.130 %, 101 77.374 %, 152 78.312 %",
            differs="Crops are taken of pictures that are scaled to 224 × 224 first; the test sees them whole, not the "
            "middle of 256. " + _HELD_BACK,
        ),
        "finetune": Recipe(
            settings={
                "finetune.head_epochs": "auto",
                "finetune.thawed_rate": 0.5,
                "finetune.stage_rate": 1 / 2.6,
                "optimizer.name": "adamw",
                "optimizer.learning_rate": 2e-3,
                "optimizer.weight_decay": 0.01,
                "optimizer.decayed": "kernels",
                "optimizer.schedule": "one_cycle",
                "optimizer.warmup": 0.3,
                "optimizer.warmup_start": 0.2,
                "augment.crop": 0.75,
                "augment.shift": 0,
                "augment.flip": True,
            },
            source="The rates of stages: Howard and Ruder, Universal Language Model Fine-tuning for Text "
            "Classification, 2018, section 3.2. https://arxiv.org/abs/1801.06146. The rest: Learner.fine_tune of "
            "fastai, callback/schedule.py, and chapter 5 of its book. https://github.com/fastai/fastai",
            result="Of texts, error lower by 18 to 24 % than the best before on most of six sets; nothing was "
            "published of pictures",
            differs="The head's rate rises over 30 % of its epochs, not 99; momentum stays 0.9, and does not go from "
            "0.95 to 0.85 and back; Adam's beta_2 is 0.999, its epsilon 1e-7; the head is one layer; batch norms are "
            "frozen where there are few pictures; no turning, warping or lighting. Epochs and batch go by the number "
            "of pictures, where the source has 64 pictures in a batch.",
        ),
    }
)
