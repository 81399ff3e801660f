"""`keras-residual predict`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import check_free, reading_the_call
from keras_residual_cli.output import Words, output, print_json, print_table, printable

# Signs with which spreadsheets have a formula begin, some after what they pass over.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def predict(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run directory, a .keras file or an exported one.")
    ],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS…", help="Pictures or folders of pictures; for a table model tables.")
    ],
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the answers to a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer for new pictures or table rows."""
    if csv_file is not None:
        check_free(csv_file, "Choose another: --csv FILE")
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual import _atomic
            from keras_residual.training import predict as prediction
            from keras_residual.training.saved import load_saved

            saved = load_saved(run, exported=True)
            x, names = prediction.load_prediction_inputs(saved, paths)
        rows = [_row(answer) for answer in prediction.predict(saved, x, names)]
        titles = {key: key for key in rows[0]}
        if "value" in titles and saved.config is not None:
            titles["value"] = _title(saved.config.data.target)
        if csv_file is not None:
            _atomic.write_text(csv_file, _csv(rows, titles))
            console.say(f"Wrote {len(rows)} answers to {csv_file}")
        elif not as_json:
            _show(rows, titles, console)
        if as_json:
            print_json({"predictions": rows})


def _row(answer: Any) -> dict[str, Any]:
    if answer.probability is None:
        return {"file": answer.input, "value": answer.answer}
    return {"file": answer.input, "class": answer.answer, "probability": answer.probability}


def _title(target: str | None) -> str:
    """Returns what the column of numbers is called: as the target, unless that has no name or that of the files."""
    name = printable(target or "")
    return name if name.strip() and name.strip().lower() != "file" else "value"


def _csv(rows: list[dict[str, Any]], titles: dict[str, str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_no_formula, titles.values()))
    writer.writerows(map(_no_formula, row.values()) for row in rows)
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    """Returns a cell that a spreadsheet shows, where it would compute a text that begins as a formula does."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _show(rows: list[dict[str, Any]], titles: dict[str, str], console: Words) -> None:
    table = Table(box=None, pad_edge=False)
    for key, title in titles.items():
        table.add_column(title, justify="left" if key in ("file", "class") else "right", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    print_table(console, table)
