"""Other libraries' names: where they lead, and the differences that the notes speak of, seen in these libraries."""

from __future__ import annotations

import keras
import pytest

from keras_residual.models.catalog.aliases import ALIASES, resolve_alias


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("resnet50.IMAGENET1K_V1", "resnet50.tv_in1k"),
        ("resnet50.IMAGENET1K_V2", "resnet50.tv2_in1k"),
        ("ResNet50_Weights.IMAGENET1K_V2", "resnet50.tv2_in1k"),
        ("ResNet50_Weights.DEFAULT", "resnet50.tv2_in1k"),
        ("ResNet18_Weights.DEFAULT", "resnet18.tv_in1k"),
        ("ResNeXt101_64X4D_Weights.IMAGENET1K_V1", "resnext101_64x4d.tv_in1k"),
        ("Wide_ResNet101_2_Weights.IMAGENET1K_V2", "wide_resnet101_2.tv2_in1k"),
        ("resnet_50_imagenet", "resnet50.a1_in1k"),
        ("resnet_v2_101_imagenet", "resnetv2_101.a1h_in1k"),
        ("resnet_vd_50_ssld_imagenet", "resnet50d"),
        ("resnet_vd_18_imagenet", None),
        ("ResNet50", "keras_resnet50"),
        ("ResNet50V2", None),
        ("resnet18.IMAGENET1K_V2", None),
        ("resnet50.a1_in1k", None),
    ],
)
def test_where_a_name_leads(name, target):
    assert resolve_alias(name) == target


@pytest.mark.any_backend
def test_the_table_is_of_one_mind():
    counts = dict.fromkeys(("torchvision", "keras_hub", "keras_applications"), 0)
    for name, alias in ALIASES.items():
        assert alias.name == name
        counts[alias.source] += 1
        assert alias.same_architecture or not alias.same_weights
        assert alias.same_weights == ("." in alias.target) == (not alias.note), alias
    # torchvision: ten first sets, seven second ones, ten defaults, each by two names.
    assert counts == {"torchvision": 54, "keras_hub": 16, "keras_applications": 6}


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="other backends compile for each shape of a weight")
@pytest.mark.parametrize(
    ("name", "strides_in"),
    [("ResNet50", "conv3_block1_1_conv"), ("ResNet50V2", "conv3_block4_2_conv")],
)
def test_keras_applications_are_other_nets(name, strides_in):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), include_top=False)
    assert model.get_layer(strides_in).strides == (2, 2)
    assert model.get_layer("conv1_conv").use_bias
    assert model.get_layer("conv2_block1_3_conv").use_bias
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.epsilon for norm in norms} == {1.001e-5}
