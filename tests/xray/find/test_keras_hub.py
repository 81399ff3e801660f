"""Small nets of KerasHub with random weights: their blocks add within `call`.

KerasHub asks for a TensorFlow beside the one of these tests, so that their environment has none. Where it is on the
path, these tests run:

    pip install --no-deps --target hub keras-hub==0.32.0 kagglehub kagglesdk tokenizers regex pyyaml tqdm
    PYTHONPATH=hub python -m pytest tests/xray/test_keras_hub.py
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from contract import to_numpy
from keras_residual.xray import XrayReport, xray

models = pytest.importorskip("keras_hub.models")
RNG = np.random.default_rng(0)


def bert(**arguments: Any) -> tuple[keras.Model, Any]:
    sizes = {"vocabulary_size": 100, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 8}
    net = models.BertBackbone(num_layers=3, **sizes, **arguments)
    batch = {
        "token_ids": RNG.integers(0, 100, size=(4, 8)),
        "segment_ids": np.zeros((4, 8), "int32"),
        "padding_mask": np.tile([1, 1, 1, 1, 1, 1, 0, 0], (4, 1)),
    }
    return net, batch


def vit(**arguments: Any) -> tuple[keras.Model, Any]:
    sizes = {"num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "dropout_rate": 0.1, "attention_dropout": 0.1}
    net = models.ViTBackbone(image_shape=(8, 8, 3), patch_size=4, num_layers=2, **sizes, **arguments)
    return net, RNG.normal(size=(4, 8, 8, 3)).astype("float32")


def check(net: keras.Model, batch: Any, names: list[str], norm: list[str], **arguments: Any) -> XrayReport:
    before = [to_numpy(variable) for variable in net.variables]
    report = xray(net, batch, **arguments)
    assert [block["name"] for block in report.blocks] == names
    for block in report.blocks:
        assert block["kind"] == "add"
        assert block["norm"] == norm
        assert block["shape"][-1] == 8
        for key in ("gradient_norm", "weight_gradient_norm", "branch_ratio", "variance"):
            assert block[key] > 0, key
    for was, variable in zip(before, net.variables, strict=True):
        np.testing.assert_array_equal(was, to_numpy(variable))
    return report


def test_bert() -> None:
    names = [f"transformer_layer_{i}/add_{part}" for i in range(3) for part in (1, 2)]
    net, batch = bert()
    targets = {"loss": "mse", "y": {name: RNG.normal(size=output.shape) for name, output in net(batch).items()}}
    report = check(net, batch, names, ["post"], quantities=("chi", "lesion"), **targets)
    assert all(block["chi"] > 0 and block["lesion"] != 0 for block in report.blocks)


def test_vit() -> None:
    names = [f"vit_encoder/transformer_block_{i}/add_{part}" for i in (1, 2) for part in (1, 2)]
    net, images = vit()
    y = RNG.normal(size=net(images).shape)
    report = check(net, images, names, ["pre"], quantities=("chi", "lesion"), y=y, loss="mse")
    assert all(block["chi"] > 0 and block["lesion"] != 0 for block in report.blocks)
    assert [block["maps"] for block in report.blocks] == [4, 2, 4, 2]


def test_half_precision() -> None:
    report = check(
        *vit(dtype="mixed_bfloat16"),
        [f"vit_encoder/transformer_block_{i}/add_{p}" for i in (1, 2) for p in (1, 2)],
        ["pre"],
    )
    assert report.model["dtype"] == "bfloat16"


def test_a_net_with_a_head() -> None:
    backbone, images = vit()
    net: Any = models.ViTImageClassifier(backbone=backbone, num_classes=3, preprocessor=None)
    report = xray(net, images, RNG.integers(0, 3, size=4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert [block["kind"] for block in report.blocks] == ["add"] * 4
    assert report.blocks[0]["gradient_norm"] > 0
