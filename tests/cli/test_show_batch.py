"""`keras-residual show-batch`: the very batch that a training sees, as a picture and as labels."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_residual.data.batch_picture import labels
from keras_residual.training.config import TrainConfig
from keras_residual.training.prepare import prepare
from keras_residual_cli.app import run

pytestmark = pytest.mark.any_backend


def test_it_shows_the_batch_of_a_step(tmp_path, capfd):
    out = tmp_path / "batch.png"
    settings = ["batch_size=20", "augment.mixup=0.4", "seed=3"]
    call = [
        "show-batch",
        "digits",
        "--recipe",
        "he2015_cifar",
        "--model",
        "small_resnet",
        "--step",
        "70",
        "--count",
        "9",
    ]
    assert run([*call, "--out", str(out), *(part for each in settings for part in ("--set", each)), "--json"]) == 0
    captured = capfd.readouterr()
    assert f"Wrote 9 pictures of 20, 8 × 8 pixels, to {out}" in captured.err
    found = json.loads(captured.out)
    config = TrainConfig(recipe="he2015_cifar").with_overrides(["model.name=small_resnet", "xray=false", *settings])
    prepared = prepare(config)
    _, targets = prepared.batches(prepared.dataset.x_train, prepared.dataset.y_train).batch(70)
    assert found == {"picture": str(out), "step": 70, "labels": labels(targets[:9], prepared.dataset.classes)}
    assert any("+" in label for label in found["labels"])
    assert np.ptp(np.asarray(Image.open(out))) > 0
    assert run(["show-batch", "digits", "--out", str(out)]) == 2
    assert "is there already and is not overwritten. Choose another: --out FILE" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wine"], "show-batch shows pictures, and the data is a table."),
        (["digits", "--recipe", "wrm"], "TrainConfig: unknown name for `recipe`: 'wrm'. Did you mean 'wrn'?"),
        (["digits", "--set", "augment.policy=rand"], "augment.policy"),
    ],
)
def test_it_refuses_in_one_line(tmp_path, capfd, arguments, message):
    assert run(["show-batch", *arguments, "--out", str(tmp_path / "b.png")]) == 2
    assert message in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
