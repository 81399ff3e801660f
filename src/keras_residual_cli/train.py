"""`keras-residual train`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, check_free, reading_the_call
from keras_residual_cli.output import Words, output, print_json, print_text, printable


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
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Weights that the network begins with: a file, a folder, or hf://owner/name. Its head is new.",
            show_default="those of the name's tag, as in resnet50.a1_in1k",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="A published training; keras-residual recipes lists them.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Run directory.", show_default="a fresh runs/NAME-N")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a table to be predicted.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="by the data")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Examples in a step.", show_default="by the data")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Highest learning rate.", show_default="by the kind of data")
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(
            metavar="balanced|NAME=X,...",
            help="What the loss of a class counts; balanced: each class alike.",
            show_default="1 for each",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Edge to which pictures are scaled.", show_default="by the data"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything random.", show_default="0")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, for example augment.flip=true."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Settings to begin with: a TOML file, or the directory of an earlier run."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run where it stopped, to the very numbers of an unbroken one; --epochs "
            "may give it more.",
        ),
    ] = None,
    save_every: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS|MINUTES",
            help="How often to write what --resume needs: '500 steps', '10 minutes'.",
            show_default="5 minutes",
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(metavar="N", help="Stop training after N minutes; --resume goes on.", show_default="no limit"),
    ] = None,
    find_lr: Annotated[
        str | None,
        typer.Option(
            "--find-lr",
            metavar="FILE.svg",
            help="Instead of training, look for a learning rate, and draw the loss over rising rates.",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting with its value and meaning, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object.")] = False,
) -> None:
    """Train a residual network on DATA and leave a run directory with model, history, metrics and report."""
    began = time.perf_counter()
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual.training import train as training
            from keras_residual.training.config import TrainConfig
            from keras_residual.training.config_file import config_for_new_run, read_run, to_toml
            from keras_residual_cli.progress import watching

            if find_lr is not None:
                check_free(Path(find_lr))
            if recipe and config:
                raise CallError(
                    "--recipe cannot go with --config, whose settings leave nothing to it. Drop one of them."
                )
            asked = {
                "recipe": recipe,
                "data.source": data,
                "data.target": target,
                "data.image_size": image_size,
                "loss.class_weights": class_weights.split(",") if class_weights else None,
                "model.name": model,
                "model.weights": weights,
                "optimizer.learning_rate": learning_rate,
                "batch_size": batch_size,
                "epochs": epochs,
                "seed": seed,
                "out": out,
                "save_every": save_every,
                "max_minutes": max_minutes,
            }
            if config:
                chosen = config_for_new_run(config, source=data)
            else:
                chosen = read_run(resume) if resume else TrainConfig()
            chosen = chosen.updated({key: value for key, value in asked.items() if value is not None})
            prepared = training.prepare(chosen.with_overrides(settings or ()), resume=resume)
        if print_config:
            if as_json:
                print_json(prepared.config.to_dict())
            else:
                print_text(to_toml(prepared.config))
            return
        if find_lr is not None:
            _find_learning_rate(prepared, Path(find_lr), console, as_json)
            return
        dataset, settled = prepared.dataset, prepared.config
        epochs_in_words = f"{prepared.epochs} epoch{'s' if prepared.epochs > 1 else ''}"
        what = f"Going on after step {prepared.step} with" if prepared.step else "Training"
        console.say(
            f"{what} {settled.model.name} on {dataset.name}: {len(prepared.learn)} examples to learn from, "
            f"{len(prepared.choose)} to choose the best of {epochs_in_words}, {len(dataset.y_test)} to test"
        )
        if not dataset.classes:
            console.say("The loss is the mean squared error, in the square of the target's unit.")
        for note in prepared.notes:
            console.print(note, markup=False, soft_wrap=True)
        with watching(console, epochs=prepared.epochs, steps=prepared.steps, done=prepared.step) as callback:
            result = training.train(prepared, callbacks=[callback])
        metrics = result.metrics
        directory = printable(shlex.quote(str(result.run_directory)))
        console.say(f"Test {_found(metrics)} on {len(dataset.y_test)} examples, epoch {result.best_epoch}")
        compiled = metrics["compile_seconds"] or 0
        compiling = f" ({compiled:.1f} s compiling)" if compiled >= 1 else ""
        console.say(
            f"Took {time.perf_counter() - began:.1f} s from start to report, {metrics['train_seconds']:.1f} s of them "
            f"training{compiling}. Report: {directory}/report.html"
        )
        if result.go_on:
            console.say(f"Stopped after {settled.max_minutes:g} minutes. Go on with: {result.go_on}")
        if as_json:
            print_json({**metrics, "run_directory": str(result.run_directory)})


def _find_learning_rate(prepared: Any, file: Path, console: Words, as_json: bool) -> None:
    from keras_residual import _atomic
    from keras_residual.training.learning_rate import find_learning_rate

    with reading_the_call():
        found = find_learning_rate(prepared)
    _atomic.write_text(file, found.to_svg())
    if as_json:
        print_json({"suggestion": found.suggestion, "rates": list(found.rates), "losses": list(found.losses)})
    elif found.suggestion is None:
        console.say(f"The loss fell at no rate, so there is none to suggest. See {file}")
    else:
        rate = f"{found.suggestion:.2g}"
        console.say(f"Suggested: --learning-rate {rate}. The loss over {len(found.rates)} rising rates is in {file}")


def _found(metrics: Mapping[str, Any]) -> str:
    from keras_residual.training.scores import percent

    if "test_accuracy" not in metrics:
        r2 = f"R² {metrics['test_r2']:.3f}, " if "test_r2" in metrics else ""
        return f"{r2}root mean square error {metrics['test_rmse']:.4g} in the target's unit"
    majority = metrics.get("test_majority")
    beside = "" if majority is None else f" (always the commonest class: {percent(majority)})"
    return f"accuracy {percent(metrics['test_accuracy'])}{beside}"
