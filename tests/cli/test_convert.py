"""`keras-residual convert`: a checkpoint becomes a model on pictures, and nothing is overwritten."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_residual as kr
from keras_residual_cli.app import run

SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", Path(__file__).parents[3] / "shared"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(3)
    model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=4)
    kr.save_weights(model, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.mark.any_backend
def test_pictures_are_standardised_as_asked(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = checkpoint.parent / "net.keras"
    options = ["--mean", "0.5,0.4,0.3", "--std", "0.25,0.2,0.1"]
    assert run(["convert", str(checkpoint), str(out), "--model", "cifar_resnet20", *options]) == 0
    assert "cifar_resnet20 with 4 classes, pictures (32, 32, 3) with values 0..255" in capsys.readouterr().out
    converted = keras.saving.load_model(out)
    network = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=4, weights=checkpoint)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    standardised = (pictures / 255 - np.float32([0.5, 0.4, 0.3])) / np.float32([0.25, 0.2, 0.1])
    expected = network.predict(standardised, verbose=0)
    np.testing.assert_allclose(converted.predict(pictures, verbose=0), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["net.safetensors", "net.h5", "--model", "cifar_resnet20"], "OUT must end in .keras"),
        (["net.safetensors", "there.keras", "--model", "cifar_resnet20"], "is there already"),
        (["net.safetensors", "no/net.keras", "--model", "cifar_resnet20"], "There is no folder"),
        (["net.safetensors", "net.keras", "--model", "cifar_resnet2O"], "Did you mean 'cifar_resnet20'"),
        (["net.safetensors", "net.keras", "--model", "resnet18"], "does not fit 'resnet18'"),
        (["none.pth", "net.keras", "--model", "cifar_resnet20"], "none.pth"),
        (
            ["net.safetensors", "net.keras", "--model", "cifar_resnet20", "--mean", "1,2"],
            "--mean must be three numbers",
        ),
        (["net.safetensors", "net.keras", "--model", "tabular_resnet"], "a network on pictures"),
    ],
)
def test_a_wrong_call_is_told_in_one_line_and_writes_nothing(
    arguments: list[str],
    told: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    Path("there.keras").write_text("mine")
    assert run(["convert", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert told in line
    assert Path("there.keras").read_text() == "mine"
    assert not Path("net.keras").exists()


@pytest.mark.any_backend
def test_doubtful_weights_are_told_in_one_line_or_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(checkpoint)
    tensors["bn1.running_var"][0] = -1
    save_file(tensors, checkpoint)
    out = checkpoint.parent / "net.keras"
    call = ["convert", str(checkpoint), str(out), "--model", "cifar_resnet20"]
    assert run([*call, "--strict"]) == 2
    assert not out.exists()
    assert run(call) == 0
    refused, warned = capsys.readouterr().err.splitlines()
    for line in (refused, warned):
        assert line.startswith(
            f"keras-residual: Checkpoint '{checkpoint}': 1 of its weights are doubtful: bn1.running_var"
        )
    assert out.exists()


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("bias", "kernel"), [((), (4, 64)), ((4,), ()), ((4,), (5, 64)), ((100_000,), (100_000, 1)), ((4, 1), (4, 64))]
)
def test_a_head_that_makes_no_sense_is_refused_before_one_is_made(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], bias: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    save_file({"linear.bias": np.zeros(bias, "float32"), "linear.weight": np.zeros(kernel, "float32")}, checkpoint)
    assert run(["convert", str(checkpoint), str(checkpoint.parent / "net.keras"), "--model", "cifar_resnet20"]) == 2
    told = f"its head 'linear' is inconsistent: the bias has the shape {bias} and the kernel {kernel}."
    assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.any_backend
def test_the_real_checkpoint_is_converted_and_evaluated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, test = SHARED / "weights/resnet20-12fca82f.th", SHARED / "data/cifar10-jpeg/test.parquet"
    if not (source.exists() and test.exists()):
        pytest.skip(f"needs {source} and {test}; KERAS_RESIDUAL_TEST_DATA names the folder that holds them")
    out = str(tmp_path / "resnet20.keras")
    assert run(["convert", str(source), out, "--model", "cifar_resnet20"]) == 0
    assert run(["evaluate", out, str(test), "--json"]) == 0
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["examples"] == 10_000
    assert round(found["test_accuracy"] * 10_000) == 8_103
