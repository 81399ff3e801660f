"""A learning rate is found where the loss falls, and the run is as if nobody had looked."""

import re

import numpy as np
import pytest

from keras_residual.training import train as training
from keras_residual.training.config import TrainConfig
from keras_residual.training.learning_rate import find_learning_rate, longest_fall
from keras_residual_cli.app import run


def test_the_loss_falls_at_the_rate_and_the_weights_stay():
    prepared = training.prepare(TrainConfig(xray=False).with_overrides(["data.source=wine", "batch_size=32"]))
    learner = prepared.assembled.network
    before, drawn = [np.array(weight) for weight in learner.get_weights()], np.random.get_state()[1].copy()  # noqa: NPY002
    found = find_learning_rate(prepared)
    for weight, old in zip(learner.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert np.array_equal(np.random.get_state()[1], drawn)  # noqa: NPY002
    assert found.rates[0] == pytest.approx(1e-7)
    assert len(found.rates) == len(found.losses) <= 100
    assert 1e-5 < found.suggestion < 1
    # There the loss is falling, and it has not fallen all the way.
    place = found.rates.index(found.suggestion)
    assert min(found.losses) < found.losses[place] < max(found.losses[:place])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("losses", "place"),
    [([5, 4, 3, 2, 1, 9], 2), ([1, 9, 8, 7, 6, 5, 20], 3), ([1, 2, 3], None), ([], None), ([5, 6, 4, 7, 3, 8, 2], 3)],
)
def test_the_place_is_the_middle_of_the_longest_fall(losses, place):
    assert longest_fall(losses) == place


@pytest.mark.any_backend
def test_the_command_draws_and_suggests(tmp_path, capfd):
    picture = tmp_path / "rates.svg"
    call = ["train", "wine", "--set", "xray=false", "--find-lr", str(picture)]
    assert run(call) == 0
    assert re.search(r"Suggested: --learning-rate \S+\. The loss over \d+ rising rates is in ", capfd.readouterr().out)
    assert picture.read_text().startswith("<svg")
    assert [path.name for path in tmp_path.iterdir()] == ["rates.svg"]
    assert run(call) == 2
    assert "is there already and is not overwritten" in capfd.readouterr().err
