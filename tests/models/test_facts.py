"""What is known of each name: pretrained weights, costs, words and papers; and that the documentation agrees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keras_residual.models.catalog import CATALOG
from keras_residual.models.catalog.aliases import ALIASES
from keras_residual.models.costs import blueprint
from keras_residual.models.facts import (
    PublishedResult,
    _pretrained,
    counted,
    describe,
    papers,
    pretrained_tags,
    pretrained_weights,
)

pytestmark = pytest.mark.any_backend

ROOT = Path(__file__).parents[2]


def test_the_table_holds_every_name_and_tag():
    assert len(_pretrained()) == 132
    assert sum(len(pretrained_tags(name)) for name in _pretrained()) == 203


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
    for architecture in _pretrained():
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
            "`name` must be an architecture with pretrained weights, but received 'resnet50t' (str). None are "
            "known for 'resnet50t': `create_model` builds it with random ones, and `Preprocessing` prepares pictures "
            "for it.",
        ),
        (
            "cifar_resnet20",
            ValueError,
            "`name` must be an architecture with pretrained weights, but received 'cifar_resnet20' (str). None "
            "are known for 'cifar_resnet20': `create_model` builds it with random ones, and `Preprocessing` prepares "
            "pictures for it.",
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
            "`name` must be the name of weights known to this library, but received 'ResNet50' (str). Its convolutions "
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


def test_the_documentation_has_the_numbers_of_the_pretrained():
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


# --- Costs

COUNTED = ["resnet18", "resnetv2_50d_frn", "resnest14d", "cifar_resnet1202", "resnet3d_10", "tabular_resnet"]


@pytest.mark.parametrize("name", COUNTED)
def test_the_file_says_what_is_counted(name: str) -> None:
    drawn, found = blueprint(name), counted(name)
    assert found.costs == drawn.costs
    assert (found.input_shape, found.num_classes) == (drawn.input_shape, drawn.num_classes)


def test_the_file_of_costs_has_every_name() -> None:
    for name in CATALOG:
        assert counted(name).costs.params > 0


def test_sizes_in_words() -> None:
    assert [counted(name).size for name in ("resnet18", "resnet3d_10", "series_resnet", "tabular_resnet")] == [
        "224×224",
        "16×112×112",
        "512",
        "32 features",
    ]


def test_an_unknown_name_has_no_costs() -> None:
    known = f"There are {len(CATALOG)} names."
    message = f"counted: unknown name for `architecture`: 'resnet5O'. Did you mean 'resnet50'? {known}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        counted("resnet5O")


# --- Words and papers


def test_every_name_has_words_and_papers() -> None:
    for config in CATALOG.values():
        words = describe(config)
        assert all(isinstance(value, str) and value for value in words.values()), words
        assert all("{" not in value for value in words.values()), words
        assert all(paper.startswith("arXiv:") for paper in papers(config))
        assert papers(config)


def test_nets_of_different_architectures_have_different_words() -> None:
    described: dict[tuple[str, ...], str] = {}
    for name in ("resnet50", "resnet50d", "resnet50t", "seresnet50", "ecaresnet50d", "resnext50_32x4d", "resnetblur50"):
        described[tuple(describe(CATALOG[name]).items())] = name
    assert len(described) == 7


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("resnet50t", "stem", "three 3×3 convolutions with 24, 32 and 64 filters, stride 2"),
        ("wide_resnet50_2", "base width", "128 of 64"),
        ("resnext101_32x8d", "groups", "32, 8 wide in the first stage"),
        ("res2net50_26w_4s", "block", "bottleneck with a 3×3 convolution of 4 scales"),
        ("resnest50d", "block", "bottleneck with split attention of radix 2"),
        ("test_resnet", "block", "basic: two 3×3 convolutions; bottleneck: 1×1, 3×3 and 1×1 convolutions"),
        ("legacy_seresnet50", "stride", "in the first 1×1 convolution of a bottleneck"),
        ("resnetv2_50x1_bit", "convolution", "with weight standardisation"),
        ("resnet3d_18", "dimensions", "3"),
        ("cifar_resnet20", "downsampling shortcut", "every second position, and zeros for the new channels"),
    ],
)
def test_words(name: str, key: str, words: str) -> None:
    assert describe(CATALOG[name])[key] == words


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("resnet18", "arXiv:1512.03385"),
        ("resnetv2_50", "arXiv:1603.05027"),
        ("resnet50d", "arXiv:1812.01187"),
        ("cifar_wrn_28_10", "arXiv:1605.07146"),
        ("wide_resnet50_2", "arXiv:1605.07146"),
        ("skresnet18", "arXiv:1903.06586"),
        ("ecaresnet50d_pruned", "arXiv:2002.08258"),
        ("resnetrs50", "arXiv:2103.07579"),
    ],
)
def test_papers(name: str, paper: str) -> None:
    assert paper in papers(CATALOG[name])
    assert len(papers(CATALOG["resnet18"])) == 1
