"""`keras-residual residualize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, check_free, reading_the_call
from keras_residual_cli.output import output, print_json


def residualize(
    source: Annotated[Path, typer.Argument(metavar="IN.keras", help="The plain model; it stays as it is.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.keras", help="Where the model with shortcuts goes.")],
    every: Annotated[int, typer.Option(metavar="N", help="Dense or convolutional layers in a group.")] = 2,
    start: Annotated[
        str,
        typer.Option(help="unchanged: the outputs are kept until training; identity: for a net that does not learn."),
    ] = "unchanged",
    scale: Annotated[str, typer.Option(help="The learned factor: skip_init or layer_scale.")] = "skip_init",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as one JSON object.")] = False,
) -> None:
    """Put shortcuts around groups of layers of a plain model, with the weights that it has."""
    _check(source, target)
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual import _atomic
            from keras_residual.models.keras_file import load_keras_model
            from keras_residual.surgery.residualize import report, residualize
            from keras_residual.surgery.suggest import suggest_groups

            model = load_keras_model(source, compiled=True)
            plan = suggest_groups(model, every=every)
            renewed = residualize(model, groups=plan, start=start, scale=scale, verbose=False)
        console.say(report(plan, model, renewed, start))
        if not dry_run:
            with _atomic.replacing(target) as beside:
                renewed.save(beside)
            console.say(f"Wrote {target}")
        if as_json:
            print_json(plan.to_dict() | {"written": None if dry_run else str(target)})


def _check(source: Path, target: Path) -> None:
    if not source.is_file():
        raise CallError(f"There is no model {str(source)!r}.")
    if target.suffix != ".keras":
        raise CallError(f"{target} must end in .keras, the format of Keras.")
    check_free(target, "Choose another name.")
