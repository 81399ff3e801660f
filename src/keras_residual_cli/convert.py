"""`keras-residual convert`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, check_free, reading_the_call, say
from keras_residual_cli.output import output, print_json


def convert(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="A file, a folder, or hf://owner/name on the Hugging Face Hub."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.keras", help="The model; it must not exist.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="Its architecture, see `keras-residual models`.")],
    mean: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Mean of each channel of pictures 0..1.", show_default="ImageNet's"),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Deviation of each channel.", show_default="ImageNet's")
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Edge of the pictures.", show_default="that of the weights")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse weights that no training leaves, such as NaN.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a Keras model of a PyTorch checkpoint; it takes pictures 0..255 and gives logits."""
    with output(as_json) as console:
        with reading_the_call():
            if out.suffix != ".keras":
                raise CallError(f"OUT must end in .keras, but received {str(out)!r}.")
            check_free(out, "Choose another name.")
            channels = {"mean": _numbers("mean", mean), "std": _numbers("std", std)}
            start_keras()
            from keras_residual import _atomic
            from keras_residual.models.registry import convert_checkpoint

            shape = None if size is None else (size, size, 3)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", UserWarning)
                made = convert_checkpoint(checkpoint, model, input_shape=shape, strict=strict, **channels)
            for warning in told:
                say(str(warning.message), status=0)
        with _atomic.replacing(out) as beside:
            made.save(beside)
        classes = made.output_shape[-1]
        console.say(f"{out}: {model} with {classes} classes, pictures {made.input_shape[1:]} with values 0..255")
        if as_json:
            print_json({"model": str(out), "architecture": model, "classes": classes, "params": made.count_params()})


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise CallError(f"--{option} must be three numbers such as 0.485,0.456,0.406, but received {text!r}.")
    return numbers
