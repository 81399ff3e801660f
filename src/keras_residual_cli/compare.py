"""`keras-residual compare`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import reading_the_call
from keras_residual_cli.output import Words, output, print_json, print_table, printable

# Column of the results: its title and how a value is shown.
_COLUMNS = {
    "depth": ("depth", "{}"),
    "net": ("net", "{}"),
    "parameters": ("weights", "{:,}"),
    "train_loss": ("train loss", "{:.3g}"),
    "test_accuracy": ("test accuracy", "{:.2%}"),
    "test_rmse": ("test rmse", "{:.4g}"),
    "gradient_start": ("gradient at start", "{:.3g}"),
    "gradient_end": ("gradient at end", "{:.3g}"),
    "seconds": ("seconds", "{:.1f}"),
}
_IN_LINE = ("train_loss", "test_accuracy", "test_rmse", "seconds")


def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for train.")] = "digits",
    depths: Annotated[
        str, typer.Option(metavar="N,N,…", help="Numbers of layers in the blocks, even: a block has two.")
    ] = "8,16,32,64",
    width: Annotated[int, typer.Option(help="Width of each layer.")] = 64,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="about 660 steps")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="First rate of the optimizer.", show_default="0.05 for classes, 0.001 for numbers"),
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a table to be predicted.")] = None,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to write.", show_default="a fresh runs/compare-DATA-N")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
) -> None:
    """Train plain and residual nets of equal width and depth on DATA: the experiment of the paper.

    Both nets of a depth have the same Dense layers with batch norm and ReLU, the same He-initialised first weights, the
    same number of weights, the same SGD steps on the same batches; the residual one adds the input of every second
    layer to its output. A plain net whose TRAINING loss grows with depth is not overfitted: it could not be optimised
    (He et al. 2015, figure 1).
    """
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual._optional import require
            from keras_residual.data import load_dataset
            from keras_residual.training.compare import compare as comparison
            from keras_residual.training.compare_settings import Settings, parse_depths
            from keras_residual.training.run_directory import check_free

            require("matplotlib", extra="plot")  # before the nets are trained, not after the first
            settings = Settings(
                depths=parse_depths(depths), width=width, epochs=epochs, learning_rate=learning_rate, seed=seed
            )
            if out is not None:
                check_free(Path(out))
            dataset = load_dataset(data, target=target, seed=seed)
        for note in dataset.notes:
            console.print(note, markup=False, soft_wrap=True)
        with _watching(console, settings.depths) as on_row:
            done = comparison(dataset, settings, out=out, on_row=on_row)
        print_table(console, _table(done.results))
        directory = printable(shlex.quote(str(done.run_directory)))
        console.say(f"In {directory}: results.csv, results.json, compare.png")
        if as_json:
            print_json(done.results)


@contextmanager
def _watching(console: Words, depths: tuple[int, ...]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what shows a finished net: a line, and in a terminal a bar below the lines."""
    columns = (TextColumn("training"), BarColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=2 * sum(depths))  # time goes with the layers

        def on_row(row: dict[str, Any]) -> None:
            shown = "  ".join(f"{_COLUMNS[key][0]} {text}" for key, text in _cells(row).items() if key in _IN_LINE)
            console.say(f"depth {row['depth']:>3}  {row['net']:<8}  {shown}")
            progress.advance(task, row["depth"])

        yield on_row


def _table(results: dict[str, Any]) -> Table:
    numbers = results["task"] == "regression"
    squared = "; train loss: mean squared error, in the square of the target's unit" if numbers else ""
    table = Table(
        title=f"{results['data']}: nets of width {results['width']}, {results['epochs']} epochs",
        caption="gradient: norm of dLoss/dInput on a test batch; seconds: of all work on a net, with compiling"
        + squared,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    rows = [_cells(row) for row in results["rows"]]
    for key in rows[0]:
        # Two lines, so that the table fits into 80 columns.
        title = _COLUMNS[key][0].replace(" ", "\n", 1)
        table.add_column(title, justify="left" if key == "net" else "right", no_wrap=True)
    for index, cells in enumerate(rows):
        table.add_row(*cells.values(), end_section=index % 2 == 1)
    return table


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        key: "diverged" if row[key] is None else form.format(row[key]).replace("%", " %")
        for key, (_, form) in _COLUMNS.items()
        if key in row
    }
