"""The facts about pretrained weights: how they are asked for, what is refused, and what the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keras_residual.models.aliases import ALIASES
from keras_residual.models.pretrained import PublishedResult, _table, pretrained_tags, pretrained_weights

pytestmark = pytest.mark.any_backend

ROOT = Path(__file__).parents[2]


def test_the_table_holds_every_name_and_tag():
    assert len(_table()) == 132
    assert sum(len(pretrained_tags(name)) for name in _table()) == 203


def test_what_is_known_of_one():
    weights = pretrained_weights("resnet50.a1_in1k")
    assert weights.name == "resnet50.a1_in1k"
    assert weights.hf_hub_id == "timm/resnet50.a1_in1k"
    assert (weights.input_size, weights.crop_pct) == ((224, 224), 0.95)
    assert (weights.test_input_size, weights.test_crop_pct) == ((288, 288), 1.0)
    assert (weights.interpolation, weights.crop_mode) == ("bicubic", "center")
    assert (weights.mean, weights.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (weights.num_classes, weights.license, weights.paper_ids) == (1000, "apache-2.0", ("arXiv:2110.00476",))
    assert weights.results == (PublishedResult(224, 0.95, 80.382), PublishedResult(288, 1.0, 81.24))


def test_where_nothing_is_said_of_a_test_size_it_is_that_of_training():
    weights = pretrained_weights("resnet50.tv_in1k")
    assert weights.test_input_size == weights.input_size == (224, 224)
    assert weights.test_crop_pct == weights.crop_pct == 0.875


@pytest.mark.parametrize(
    ("architecture", "first"),
    [
        ("resnet50", "a1_in1k"),
        ("resnet34", "a1_in1k"),
        ("resnetv2_50x1_bit", "goog_distilled_in1k"),
        ("resnet34d", "ra2_in1k"),
    ],
)
def test_the_default_tag_is_first(architecture, first):
    tags = pretrained_tags(architecture)
    assert tags[0] == first
    assert list(tags[1:]) == sorted(tags[1:])
    assert pretrained_weights(architecture) == pretrained_weights(f"{architecture}.{first}")


def test_every_set_of_weights_can_be_found_and_says_what_is_needed():
    for architecture in _table():
        for tag in pretrained_tags(architecture):
            weights = pretrained_weights(f"{architecture}.{tag}")
            assert (weights.hf_hub_id is None) != (weights.url is None), weights.name
            assert len(weights.mean) == len(weights.std) == 3
            assert 0 < weights.crop_pct <= 1
            assert 0 < weights.test_crop_pct <= 1
            assert [result.size for result in weights.results] == sorted(result.size for result in weights.results)
            assert all(10 < result.top1 < 100 for result in weights.results)


def test_weights_of_another_library_are_found_by_its_name():
    assert pretrained_weights("ResNet50_Weights.IMAGENET1K_V2") == pretrained_weights("resnet50.tv2_in1k")
    assert pretrained_weights("resnet_50_imagenet") == pretrained_weights("resnet50.a1_in1k")
    for alias in ALIASES.values():
        if alias.same_weights:
            assert pretrained_weights(alias.name).name == alias.target


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "resnet50t",
            ValueError,
            "`name` must be an architecture with pretrained weights, but received 'resnet50t' (str). The library knows "
            "of none for 'resnet50t': `create_model` makes it with random ones, and `Preprocessing` prepares pictures "
            "for it.",
        ),
        (
            "cifar_resnet20",
            ValueError,
            "`name` must be an architecture with pretrained weights, but received 'cifar_resnet20' (str). The library "
            "knows of none for 'cifar_resnet20': `create_model` makes it with random ones, and `Preprocessing` "
            "prepares pictures for it.",
        ),
        (
            "resnet18d.ra3_in1k",
            ValueError,
            "unknown name for `name`: 'resnet18d.ra3_in1k'. Did you mean 'resnet18d.ra2_in1k'? Known: "
            "resnet18d.ra2_in1k, resnet18d.ra4_e3600_r224_in1k.",
        ),
        (
            "ResNet50",
            ValueError,
            "`name` must be the name of weights that this library has, but received 'ResNet50' (str). Its convolutions "
            "have biases and its batch norms an epsilon of 1.001e-5, which the statistics take up: pass the .h5 file "
            "that keras.applications keeps in ~/.keras/models as weights. The nearest architecture here is "
            "'keras_resnet50'.",
        ),
        (50, TypeError, "`name` must be the name of an architecture, but received 50 (int)."),
    ],
)
def test_names_without_weights_are_refused(name, error, message):
    message = f"pretrained_weights: {message}"
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        pretrained_weights(name)


def test_an_unknown_architecture_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"^pretrained_weights: unknown name for `name`: 'resnet5O'\. Did you mean"):
        pretrained_weights("resnet5O.a1_in1k")
    with pytest.raises(ValueError, match=r"^pretrained_tags: unknown name for `architecture`: 'resnext5'\. Did you"):
        pretrained_tags("resnext5")


def test_the_documentation_has_the_numbers_of_the_table():
    page = (ROOT / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([\w.]+)` \| (\w+) \| (\d+), ([\d.]+) \| ([\d.]+) \| (\d+), ([\d.]+) \| ([\d.]+) \|", page, re.M
    )
    assert len(rows) >= 8
    for name, interpolation, size, crop, top1, test_size, test_crop, test_top1 in rows:
        weights = pretrained_weights(name)
        published = {(result.size, result.crop_pct): result.top1 for result in weights.results}
        assert interpolation == weights.interpolation
        assert (int(size), float(crop)) == (weights.input_size[0], weights.crop_pct), name
        assert (int(test_size), float(test_crop)) == (weights.test_input_size[0], weights.test_crop_pct), name
        assert float(top1) == round(published[weights.input_size[0], weights.crop_pct], 2), name
        assert float(test_top1) == round(published[weights.test_input_size[0], weights.test_crop_pct], 2), name
