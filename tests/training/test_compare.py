"""The comparison of plain and residual nets: a fair one, with the paper's outcome, and complete files."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_residual import Residual
from keras_residual._backend import input_gradient
from keras_residual.data import load_dataset
from keras_residual.data.lazy import LazyExamples
from keras_residual.training import compare as compare_module
from keras_residual.training.compare import compare
from keras_residual.training.compare_depth import by_depth
from keras_residual.training.compare_files import ComparisonFiles
from keras_residual.training.compare_nets import plain_net, residual_net
from keras_residual.training.compare_settings import Settings, parse_depths

SHAPE = {"inputs": 5, "outputs": 3, "depth": 6, "width": 8}


def test_the_nets_have_equal_first_weights_and_only_one_has_connections():
    plain, residual = plain_net(**SHAPE, seed=3), residual_net(**SHAPE, seed=3)

    assert [weight.shape for weight in plain.weights] == [weight.shape for weight in residual.weights]
    for left, right in zip(plain.get_weights(), residual.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    kernels = [weight for weight in plain.get_weights() if weight.ndim == 2]
    assert len(kernels) == SHAPE["depth"] + 2
    assert not any(np.array_equal(kernels[1], other) for other in kernels[2:-1])
    assert sum(isinstance(layer, Residual) for layer in residual.layers) == SHAPE["depth"] // 2
    assert not any(isinstance(layer, Residual) for layer in plain.layers)


def test_a_residual_net_whose_branches_give_zero_hands_its_stem_on():
    net = residual_net(**SHAPE, seed=3)
    for layer in net.layers:
        if isinstance(layer, Residual):
            layer.branch[-1].gamma.assign(np.zeros(8))
    stem = keras.Model(net.input, net.get_layer("stem_relu").output)
    last = keras.Model(net.input, net.get_layer("block3_relu2").output)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")

    np.testing.assert_array_equal(stem.predict(x, verbose=0), last.predict(x, verbose=0))


@pytest.mark.parametrize("make", [plain_net, residual_net])
def test_gradient_and_signal_are_those_between_the_blocks(make):
    net, rng = make(**SHAPE, seed=3), np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)).astype("float32"), rng.integers(3, size=8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = by_depth(net, x, y, loss, "start")

    assert [len(numbers) for numbers in found.values()] == [4, 4]
    for index, name in enumerate(["stem_relu", "block1_relu2", "block2_relu2", "block3_relu2"]):
        tensor = net.get_layer(name).output
        stream = keras.ops.convert_to_numpy(keras.Model(net.input, tensor)(x, training=True))
        rest = keras.Model(tensor, net.output)
        gradient = input_gradient(lambda h, rest=rest: loss(y, rest(h, training=True)), stream)
        norms = np.linalg.norm(keras.ops.convert_to_numpy(gradient), axis=1)
        assert found["gradient_by_depth_start"][index] == pytest.approx(norms.sum(), rel=1e-4)
        assert found["signal_by_depth_start"][index] == pytest.approx((stream**2).mean(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.any_backend
def test_depth_raises_the_training_loss_of_plain_nets_and_not_of_residual_ones(tmp_path):
    settings = Settings(depths=(6, 40), width=32, epochs=25)
    rows = compare(load_dataset("digits"), settings, out=str(tmp_path / "run")).results["rows"]
    found = {(row["net"], row["depth"]): row for row in rows}

    assert found["plain", 6]["train_loss"] < 0.2  # the plain net learns while it is shallow
    assert found["plain", 40]["train_loss"] > 1.0
    assert found["residual", 40]["train_loss"] < 0.2
    assert found["residual", 40]["test_accuracy"] > 0.9
    assert found["plain", 40]["gradient_start"] > 10 * found["residual", 40]["gradient_start"]
    ratio = {
        net: np.divide(*np.array(found[net, 40]["gradient_by_depth_start"])[[0, -1]]) for net in ("plain", "residual")
    }
    assert ratio["plain"] > 10 * ratio["residual"]  # batch norm makes it grow on its way to the input


@pytest.mark.slow
@pytest.mark.parametrize(("data", "score"), [("wine", "test_accuracy"), ("diabetes", "test_rmse")])
def test_it_runs_on_tables_and_writes_what_it_returns(data, score, tmp_path):
    out, seen = tmp_path / "run", []
    done = compare(load_dataset(data), Settings(depths=(4, 2), width=8, epochs=6), out=str(out), on_row=seen.append)

    assert done.run_directory == out
    assert sorted(path.name for path in out.iterdir()) == ["compare.png", "log.txt", "results.csv", "results.json"]
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "results.json").read_text()) == done.results
    assert done.results["rows"] == seen
    assert [(row["depth"], row["net"]) for row in seen] == [
        (4, "plain"),
        (4, "residual"),
        (2, "plain"),
        (2, "residual"),
    ]
    with (out / "results.csv").open() as file:
        assert [float(row[score]) for row in csv.DictReader(file)] == [row[score] for row in seen]
    for row in seen:
        assert row["gradient_start"] > 0
        assert row["gradient_end"] > 0
        for key in ("gradient_by_depth", "signal_by_depth"):
            start, end = row[f"{key}_start"], row[f"{key}_end"]
            assert len(start) == len(end) == row["depth"] // 2 + 1
            assert all(0 < number < 1e4 for number in start + end)
            assert start != end
    scores = [row[score] for row in seen]
    assert max(scores) > 0.8 if data == "wine" else max(scores) < 80  # 80 is about the deviation of the target


@pytest.mark.slow
@pytest.mark.any_backend
def test_deep_nets_learn_numbers_without_leaving_them(tmp_path):
    settings = Settings(depths=(40,), width=32, epochs=30)
    done = compare(load_dataset("diabetes"), settings, out=str(tmp_path / "run")).results

    assert all(row["train_loss"] is not None for row in done["rows"])
    assert done["rows"][1]["train_loss"] < 0.9 * np.var(load_dataset("diabetes").y_train)
    assert done["learning_rate"] == 0.001


@pytest.mark.slow
@pytest.mark.any_backend
def test_the_same_seed_gives_the_same_numbers(tmp_path):
    def numbers(out, seed):
        settings = Settings(depths=(2,), width=8, epochs=2, seed=seed)
        rows = compare(load_dataset("wine"), settings, out=str(tmp_path / out)).results["rows"]
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert numbers("a", 0) == numbers("b", 0)
    assert numbers("c", 1) != numbers("a2", 0)


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(6,), (4, 3, 1)])
def test_data_that_stay_on_the_disk_give_the_numbers_of_those_in_memory(tmp_path, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, *shape)) if len(shape) == 1 else rng.integers(256, size=(40, *shape), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(40) % 2)

    def numbers(memory):
        data = load_dataset(str(tmp_path / "set.npz"), memory=memory)
        kept = compare_module._Examples(data).x_train  # a copy of all of them would be no stream
        assert isinstance(data.x_train, LazyExamples) is isinstance(kept, LazyExamples) is (memory == 0)
        rows = compare(data, Settings(depths=(2,), width=8, epochs=2), out=str(tmp_path / f"{memory}")).results["rows"]
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert numbers(0) == numbers(2**20)


@pytest.mark.any_backend
def test_what_a_process_pays_once_is_charged_to_no_net(tmp_path, monkeypatch):
    measure, calls = compare_module._measure, []

    def noted(net, depth, examples, *arguments, **named):
        calls.append((net, depth, len(examples.x_train)))
        return measure(net, depth, examples, *arguments, **named)

    monkeypatch.setattr(compare_module, "_measure", noted)
    done = compare(load_dataset("wine"), Settings(depths=(4,), width=8, epochs=1), out=str(tmp_path / "run"))
    assert calls == [("residual", 2, 16), ("plain", 4, 142), ("residual", 4, 142)]
    assert [row["depth"] for row in done.results["rows"]] == [4, 4]


@pytest.mark.any_backend
def test_a_loss_that_is_no_number_is_none_in_the_files_and_not_drawn(tmp_path):
    facts = {"data": "wine", "task": "classification", "width": 8}
    row = {"net": "plain", "depth": 2, "train_loss": float("nan"), "test_accuracy": 0.5, "gradient_start": 1.0}
    files = ComparisonFiles(tmp_path, facts)
    files.add({**row, "gradient_end": float("inf"), "signal_by_depth_end": [1.0, float("nan"), float("inf")]})

    kept = json.loads((tmp_path / "results.json").read_text())["rows"][0]
    assert kept["train_loss"] is None
    assert kept["gradient_end"] is None
    assert kept["signal_by_depth_end"] == [1.0, None, None]
    assert "signal_by_depth_end" not in (tmp_path / "results.csv").read_text()


@pytest.mark.any_backend
def test_interrupted_it_keeps_the_finished_nets(tmp_path, monkeypatch):
    measure, calls = compare_module._measure, []

    def interrupted(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 4:  # one warms the process up
            raise KeyboardInterrupt
        return measure(*arguments, **named)

    monkeypatch.setattr(compare_module, "_measure", interrupted)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as caught:
        compare(load_dataset("wine"), Settings(depths=(2, 4), width=8, epochs=1), out=str(out))

    assert caught.value.__notes__ == [f"{out} holds 2 of 4 nets."]
    assert [row["net"] for row in json.loads((out / "results.json").read_text())["rows"]] == ["plain", "residual"]


@pytest.mark.any_backend
def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        compare(load_dataset("wine"), Settings(depths=(2,), epochs=1), out=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


DEPTHS_RULE = (
    "compare: `depths` must be different even numbers, from 2 to 10000, with commas between, but received {!r} (str). "
    "A block has two layers, so for example: 8,16,32,64."
)


@pytest.mark.any_backend
@pytest.mark.parametrize("text", ["", "8,", "eight", "8 16", "3", "0", "-2", "8,8", "2.0", "10002", "9" * 50])
def test_depths_that_cannot_be_compared(text):
    with pytest.raises(ValueError, match=f"^{re.escape(DEPTHS_RULE.format(text))}$"):
        Settings(depths=parse_depths(text))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "compare: `width` must be in [1, 65536], but received 0 (int)."),
        ({"width": 10**11}, "compare: `width` must be in [1, 65536], but received 100000000000 (int)."),
        ({"epochs": 0}, "compare: `epochs` must be in [1, 1000000], but received 0 (int)."),
        ({"epochs": 10**9}, "compare: `epochs` must be in [1, 1000000], but received 1000000000 (int)."),
        ({"learning_rate": 0.0}, "compare: `learning_rate` must be a number above 0, but received 0.0 (float)."),
        (
            {"learning_rate": float("nan")},
            "compare: `learning_rate` must be a number above 0, but received nan (float).",
        ),
        ({"seed": -1}, "compare: `seed` must be a whole number in [0, 4294967295], but received -1 (int)."),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(Settings(), **wrong)
