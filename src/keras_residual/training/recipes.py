"""Recipes: how published nets were trained, as data. To add one, touch this table and its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        by_examples: Further settings by the number of training examples: `(most, settings)`, of which the first holds
            whose number is larger; None is larger than any.
    """

    settings: Mapping[str, Any] = field(repr=False)
    source: str
    result: str
    differs: str = ""
    by_examples: Sequence[tuple[int | None, Mapping[str, Any]]] = field(default=(), repr=False)


_HELD_BACK = "The published training has no examples held back to choose the best epoch by."

_SGD = {
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.decayed": "all",
    "optimizer.warmup": 0.0,
}
_IMAGENET = {
    "data.image_size": 224,
    "augment.crop": 0.08,
    "augment.shift": 0,
    "augment.flip": True,
}
_STRIKES_BACK = {
    **_IMAGENET,
    "model.name": "resnet50",
    "batch_size": 2048,
    "optimizer.name": "lamb",
    "optimizer.clipnorm": 1.0,
    "optimizer.decayed": "kernels",
    "optimizer.schedule": "cosine",
    "optimizer.warmup_start": 1e-4,
    "loss.name": "binary_crossentropy",
    "augment.policy": "randaugment",
    "augment.operations": 2,
    "augment.magnitude_spread": 0.5,
    "augment.cutmix": 1.0,
}
_STRIKES_BACK_SOURCE = (
    "Wightman et al., ResNet strikes back, 2021, table 2. https://arxiv.org/abs/2110.00476. The values are those of "
    "mmpretrain's configurations. https://github.com/open-mmlab/mmpretrain"
)
_STRIKES_BACK_DIFFERS = "The test takes the middle of pictures of 236 pixels, a share of 0.95, and not the whole. "
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
                **_IMAGENET,
                "model.name": "resnet50",
                "epochs": 90,
                "batch_size": 256,
                "optimizer.learning_rate": 0.1,
                "optimizer.weight_decay": 1e-4,
                "optimizer.schedule": "step",
                "optimizer.milestones": [30 / 90, 60 / 90],
                "optimizer.factor": 0.1,
            },
            source="torchvision, references/classification, weights IMAGENET1K_V1. https://github.com/pytorch/vision",
            result="ImageNet-1k, top-1: ResNet-18 69.758 %, 34 73.314 %, 50 76.130 %, 101 77.374 %, 152 78.312 %",
            differs="Crops are taken of pictures that are scaled to 224 × 224 first; the test sees them whole, not the "
            "middle of 256. " + _HELD_BACK,
        ),
        "torchvision_v2": Recipe(
            settings={
                **_SGD,
                **_IMAGENET,
                "model.name": "resnet50",
                "epochs": 600,
                "batch_size": 1024,  # 8 × 128
                "optimizer.learning_rate": 0.5,
                "optimizer.weight_decay": 2e-5,
                "optimizer.decayed": "but_norms",
                "optimizer.schedule": "cosine",
                "optimizer.warmup": 5 / 600,
                "optimizer.warmup_start": 0.01,
                "optimizer.by_epoch": True,
                # 0.99998 for a batch of 1 and an epoch: the script takes the distance from 1 times 1,024 × 32 / 600.
                "optimizer.average": 1 - 2e-5 * 1024 * 32 / 600,
                "optimizer.average_every": 32,
                "loss.label_smoothing": 0.1,
                "augment.sizes": [[0.0, 176]],
                "augment.policy": "trivialaugment",
                "augment.erase": 0.1,
                "augment.mixup": 0.2,
                "augment.cutmix": 1.0,
                "augment.repeats": 4,
            },
            source="torchvision, references/classification, weights IMAGENET1K_V2. https://github.com/pytorch/vision. "
            "https://pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-primitives/",
            result="ImageNet-1k, top-1: ResNet-50 80.858 %, 101 81.886 %, 152 82.284 %, Wide ResNet-50 81.602 %",
            differs="Crops are taken of pictures that are scaled to 224 × 224 first; the test sees them whole, not the "
            "middle of 232. What is erased is black, not of the mean colour. " + _HELD_BACK,
        ),
        "rsb_a1": Recipe(
            settings={
                **_STRIKES_BACK,
                "model.drop_path_rate": 0.05,
                "epochs": 600,
                "optimizer.learning_rate": 5e-3,
                "optimizer.weight_decay": 0.01,
                "optimizer.warmup": 5 / 600,
                "loss.label_smoothing": 0.1,
                "augment.magnitude": 7.0,
                "augment.mixup": 0.2,
                "augment.repeats": 3,
            },
            source=_STRIKES_BACK_SOURCE,
            result="ImageNet-1k, top-1 of ResNet-50: 80.4 %; timm has 80.382 %",
            differs=_STRIKES_BACK_DIFFERS + _HELD_BACK,
        ),
        "rsb_a2": Recipe(
            settings={
                **_STRIKES_BACK,
                "model.drop_path_rate": 0.05,
                "epochs": 300,
                "optimizer.learning_rate": 5e-3,
                "optimizer.weight_decay": 0.02,
                "optimizer.warmup": 5 / 300,
                "augment.magnitude": 7.0,
                "augment.mixup": 0.1,
                "augment.repeats": 3,
            },
            source=_STRIKES_BACK_SOURCE,
            result="ImageNet-1k, top-1 of ResNet-50: timm has 79.828 %, mmpretrain 79.55 %",
            differs=_STRIKES_BACK_DIFFERS + _HELD_BACK,
        ),
        "rsb_a3": Recipe(
            settings={
                **_STRIKES_BACK,
                "model.drop_path_rate": 0.0,
                "epochs": 100,
                "optimizer.learning_rate": 8e-3,
                "optimizer.weight_decay": 0.02,
                "optimizer.warmup": 5 / 100,
                "augment.sizes": [[0.0, 160]],
                "augment.magnitude": 6.0,
                "augment.mixup": 0.1,
            },
            source=_STRIKES_BACK_SOURCE,
            result="ImageNet-1k, top-1 of ResNet-50 at 224 pixels: timm has 78.052 %, mmpretrain 78.30 %",
            differs=_STRIKES_BACK_DIFFERS + _HELD_BACK,
        ),
        "bit_hyperrule": Recipe(
            settings={
                **{key: value for key, value in _SGD.items() if key != "optimizer.warmup"},
                "model.name": "resnetv2_50x1_bit",
                "data.image_size": 480,
                "batch_size": 512,
                "optimizer.learning_rate": 0.003,
                "optimizer.weight_decay": 0.0,
                "optimizer.schedule": "step",
                "optimizer.factor": 0.1,
                "augment.shift": 0,
                "augment.flip": True,
            },
            by_examples=(
                (
                    20_000,
                    {
                        "steps": 500,
                        "optimizer.milestones": [200 / 500, 300 / 500, 400 / 500],
                        "optimizer.warmup": 100 / 500,
                    },
                ),
                (
                    500_000,
                    {
                        "steps": 10_000,
                        "optimizer.milestones": [3 / 10, 6 / 10, 9 / 10],
                        "optimizer.warmup": 500 / 10_000,
                        "augment.mixup": 0.1,
                    },
                ),
                (
                    None,
                    {
                        "steps": 20_000,
                        "optimizer.milestones": [6 / 20, 12 / 20, 18 / 20],
                        "optimizer.warmup": 500 / 20_000,
                        "augment.mixup": 0.1,
                    },
                ),
            ),
            source="Kolesnikov et al., Big Transfer, 2019, section 3.3. https://arxiv.org/abs/1912.11370. "
            "https://github.com/google-research/big_transfer",
            result="BiT-M, ResNet-50x1: CIFAR-10 97.2 to 97.4 %, CIFAR-100 86.4 to 86.6 %, ImageNet-1k 80.68 %",
            differs="It tunes weights of ImageNet-21k. Pictures of less than 96 × 96 pixels it has at 128, so set "
            "data.image_size; it cuts 480 of 512 pixels, or 128 of 160, at a random place. " + _HELD_BACK,
        ),
        "ffcv_rn18_16": Recipe(
            settings={
                **_SGD,
                **_IMAGENET,
                "model.name": "resnetblur18",
                "data.image_size": 256,
                "epochs": 16,
                "batch_size": 1024,
                "optimizer.learning_rate": 0.5,
                "optimizer.weight_decay": 5e-5,
                "optimizer.decayed": "but_norms",
                "optimizer.schedule": "linear",
                "optimizer.warmup": 2 / 16,
                "optimizer.warmup_start": 1e-4,
                "loss.label_smoothing": 0.1,
                # From 160 at epoch 11 to 192 at 13, rounded to 32: epoch 12, counted from 0, has 192 already.
                "augment.sizes": [[0.0, 160], [12 / 16, 192]],
                "augment.test_flip": True,
            },
            source="FFCV, rn18_configs/rn18_16_epochs.yaml. https://github.com/libffcv/ffcv-imagenet",
            result="ImageNet-1k, top-1 of ResNet-18 after 16 epochs: 66.9 %",
            differs="Crops are taken of pictures that are scaled to 256 × 256 first. The source decays the norms of "
            "shortcuts, which have no `bn` in their names. " + _HELD_BACK,
        ),
        "resnet_rs": Recipe(
            settings={
                **_SGD,
                **_IMAGENET,
                "model.name": "resnetrs50",
                "model.drop_path_rate": 0.0,
                "model.dropout_rate": 0.25,
                "data.image_size": 160,
                "epochs": 350,
                "batch_size": 4096,
                "optimizer.learning_rate": 1.6,
                "optimizer.weight_decay": 4e-5,
                "optimizer.decayed": "kernels",
                "optimizer.schedule": "cosine",
                "optimizer.warmup": 5 / 350,
                "optimizer.average": 0.9999,
                "loss.label_smoothing": 0.1,
                "augment.policy": "randaugment",
                "augment.operations": 2,
                "augment.magnitude": 10.0,
                "augment.magnitude_spread": 0.0,
            },
            source="Bello et al., Revisiting ResNets, 2021. https://arxiv.org/abs/2103.07579. TensorFlow Model Garden, "
            "vision, configurations of ResNet-RS. https://github.com/tensorflow/models",
            result="ImageNet-1k, top-1 of ResNet-RS-50 at 160 pixels: 79.1 %",
            differs="The changes of RandAugment are timm's, each made with probability 1/2; the Garden's activation is "
            "swish. " + _HELD_BACK,
        ),
        "tabular_resnet": Recipe(
            settings={
                "model.name": "tabular_resnet",
                "epochs": 1000,
                "batch_size": 256,
                "patience": 16,
                "optimizer.name": "adamw",
                "optimizer.learning_rate": 3.5e-3,
                "optimizer.weight_decay": 0.0,
                "optimizer.schedule": "constant",
                "optimizer.warmup": 0.0,
            },
            source="Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, 2021, as tuned for `adult`. "
            "https://arxiv.org/abs/2106.11959. https://github.com/yandex-research/tabular-dl-revisiting-models",
            result="Accuracy, mean of 15 seeds: adult 0.8544, covtype 0.9644, higgs 0.7266",
            differs="There the network for `adult` has 8 blocks of 339 numbers and dropouts of 0.22 and 0.31, found by "
            "a search; numbers are made normal by quantiles; no epoch is the last.",
        ),
        "wang2017_series": Recipe(
            settings={
                "model.name": "series_resnet",
                "epochs": 1500,
                "batch_size": 64,
                "batch_share": 0.1,
                "optimizer.name": "adam",
                "optimizer.learning_rate": 1e-3,
                "optimizer.weight_decay": 0.0,
                "optimizer.schedule": "plateau",
                "optimizer.factor": 0.5,
                "optimizer.plateau_epochs": 50,
                "optimizer.lowest_rate": 1e-4,
                "optimizer.warmup": 0.0,
            },
            source="Wang et al., Time Series Classification from Scratch, 2017. https://arxiv.org/abs/1611.06455. "
            "Fawaz et al., dl-4-tsc. https://github.com/hfawaz/dl-4-tsc",
            result="Mean accuracy on the 128 sets of UCR over 5 runs, by dl-4-tsc: 80.66 %",
            differs="The source keeps the epoch of the lowest training loss. " + _HELD_BACK,
        ),
        "scratch_small": Recipe(
            settings={
                "model.name": "small_resnet",
                "steps": 3000,
                "batch_size": 32,
                "batch_share": 0.1,
                "optimizer.name": "sgd",
                "optimizer.learning_rate": 0.05,
                "optimizer.momentum": 0.9,
                "optimizer.nesterov": True,
                "optimizer.weight_decay": 5e-4,
                "optimizer.decayed": "kernels",
                "optimizer.schedule": "cosine",
                "optimizer.warmup": 0.1,
                "loss.label_smoothing": 0.1,
                "augment.policy": "trivialaugment",
            },
            source="This project, for some hundreds or thousands of pictures and no pretrained weights; the parts are "
            "those of Müller and Hutter, TrivialAugment, 2021. https://arxiv.org/abs/2103.10158",
            result="None published.",
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
