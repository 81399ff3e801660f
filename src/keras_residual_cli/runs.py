"""`keras-residual runs`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import reading_the_call
from keras_residual_cli.output import output, print_json, print_table


def runs(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to look, at any depth.")] = "runs",
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="A number, such as test_accuracy (the best first), or a setting, such as optimizer.learning_rate.",
            show_default="the name",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the runs in DIR: how far they came, what they found, and the settings in which they differ."""
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual.training.runs import differences, list_runs
            from keras_residual.training.scores import SHARES, percent

            found = list_runs(folder, sort=sort)
            differ = differences(found)
        if as_json:
            print_json({"runs": [_plain(run, differ.get(run.path, {})) for run in found]})
            return
        if not found:
            console.say(f"There are no runs in {folder}.")
            return
        told = ("test_accuracy", "test_r2", "test_loss", "val_accuracy", "val_loss", "train_seconds")
        keys = [
            key for key in dict.fromkeys((*told, *([sort] if sort else ()))) if any(key in r.numbers for r in found)
        ]
        table = Table("run", "state", "model", "data", "epochs", *keys, "differs in")

        def cell(run: Any, key: str) -> str:
            value = run.numbers.get(key)
            if not isinstance(value, (int, float)):
                return "" if value is None else str(value)
            return percent(value) if key in SHARES else f"{value:.4g}"

        for run in found:
            config = run.config
            about = [config.model.name, config.data.source, f"{run.epochs}/{config.epochs}"] if config else ["", "", ""]
            settings = " ".join(f"{key}={value}" for key, value in differ.get(run.path, {}).items())
            table.add_row(str(run.path), run.state, *about, *(cell(run, key) for key in keys), run.reason or settings)
        print_table(console, table)


def _plain(run: Any, differ: dict[str, Any]) -> dict[str, Any]:
    config = run.config
    return {
        "run": str(run.path),
        "state": run.state,
        "reason": run.reason,
        "epochs": run.epochs,
        "numbers": run.numbers,
        "config": config.to_dict() if config else None,
        "differs": {key: list(value) if isinstance(value, tuple) else value for key, value in differ.items()},
    }
