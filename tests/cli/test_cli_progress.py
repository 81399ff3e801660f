"""What is seen while it trains: a bar that fits into a terminal, lines elsewhere."""

import io
import re

import pytest

from keras_residual_cli.output import Words
from keras_residual_cli.progress import watching

pytestmark = pytest.mark.any_backend

LOGS = {"loss": 0.5, "val_loss": 0.25, "accuracy": 0.75, "val_accuracy": 0.875}


def shown(terminal, logs=LOGS):
    file = io.StringIO()
    console = Words(file=file, force_terminal=terminal, width=80, color_system=None, legacy_windows=False)
    with watching(console, epochs=2, steps=3) as callback:
        for batch in range(3):
            callback.on_train_batch_end(batch)
        callback.on_epoch_end(0, dict(logs))
    return file.getvalue()


def test_a_terminal_has_a_bar_with_the_time_left():
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(True)).replace("\r", "\n").splitlines()
    last = [line for line in lines if line.strip()][-1]
    assert re.fullmatch(r"epoch 1/2  val_accuracy 87\.50 % [━╸╺ ]+ +50% \d:\d\d:\d\d left: [-\d:]+ *", last)


def test_numbers_have_no_accuracy():
    assert "epoch 1/2  val_loss 0.2500" in shown(True, {"loss": 0.5, "val_loss": 0.25})


def test_a_pipe_has_a_line_an_epoch():
    assert shown(False) == "epoch 1/2  loss 0.5000  val_loss 0.2500  accuracy 75.00 %  val_accuracy 87.50 %\n"
