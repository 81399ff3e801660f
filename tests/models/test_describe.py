"""Every architecture has words, and the papers that it is from."""

from __future__ import annotations

import pytest

from keras_residual.models.catalog import CATALOG
from keras_residual.models.describe import describe, papers

pytestmark = pytest.mark.any_backend


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
