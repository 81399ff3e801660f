"""`keras-residual benchmark`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, check_free, reading_the_call
from keras_residual_cli.output import Words, output, print_json, print_table


def benchmark(
    run: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A run directory or a .keras file.")],
    formats: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Such as onnx,openvino.", show_default="all whose packages are installed"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="What accuracy is measured on, as for evaluate.", show_default="the run's"),
    ] = None,
    batch_sizes: Annotated[str, typer.Option(metavar="N,N,…", help="Sizes of batches that are timed.")] = "1,32",
    threads: Annotated[int, typer.Option(metavar="N", help="Number of threads.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(metavar="S", help="Time for each batch size.", min=0.0)] = 1.0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures as JSON; it must not exist.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the figures as a .png; it must not exist.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export a model to each format and show what it costs to run, and how right it stays."""
    with output(as_json) as console:
        with reading_the_call():
            sizes = _sizes(batch_sizes)
            for path in (out, picture):
                if path is not None:
                    check_free(path)
            if picture is not None and picture.suffix.lower() != ".png":
                raise CallError(f"--picture must end in .png, but received {str(picture)!r}.")
            start_keras()
            from keras_residual import _atomic
            from keras_residual._optional import require
            from keras_residual.training import benchmark as measuring
            from keras_residual.training.benchmark_picture import draw
            from keras_residual.training.evaluate import load_test_data
            from keras_residual.training.saved import load_saved

            if picture is not None:
                require("matplotlib", extra="plot")  # before anything is measured, not after
            names = measuring.formats_of([name.strip() for name in (formats or "").split(",") if name.strip()])
            saved = load_saved(run)
            dataset = None if data is None and saved.config is None else load_test_data(saved, data)
        found = []
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(measuring.KERAS, total=len(names) + 1)
            made = measuring.benchmark(saved, names, dataset, batch_sizes=sizes, threads=threads, seconds=seconds)
            for row, following in zip(made, (*names, ""), strict=True):
                found.append(row)
                progress.update(task, advance=1, description=following)
                if not console.is_terminal:
                    console.say(_line(row))
        _show(found, sizes, console)
        content = {"model": run, "threads": threads, "batch_sizes": sizes, "formats": [row.to_dict() for row in found]}
        if out is not None:
            _atomic.write_text(out, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            console.say(f"Wrote {out}")
        if picture is not None:
            _atomic.write_bytes(picture, draw(found))
            console.say(f"Wrote {picture}")
        if as_json:
            print_json(content)


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 4096 for part in parts):
        raise CallError(f"--batch-sizes must be numbers such as 1,32 up to 4096, but received {text!r}.")
    return [int(part) for part in parts]


def _line(row: Any) -> str:
    if row.cost is None:
        return f"{row.format}: not to be had"
    return (
        f"{row.format}: {', '.join(f'{speed.milliseconds:.2f} ms at {speed.batch_size}' for speed in row.cost.speeds)}"
    )


def _show(rows: list[Any], sizes: list[int], console: Words) -> None:
    scored = next((key for key in ("test_accuracy", "test_r2") if rows[0].scores and key in rows[0].scores), None)
    table = Table(box=None, pad_edge=False)
    table.add_column("format")
    for name in ("MB", "load s", *(f"ms at {size}" for size in sizes), f"rows/s at {sizes[-1]}", "memory MB", "agrees"):
        table.add_column(name, justify="right")
    if scored:
        table.add_column(scored.removeprefix("test_"), justify="right")
    for row in (row for row in rows if row.cost is not None):
        cost = row.cost
        memory = "" if cost.megabytes is None else f"{cost.megabytes:.0f}"
        speeds = [f"{speed.milliseconds:.2f}" for speed in cost.speeds]
        cells = [row.format, f"{row.bytes / 1e6:.2f}", f"{cost.load_seconds:.2f}", *speeds]
        cells += [f"{cost.speeds[-1].rows_per_second:.0f}", memory, f"{row.agreement:.4f}"]
        table.add_row(*cells, *([f"{row.scores[scored]:.4f}"] if scored else []))
    print_table(console, table)
    for row in rows:
        if row.reason is not None:
            console.say(f"{row.format}: {row.reason}")
