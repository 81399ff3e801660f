"""`keras-residual export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, reading_the_call
from keras_residual_cli.output import output, print_json


def export(
    run: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A run directory or a .keras file.")],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A .onnx, .xml, .tflite or .pt2 file, or a folder for a SavedModel."),
    ],
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="onnx, openvino, litert, saved_model or pt2.", show_default="by the suffix"),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Make it int8 (onnx and openvino).")] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="What int8 is calibrated on, as for train.", show_default="that of the run"),
    ] = None,
    agreement: Annotated[
        float, typer.Option(metavar="SHARE", help="Least agreement of int8 with the model.", min=0, max=1)
    ] = 0.97,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Weights whose standardisation goes into the file; it takes pictures 0..255."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="The one batch size it takes.", min=1, show_default="any")
    ] = None,
    find_difference: Annotated[
        bool, typer.Option("--find-difference", help="Name the first layer at which a file that fails differs.")
    ] = False,
    serve_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Put it into this model repository of NVIDIA Triton too (onnx and openvino).",
            show_default="none",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is at OUT, by a good file only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a trained model for another runtime, run the file, and compare it with the model."""
    with output(as_json) as console:
        with reading_the_call():
            if calibrate is not None and not int8:
                raise CallError("--calibrate is for --int8. Add --int8, or leave it out.")
            start_keras()
            from keras_residual.deploy.export import check_call
            from keras_residual.deploy.export import export as write
            from keras_residual.training.calibration import calibration_rows
            from keras_residual.training.saved import load_saved

            check_call(out, format, int8=int8, overwrite=overwrite, serve_folder=serve_folder)
            saved = load_saved(run, any_kind=not int8)
            rows: Any = calibration_rows(saved, calibrate) if int8 else None
        known = saved.data
        # What is wrong with the work itself is an ExportError; everything else is the call.
        with console.status(f"Exporting to {out.name}"), reading_the_call():
            report = write(
                saved.model,
                out,
                format,
                int8=rows,
                agreement=agreement,
                preprocessing=preprocessing,
                batch_size=batch_size,
                labels=known.classes or None,
                features=known.features or None,
                overwrite=overwrite,
                find_difference=find_difference,
                serve_folder=serve_folder,
            )
        console.say(str(report))
        if serve_folder is not None:
            console.say(f"{serve_folder}: a model repository of Triton, with this model in it")
        if as_json:
            print_json(report.to_dict())
