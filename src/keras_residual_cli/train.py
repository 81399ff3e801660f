"""`keras-residual train`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import reading_the_call
from keras_residual_cli.output import output, print_json


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="digits, breast_cancer, wine or diabetes; a Keras set such as mnist or cifar10; a folder with one "
            "sub-folder of pictures a class; a .csv or .parquet table with --target; an .npz file.",
            show_default="digits",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the network.", show_default="by the kind of data")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Run directory.", show_default="a fresh runs/NAME-N")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a table to be predicted.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="by the data")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything random.", show_default="0")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, for example optimizer.learning_rate=0.01."),
    ] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Settings to begin with, a TOML file.")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print all settings and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object.")] = False,
) -> None:
    """Train a residual network on DATA and leave a run directory with model, history, metrics and report."""
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual.training import train as training
            from keras_residual.training.config import TrainConfig
            from keras_residual.training.config_file import read_config, to_toml
            from keras_residual_cli.progress import watching

            named = {"data.source": data, "data.target": target, "model.name": model, "out": out}
            numbers = {"epochs": epochs, "seed": seed}
            chosen = (read_config(config) if config else TrainConfig()).updated(
                {key: value for key, value in (named | numbers).items() if value is not None}
            )
            prepared = training.prepare(chosen.with_overrides(settings or ()))
        if print_config:
            if as_json:
                print_json(prepared.config.to_dict())
            else:
                typer.echo(to_toml(prepared.config), nl=False)
            return
        dataset, settled = prepared.dataset, prepared.config
        console.print(
            f"Training {settled.model.name} on {dataset.name}: {len(prepared.learn)} examples to learn from, "
            f"{len(prepared.choose)} to choose the best of {prepared.epochs} epochs, {len(dataset.y_test)} to test",
            soft_wrap=True,
        )
        for note in dataset.notes:
            console.print(note, markup=False, soft_wrap=True)
        with watching(console, epochs=prepared.epochs, steps=prepared.steps) as callback:
            result = training.train(prepared, callbacks=[callback])
        metrics = result.metrics
        found = (
            f"accuracy {100 * metrics['test_accuracy']:.2f} %"
            if dataset.classes
            else f"R² {metrics['test_r2']:.3f}, root mean square error {metrics['test_rmse']:.4g}"
        )
        directory = shlex.quote(str(result.run_directory))
        console.print(f"Test {found} on {len(dataset.y_test)} examples, epoch {result.best_epoch}", soft_wrap=True)
        console.print(f"Took {metrics['train_seconds']:.1f} s. Report: {directory}/report.html", soft_wrap=True)
        if as_json:
            print_json({**metrics, "run_directory": str(result.run_directory)})
