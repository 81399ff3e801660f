"""`keras-residual models` and `keras-residual show` as they are called."""

from __future__ import annotations

import functools
import json

import pytest
from rich.console import Console
from rich.table import Table

from keras_residual.models.catalog import CATALOG
from keras_residual_cli import output
from keras_residual_cli.app import run
from keras_residual_cli.output import print_table

pytestmark = pytest.mark.any_backend


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_models_are_listed_with_costs_and_accuracy(capfd):
    assert run(["models", "resnet50*"]) == 0
    shown = lines(capfd.readouterr().out)
    assert "name params GMACs at top-1 at sets" in shown
    assert "resnet50 25.6 M 4.09 224 81.24 288 19" in shown
    assert "resnet50t 25.6 M 4.30 224" in shown


def test_no_network_is_built_for_the_list(capfd, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("built")

    monkeypatch.setattr("keras_residual.models.costs.build", refuse)
    monkeypatch.setattr("keras_residual.models.builder.build", refuse)
    assert run(["models", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["models"]
    assert {row["name"] for row in rows} == set(CATALOG)
    assert next(row for row in rows if row["name"] == "resnet18") == {
        "name": "resnet18",
        "params": 11_689_512,
        "macs": 1_814_073_344,
        "input_shape": [224, 224, 3],
        "top1": 73.286,
        "top1_size": 224,
        "pretrained": 7,
    }


def test_sets_of_pretrained_weights_have_their_licence(capfd):
    assert run(["models", "wide_resnet50_2*", "--pretrained"]) == 0
    shown = lines(capfd.readouterr().out)
    assert "name params GMACs at top-1 at licence" in shown
    assert any(line.startswith("wide_resnet50_2.tv2_in1k 68.9 M 11.40 224 ") for line in shown)
    assert any(line.endswith(" bsd-3-clause") for line in shown)


def test_networks_on_other_inputs_name_theirs(capfd):
    assert run(["models", "*"]) == 0
    shown = lines(capfd.readouterr().out)
    assert "tabular_resnet 0.05 M 5e-05 32" in shown
    assert "resnet3d_18 33.4 M 4.35 16×112×112" in shown


@pytest.mark.parametrize("command", [["models", "resnet5O"], ["show", "resnet5O"], ["show", "resnet5O", "--json"]])
def test_an_unknown_name_has_a_suggestion(command, capfd):
    assert run(command) == 2
    shown = capfd.readouterr()
    (line,) = shown.err.splitlines()
    assert "Did you mean 'resnet50'?" in line
    assert shown.out == ""


def test_show_says_what_a_network_is(capfd):
    assert run(["show", "seresnext26t_32x4d", "--full"]) == 0
    shown = lines(capfd.readouterr().out)
    for line in (
        "seresnext26t_32x4d",
        "stem three 3×3 convolutions with 24, 32 and 64 filters, stride 2",
        "groups 32, 4 wide in the first stage",
        "attention squeeze-and-excitation",
        "maps stage1 56×56×256, stage2 28×28×512, stage3 14×14×1024, stage4 7×7×2048",
        "parameters 16,806,976, and 38,640 statistics of norms",
        "seresnext26t_32x4d.bt_in1k",
        "top-1 77.98 at 224 (crop 0.875), 78.74 at 288 (crop 0.95)",
        "size 224×224 (crop 0.875), best at 288×288 (crop 0.95)",
        "interpolation bicubic",
        "licence apache-2.0",
        "from hf://timm/seresnext26t_32x4d.bt_in1k",
    ):
        assert line in shown


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 80 columns."""
    settings = {"width": 80, "force_terminal": True, "color_system": None, "legacy_windows": False}
    monkeypatch.setattr(output, "Words", functools.partial(output.Words, **settings))


NAMES = ("resnet50", "seresnextaa201d_32x8d", "ecaresnet101d_pruned", "resnetv2_50", "cifar_resnet1202", "test_resnet")


@pytest.mark.usefixtures("screen")
@pytest.mark.parametrize("name", [*NAMES, "resnet3d_10", "series_resnet", "tabular_resnet", "resnet50.a1_in1k"])
def test_what_is_shown_fits_on_a_screen(name, capfd):
    assert run(["show", name]) == 0
    shown = capfd.readouterr().out.splitlines()
    assert len(shown) <= 22  # of 24: the backend is named above, and below the shell asks for more
    assert max(map(len, shown)) <= 80


def test_the_best_weights_are_named_and_full_shows_all(capfd):
    assert run(["show", "resnet50"]) == 0
    shown = lines(capfd.readouterr().out)
    assert "blocks in stages 3, 4, 6, 3: 56×56×256, 28×28×512, 14×14×1024, 7×7×2048" in shown
    assert "pretrained 19 sets, see --full; best .a1_in1k: 81.24 at 288" in shown
    assert run(["show", "resnet50.a1_in1k"]) == 0
    shown = lines(capfd.readouterr().out)
    assert shown[0] == "resnet50.a1_in1k"
    assert shown[-1] == "The network itself: keras-residual show resnet50. Both: --full"
    assert run(["show", "resnet50", "--full"]) == 0
    shown = lines(capfd.readouterr().out)
    assert sum(line.startswith("top-1 ") for line in shown) == 19


def test_a_pipe_is_not_folded_and_a_terminal_is(capfd):
    table = Table(show_header=False)
    table.add_row("word " * 30)
    print_table(Console(width=80), table)
    assert max(map(len, capfd.readouterr().out.splitlines())) > 150
    print_table(Console(width=80, force_terminal=True, color_system=None), table)
    assert max(map(len, capfd.readouterr().out.splitlines())) <= 80


def test_show_takes_a_tag_and_the_names_of_others(capfd):
    assert run(["show", "ResNet50_Weights.IMAGENET1K_V2", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["name"] == "resnet50"
    assert [weights["tag"] for weights in found["pretrained"]] == ["tv2_in1k"]
    assert found["pretrained"][0]["license"] == "bsd-3-clause"
    assert (found["params"], found["macs"], found["maps"]["stage4"]) == (25_557_032, 4_089_184_256, [7, 7, 2048])


@pytest.mark.parametrize("name", ["tabular_resnet", "series_resnet", "resnet3d_10", "cifar_wrn_16_4"])
def test_show_a_network_without_weights(name, capfd):
    assert run(["show", name]) == 0
    assert "pretrained none" in lines(capfd.readouterr().out)
    assert run(["show", name, "--full"]) == 0
    assert "No pretrained weights." in capfd.readouterr().out
