"""`report.html`: what a run did, in one file that needs no network and reads without prior knowledge."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_residual import _atomic
from keras_residual._optional import require
from keras_residual.data import Dataset
from keras_residual.training.figures import curves, predicted_against_true
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.scores import confusion
from keras_residual.xray.page.render import head, section
from keras_residual.xray.report import XrayReport

# More classes make a table that no screen holds; the report then lists the commonest confusions.
MOST_CLASSES_IN_TABLE = 20
MOST_MISTAKES = 24


def write_report(
    run: RunDirectory,
    dataset: Dataset,
    outputs: np.ndarray,
    history: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Any],
    *,
    best_epoch: int,
    xrays: tuple[XrayReport | None, XrayReport | None] = (None, None),
) -> None:
    """Replaces `report.html`.

    Args:
        run: Where to write.
        dataset: The data, of whose test part `outputs` are the model's answers.
        outputs: Logits of shape `(examples, classes)`, or numbers of shape `(examples, 1)`.
        history: A row an epoch.
        metrics: What `metrics.json` holds.
        best_epoch: The epoch whose model was kept.
        xrays: That of the network before training, and that of the model that was kept; None for none.
    """
    jinja2 = require("jinja2", extra="train")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_residual.training"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = {
        "metrics": metrics,
        "dataset": dataset,
        "best_epoch": best_epoch,
        "loss_curve": curves(history, "loss", best_epoch=best_epoch, name="loss"),
        "accuracy_curve": None,
        "scatter": None,
        "classes": [],
        "confusions": [],
        "matrix": None,
        "mistakes": [],
        "mistake_count": 0,
        "xray": None,
        "xray_head": "",
    }
    if dataset.task == "classification":
        content |= _about_classes(dataset, outputs)
        content["accuracy_curve"] = curves(history, "accuracy", best_epoch=best_epoch, name="accuracy")
    else:
        content["scatter"] = predicted_against_true(dataset.y_test, outputs[:, 0], name="scatter")
    untrained, trained = xrays
    if trained is not None:
        try:
            content |= {"xray": section(trained, untrained, "before training", folded=True), "xray_head": head()}
        except Exception as error:  # a run is worth more than its X-ray
            run.log(f"The report has no X-ray: {type(error).__name__}: {error}")
    _atomic.write_text(run.report, environment.get_template("report.html.j2").render(content))


def _about_classes(dataset: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    counts = confusion(outputs, dataset.y_test, classes=len(dataset.classes))
    totals = counts.sum(axis=1)
    wrong = np.flatnonzero(np.argmax(outputs, axis=-1) != dataset.y_test)
    pairs = [(counts[true, answer], true, answer) for true, answer in zip(*np.nonzero(counts), strict=True)]
    confused = sorted(((-count, true, answer) for count, true, answer in pairs if true != answer))[:20]
    return {
        "classes": [
            {"name": name, "right": int(counts[index, index]), "total": int(totals[index])}
            for index, name in enumerate(dataset.classes)
        ],
        "matrix": counts.tolist() if len(dataset.classes) <= MOST_CLASSES_IN_TABLE else None,
        "confusions": [
            {"count": int(-count), "true": dataset.classes[true], "answer": dataset.classes[answer]}
            for count, true, answer in confused
        ],
        "mistakes": _mistakes(dataset, outputs, wrong[:MOST_MISTAKES]) if dataset.kind == "pictures" else [],
        "mistake_count": len(wrong),
    }


def _mistakes(dataset: Dataset, outputs: np.ndarray, rows: np.ndarray) -> list[dict[str, str]]:
    return [
        {
            "picture": _png(dataset.x_test[row]),
            "true": dataset.classes[dataset.y_test[row]],
            "answer": dataset.classes[int(np.argmax(outputs[row]))],
        }
        for row in rows
    ]


def _png(picture: np.ndarray) -> str:
    """Returns a data URI of a uint8 picture `(height, width, 1 or 3)`."""
    image = require("PIL.Image", extra="train")
    file = io.BytesIO()
    image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
