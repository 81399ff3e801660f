"""`report.html`: what a run did, in one file that needs no network and reads without prior knowledge."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_residual import _atomic
from keras_residual._errors import printable
from keras_residual._optional import require
from keras_residual.data import Dataset
from keras_residual.training.figures import curves, predicted_against_true
from keras_residual.training.run_directory import RunDirectory
from keras_residual.xray.page.render import head, section
from keras_residual.xray.report import XrayReport

# More classes make a table that no screen holds; the report then lists the commonest confusions.
MOST_CLASSES_IN_TABLE = 20
MOST_CLASSES_IN_LIST = 50
MOST_CONFUSIONS = 20
MOST_MISTAKES = 24

MEANINGS = {
    "test_loss": "how wrong the answers are, with how sure the model was of them; lower is better",
    "test_accuracy": "share of right answers",
    "test_majority": "accuracy of always answering the commonest class",
    "test_precision": "of the answers that name a class, the share that is right; mean over the classes",
    "test_recall": "of the examples of a class, the share that is recognised; mean over the classes",
    "test_auc": "how often an example of a class gets more of it than another example: 1 is perfect, 0.5 is chance",
    "test_rmse": "root of the mean squared error, in the target's unit",
    "test_mae": "mean absolute error, in the target's unit",
    "test_r2": "share of the variation that the answers explain: 0 is no better than the mean",
    "train_seconds": "from the first step to the last, with validation, saving and every pause",
    "compile_seconds": "by which the first steps took longer than the usual ones",
    "examples_per_second": "in a usual step: the median, without what was compiled and without pauses",
}
"""What the numbers of a run mean, by their keys in `metrics.json`."""
MEANINGS_OF_NUMBERS = {"test_loss": "mean squared error, in the square of the target's unit; lower is better"}
"""What means something else where the answers are numbers."""


def write_report(
    run: RunDirectory,
    dataset: Dataset,
    outputs: np.ndarray | None,
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
        outputs: Logits of shape `(examples, classes)`, or numbers of shape `(examples, 1)`; None of other outputs.
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
    scatter = by_class = None
    if outputs is not None and dataset.classes:
        by_class = _about_classes(dataset, outputs)
    elif outputs is not None:
        scatter = predicted_against_true(dataset.y_test, outputs[:, 0], name="scatter")
    content: dict[str, Any] = {
        "title": f"{printable(metrics['model'])} on {printable(metrics['data'])}",
        "kind": dataset.kind,
        "examples": len(dataset.y_test),
        "metrics": metrics,
        "meanings": MEANINGS if by_class else MEANINGS | MEANINGS_OF_NUMBERS,
        "best_epoch": best_epoch,
        "loss_curve": curves(history, "loss", best_epoch=best_epoch, name="loss"),
        "accuracy_curve": curves(history, "accuracy", best_epoch=best_epoch, name="accuracy")
        if "val_accuracy" in history[0]
        else None,
        "scatter": scatter,
        "by_class": by_class,
        "xray": None,
        "xray_head": "",
    }
    untrained, trained = xrays
    if trained is not None:
        try:
            content |= {"xray": section(trained, untrained, "before training", folded=True), "xray_head": head()}
        except Exception as error:  # a run is worth more than its X-ray
            run.log(f"The report has no X-ray: {type(error).__name__}: {error}")
    _atomic.write_text(run.report, environment.get_template("report.html.j2").render(content))


def _about_classes(dataset: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    names, count = [printable(name) for name in dataset.classes], len(dataset.classes)
    truth, answers = dataset.y_test, np.argmax(outputs, axis=-1)
    wrong = np.flatnonzero(answers != truth)
    totals, answered = np.bincount(truth, minlength=count), np.bincount(answers, minlength=count)
    right = totals - np.bincount(truth[wrong], minlength=count)
    # The classes that are recognised worst, where there are too many; none of which there is no example.
    shown = np.arange(count)
    if count > MOST_CLASSES_IN_LIST:
        shown = np.flatnonzero(totals)
        shown = np.sort(shown[np.argsort(right[shown] / totals[shown], kind="stable")][:MOST_CLASSES_IN_LIST])
    pairs, times = np.unique(np.stack([truth[wrong], answers[wrong]]), axis=1, return_counts=True)
    commonest = np.argsort(-times, kind="stable")[:MOST_CONFUSIONS]
    return {
        "names": names,
        "wrong": len(wrong),
        "commonest": names[int(np.argmax(totals))],
        "rows": [
            {"name": names[index], "right": right[index], "total": totals[index], "answered": answered[index]}
            for index in shown
        ],
        "matrix": _matrix(truth, answers, count) if count <= MOST_CLASSES_IN_TABLE else None,
        "confusions": [
            {"true": names[pairs[0, index]], "answer": names[pairs[1, index]], "times": times[index]}
            for index in commonest
        ],
        "mistakes": _mistakes(dataset, outputs, wrong, names) if dataset.kind == "pictures" else [],
    }


def _matrix(truth: np.ndarray, answers: np.ndarray, classes: int) -> list[list[dict[str, Any]]]:
    """Returns a row for each true class and a cell for each answer, whose shade is its share of the largest count."""
    counts = np.bincount(truth * classes + answers, minlength=classes**2).reshape(classes, classes)
    return [
        [
            {"count": int(count), "share": count / counts.max(), "kind": "right" if true == answer else "wrong"}
            for answer, count in enumerate(row)
        ]
        for true, row in enumerate(counts)
    ]


def _mistakes(dataset: Dataset, outputs: np.ndarray, wrong: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the mistakes of which the model was surest: the surest of each true class, then the second of each."""
    surest = sorted(((_highest_probability(outputs[row]), int(row)) for row in wrong), key=lambda pair: -pair[0])
    seen: dict[int, int] = {}
    ranked = []
    for sure, row in surest:
        true = int(dataset.y_test[row])
        seen[true] = seen.get(true, 0) + 1
        ranked.append((seen[true], -sure, row, true))
    return [
        {
            "picture": _png(dataset.x_test[row]),
            "true": names[true],
            "answer": names[int(np.argmax(outputs[row]))],
            "sure": -unsure,
        }
        for _, unsure, row, true in sorted(ranked)[:MOST_MISTAKES]
    ]


def _highest_probability(logits: np.ndarray) -> float:
    logits = logits.astype(np.float64)
    return float(1 / np.exp(logits - logits.max()).sum())


def _png(picture: np.ndarray) -> str:
    """Returns a data URI of a uint8 picture `(height, width, 1 or 3)`."""
    image = require("PIL.Image", extra="train")
    file = io.BytesIO()
    image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
