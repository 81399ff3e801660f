"""`keras-residual evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import reading_the_call
from keras_residual_cli.output import output, print_json

_WORDS = {
    "test_loss": "Test loss",
    "test_accuracy": "Test accuracy",
    "test_majority": "Always the commonest",
    "test_precision": "Mean precision",
    "test_recall": "Mean recall",
    "test_auc": "Area under the ROC",
    "test_rmse": "Root mean square error",
    "test_mae": "Mean absolute error",
    "test_r2": "R²",
    "examples": "Examples",
}
_UNITS = {
    "test_loss": "the square of the target's unit",
    "test_rmse": "the target's unit",
    "test_mae": "the target's unit",
}
"""Of the scores of answers that are numbers."""


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run directory, a .keras file or an exported one.")
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="As for train; all of it counts, or its own test part, but for what the run has used.",
            show_default="that of the run",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column to be predicted.", show_default="that of the run")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained model on DATA; what it was trained on, or its best epoch chosen by, does not count."""
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual.training import evaluate as evaluation
            from keras_residual.training.saved import load_saved
            from keras_residual.training.scores import SHARES, percent

            saved = load_saved(run, exported=True)
            dataset = evaluation.load_test_data(saved, data, target=target)
        for note in dataset.notes:
            console.print(note, markup=False, soft_wrap=True)
        found = evaluation.evaluate(saved, dataset)
        words, units = (_WORDS, {}) if dataset.classes else (_WORDS | {"test_loss": "Mean squared error"}, _UNITS)
        for key, value in found.items():
            unit = f" in {units[key]}" if key in units else ""
            number = percent(value) if key in SHARES else value if key == "examples" else f"{value:.4f}"
            console.say(f"{words.get(key, key):<22} {number}{unit}")
        if as_json:
            print_json({**found, "notes": list(dataset.notes)})
