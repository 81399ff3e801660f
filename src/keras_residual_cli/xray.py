"""`keras-residual xray`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, check_free, reading_the_call
from keras_residual_cli.output import output, print_json


def xray(
    run: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A run directory or a .keras file.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="As for evaluate.", show_default="that of the run"),
    ] = None,
    examples: Annotated[int, typer.Option(metavar="N", help="Examples of the batch it looks with.", min=2)] = 64,
    quantities: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="What to measure beside, such as lesion,loss_slice; what it costs is said."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures and plain words; it must not exist.")
    ] = None,
    suggest: Annotated[bool, typer.Option("--suggest", help="Name the groups that shortcuts would go around.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show whether the gradient arrives in a model, block by block, and what to change."""
    with output(as_json) as console:
        with reading_the_call():
            if html is not None:
                check_free(html, "Choose another: --html FILE")
            start_keras()
            from keras_residual._json import finite
            from keras_residual._optional import require
            from keras_residual.surgery.suggest import suggest_groups
            from keras_residual.training.evaluate import load_test_data
            from keras_residual.training.saved import load_saved
            from keras_residual.training.saved_loss import loss_for
            from keras_residual.xray import xray as look
            from keras_residual.xray.measure.on_request import check_quantities

            if html is not None:
                require("vl_convert", extra="plot")  # before the model is looked at, not after
                require("jinja2", extra="plot")
            saved = load_saved(run)
            dataset = load_test_data(saved, data)
            if len(dataset.y_test) < 2:
                raise CallError("The data has fewer than two examples.")
            plan = suggest_groups(saved.model) if suggest else None
            asked = [name.strip() for name in (quantities or "").split(",") if name.strip()]
            check_quantities(asked, dataset.y_test[:examples])
        x, y = dataset.x_test[:examples].astype("float32"), dataset.y_test[:examples]
        loss = loss_for(saved, x, classes=bool(dataset.classes))
        report = look(saved.model, x, y if dataset.classes else y[:, None], loss, quantities=asked)
        console.say(str(report))
        if plan is not None:
            console.say(str(plan))
        if html is not None:
            report.to_html(html)
            console.say(f"Wrote {html}")
        if as_json:
            found = finite(report.to_dict())
            print_json(found if plan is None else {**found, "suggested": plan.to_dict()})
