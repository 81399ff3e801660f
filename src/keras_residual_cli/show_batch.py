"""`keras-residual show-batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, check_free, reading_the_call
from keras_residual_cli.output import output, print_json


def show_batch(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Pictures, as for train.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="PNG file; it must not exist.")] = Path("batch.png"),
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="As for train.")] = None,
    model: Annotated[str | None, typer.Option(help="As for train.", show_default="by the kind of data")] = None,
    step: Annotated[int, typer.Option(metavar="N", help="The step whose batch it is, from 0.", min=0)] = 0,
    count: Annotated[int, typer.Option(metavar="N", help="Most pictures that are drawn.", min=1)] = 64,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="As for train.", show_default="by the data")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="As for train.", show_default="by the data")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="As for train.", show_default="0")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of train.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a picture of a training batch with its labels: what the network of `train` would see."""
    with output(as_json) as console:
        with reading_the_call():
            check_free(out, "Choose another: --out FILE")
            start_keras()
            from keras_residual import _atomic
            from keras_residual._optional import require
            from keras_residual.data.batch_picture import draw_batch, labels
            from keras_residual.training.config import TrainConfig
            from keras_residual.training.prepare import prepare

            require("matplotlib.figure", extra="plot")
            asked = {
                "recipe": recipe,
                "data.source": data,
                "data.image_size": image_size,
                "model.name": model,
                "batch_size": batch_size,
                "seed": seed,
                "xray": False,
            }
            config = TrainConfig().updated({key: value for key, value in asked.items() if value is not None})
            prepared = prepare(config.with_overrides(settings or ()))
            dataset = prepared.dataset
            if dataset.kind != "pictures":
                raise CallError("show-batch shows pictures, and the data is a table.")
        pictures, targets = (part[:count] for part in prepared.batches(dataset.x_train, dataset.y_train).batch(step))
        _atomic.write_bytes(out, draw_batch(pictures, targets, dataset.classes))
        height, width = pictures.shape[1:3]
        of = f" of {prepared.config.batch_size}" if prepared.config.batch_size != len(pictures) else ""
        console.say(f"Wrote {len(pictures)} pictures{of}, {height} × {width} pixels, to {out}")
        if as_json:
            print_json({"picture": str(out), "step": step, "labels": labels(targets, dataset.classes)})
