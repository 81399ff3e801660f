"""A quantity and a rule, each written from scratch in one file of a package made here, are everywhere they should be.

This is what CONTRIBUTING.md promises to whoever adds one.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from contract import to_numpy
from keras_residual import Residual, Xray, XrayCallback
from keras_residual.xray import rules, xray
from keras_residual.xray.health import healths
from keras_residual.xray.quantities import QUANTITIES
from keras_residual.xray.rules import RULES

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")

QUANTITY = '''
"""How heavy the tails of the stream are."""

from keras import ops

from keras_residual.xray.quantities.chart import DepthChart
from keras_residual.xray.quantities.quantity import Band, Quantity


def kurtosis(x, channel_axis):
    """Returns the mean fourth power over the squared mean square; 3 of a normal distribution."""
    squares = ops.square(ops.cast(x, "float32"))
    return ops.mean(ops.square(squares)) / ops.square(ops.mean(squares))


KURTOSIS = Quantity(
    key="kurtosis",
    definition="mean fourth power of `x` over the square of its mean square",
    of="stream",
    by=kurtosis,
    label="weight of the tails",
    column="tails",
    band=Band(low=1.0, high=1.5),
    history=True,
    tensorboard=True,
    chart=DepthChart(title="Are there outliers?", words="Large numbers stand out.", axis="kurtosis", chapter="signal"),
)
'''

REQUEST = '''
"""The largest entry that a block hands on."""

import numpy as np

from keras_residual.xray.quantities.quantity import STREAMS_KEPT, Passes, Quantity, needs_targets


def _add(look, blocks, model):
    for block, features in zip(blocks, look.features(), strict=True):
        block["largest"] = float(np.abs(features).max())


LARGEST = Quantity(
    key="largest",
    definition="largest size of an entry of `x`",
    of="request",
    by=_add,
    cost=Passes(forward=1, beside=STREAMS_KEPT),
    check=needs_targets,
    label="largest entry",
)
'''

RULE = '''
"""A rule on outliers."""

from keras_residual.xray.rules.rule import all_behind, rule


@rule(
    threshold=1.5,
    in_words="A few numbers are far larger than all others",
    because="what is rounded for the largest is lost for the others (a paper)",
    reaches=all_behind,
)
def outliers(blocks, model, threshold):
    """Finds the first block with heavy tails."""
    for block in blocks:
        if block["kurtosis"] > threshold:
            yield block["name"], f"its tails weigh {block['kurtosis']:.2g}", "clip what goes into it"
            return
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields the folder of a package, and takes back what its modules have registered."""
    folder = tmp_path / "of_a_contributor"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    before = [list(QUANTITIES), list(RULES)]
    yield folder
    QUANTITIES[:], RULES[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def module(folder: Path, name: str, text: str) -> Any:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    importlib.invalidate_caches()
    return importlib.import_module(f"of_a_contributor.{name}")


def net() -> keras.Model:
    inputs = keras.Input((6,))
    x = Residual(layers.Dense(6), name="one")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(Residual(layers.Dense(6), name="two")(x)))
    model.compile("sgd", "mse")
    return model


def add_quantity(folder: Path) -> None:
    QUANTITIES.append(module(folder, "tails", QUANTITY).KURTOSIS)


def test_a_quantity(package: Path, tmp_path: Path) -> None:
    add_quantity(package)
    model = net()
    report = xray(model, X)
    behind = to_numpy(model.get_layer("one")(X)).astype("float64")
    expected = (behind**4).mean() / (behind**2).mean() ** 2
    assert report.blocks[0]["kurtosis"] == pytest.approx(expected, rel=1e-4)

    report.to_json(tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert told["blocks"][1]["kurtosis"] == report.blocks[1]["kurtosis"]
    assert "tails" in str(report).splitlines()[2]
    assert "<th>tails</th>" in report._repr_html_()
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Are there outliers?" in page
    assert "weight of the tails" in page
    assert "kurtosis" in [quantity.key for quantity in healths(report.blocks, report.model, report.advice)[0].odd]


def test_a_quantity_in_training(package: Path, tmp_path: Path) -> None:
    add_quantity(package)
    callback = XrayCallback(X[:16], X[:16, :2], every="epoch", log_dir=tmp_path / "logs", verbose=0)
    net().fit(X, X[:, :2], batch_size=16, epochs=1, callbacks=[callback], verbose=0)
    assert np.shape(callback.history["kurtosis"]) == (2, 2)
    (events,) = (tmp_path / "logs" / "xray").iterdir()
    assert b"kurtosis/0_one" in events.read_bytes()


def test_a_quantity_on_request(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    QUANTITIES.append(module(package, "sizes", REQUEST).LARGEST)
    model = net()
    look = Xray(model, X, X[:, :2])
    report = look.report(["largest"])
    assert "largest: 1 forward; what each block hands on is kept" in capsys.readouterr().out
    assert report.blocks[0]["largest"] == pytest.approx(np.abs(to_numpy(model.get_layer("one")(X))).max(), rel=1e-5)
    assert "largest" not in look.report().blocks[0]
    with pytest.raises(ValueError, match="xray: quantity 'largest' needs targets; pass `y`"):
        xray(model, X, quantities=["largest"])


def test_a_rule(package: Path, tmp_path: Path) -> None:
    add_quantity(package)
    assert module(package, "outliers", RULE).outliers is RULES[-1]
    report = xray(net(), X)
    (entry,) = [entry for entry in report.advice if entry.rule == "outliers"]
    assert entry.block == "one"
    assert entry in report.advice, "it is computed once"
    assert str(entry).startswith("one: its tails weigh ")
    assert report.to_dict()["advice"][-1]["change"] == "clip what goes into it"
    assert "clip what goes into it" in str(report)
    assert healths(report.blocks, report.model, report.advice)[1].suffers == ["outliers"]
    report.to_html(tmp_path / "report.html")
    assert "A few numbers are far larger than all others" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.any_backend
def test_the_turn_of_a_rule_says_where_it_stands(package: Path) -> None:
    early = module(package, "early", RULE.replace("    threshold=1.5,", "    threshold=1.5,\n    turn=20,"))
    names = [rule.name for rule in RULES]
    assert names.index("underflow") < names.index("outliers") < names.index("softmax_twice")
    assert early.outliers.turn == 20


@pytest.mark.any_backend
def test_contributing_names_the_files() -> None:
    root = Path(__file__).parents[2]
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for heading in ("## Adding a quantity to the X-ray", "## Adding a rule of advice"):
        section = text.partition(heading)[2].partition("\n## ")[0]
        assert section, heading
        for path in ("xray/quantities/", "xray/rules/"):
            assert path in text
    assert Path(str(rules.__file__)).parent == root / "src/keras_residual/xray/rules"
