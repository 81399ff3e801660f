"""A run that is killed at any line of what writes and restores it, and goes on, ends as one that nobody has killed."""

import os
import random
import signal
import sys
from pathlib import Path

import keras
import pytest

from keras_residual import _atomic
from keras_residual.training import checkpoint, record, run_directory, session
from keras_residual.training import train as training
from keras_residual.training.config import TrainConfig
from keras_residual.training.run_directory import RunDirectory

pytestmark = pytest.mark.any_backend  # a child of a process that has run JAX or TensorFlow does not run them

MOMENTS = 25
# NumPy and zipfile are within a file when they are.
LINES_OF = {module.__file__ for module in (_atomic, checkpoint, record, run_directory, session)} | {
    str(Path(os.__file__).with_name("zipfile.py"))
}


def config(out):
    settings = [
        "data.source=wine",
        "epochs=3",
        "seed=5",
        "xray=false",
        "save_every=3 steps",
        "model.drop_path_rate=0.3",
    ]
    return TrainConfig(out=str(out)).with_overrides(settings)


class Lines:
    """Counts the lines that are run of some files, and calls at one of them."""

    def __init__(self, at=0, call=lambda: None):
        self.count, self._at, self._call = 0, at, call

    def __enter__(self):
        sys.settrace(lambda frame, *_: self._line if frame.f_code.co_filename in LINES_OF else None)
        return self

    def __exit__(self, *error):
        sys.settrace(None)

    def _line(self, frame, event, argument):
        if event == "line":
            self.count += 1
            if self.count == self._at:
                self._call()
        return self._line


def killed(moment, work):
    """Runs `work` in a child, which is killed at a line; returns whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            with Lines(moment, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def left(out):
    result = RunDirectory(out)
    model = keras.models.load_model(result.model)
    rows = [line.rpartition(",")[0] for line in result.history.read_text().splitlines()]
    return rows, [weight.tobytes() for weight in model.get_weights()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    prepared = training.prepare(config(out))
    with Lines() as lines:
        training.train(prepared)
    return left(out), lines.count


@pytest.mark.parametrize("moments", [2, pytest.param(MOMENTS, marks=pytest.mark.slow)])
def test_killed_at_moments_drawn_by_a_seed_it_ends_as_if_it_had_not_been(moments, unbroken, tmp_path):
    expected, lines = unbroken
    drawn, kills = random.Random(moments), 0
    while kills < moments:
        out = tmp_path / f"run-{kills}"
        # Over the whole run, from where there is a configuration on; what is killed before has not begun.
        place = min(1, (kills + drawn.random()) / moments)
        moment = round(lines * (0.05 + 0.95 * place))
        assert killed(moment, lambda out=out: training.train(config(out)))
        kills += 1
        # Some are killed once more when they go on, where they still come so far.
        if drawn.random() < 0.4 and not RunDirectory(out).metrics.exists():
            kills += killed(drawn.randint(1, lines // 2), lambda out=out: training.train(resume=out))
        if not RunDirectory(out).metrics.exists():
            training.train(resume=out)
        assert left(out) == expected
