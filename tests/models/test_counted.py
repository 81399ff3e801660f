"""The data file of costs is what the code counts; `tools/model_costs.py` writes it."""

from __future__ import annotations

import re

import pytest

from keras_residual.models.blueprint import blueprint
from keras_residual.models.catalog import CATALOG
from keras_residual.models.counted import counted

pytestmark = pytest.mark.any_backend
SOME = ["resnet18", "resnetv2_50d_frn", "resnest14d", "cifar_resnet1202", "resnet3d_10", "tabular_resnet"]


@pytest.mark.parametrize("name", SOME)
def test_the_file_says_what_is_counted(name: str) -> None:
    drawn, found = blueprint(name), counted(name)
    assert found.costs == drawn.costs
    assert (found.input_shape, found.num_classes) == (drawn.input_shape, drawn.num_classes)


def test_the_file_has_every_name() -> None:
    for name in CATALOG:
        assert counted(name).costs.params > 0


def test_sizes_in_words() -> None:
    assert [counted(name).size for name in ("resnet18", "resnet3d_10", "series_resnet", "tabular_resnet")] == [
        "224×224",
        "16×112×112",
        "512",
        "32 features",
    ]


def test_an_unknown_name() -> None:
    known = f"There are {len(CATALOG)} names."
    message = f"counted: unknown name for `architecture`: 'resnet5O'. Did you mean 'resnet50'? {known}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        counted("resnet5O")
