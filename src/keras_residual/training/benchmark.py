"""What a model costs in each format that it can be exported to here: size, time, memory, and how right it stays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._atomic import folder_beside
from keras_residual.data import Dataset
from keras_residual.data.lazy import parts
from keras_residual.deploy.child import keeping_children
from keras_residual.deploy.export import export
from keras_residual.deploy.exported import load_exported
from keras_residual.deploy.formats import FORMATS, format_of
from keras_residual.deploy.measure import Cost, measure
from keras_residual.deploy.signature import Signature, signature_of
from keras_residual.deploy.verify import agreement
from keras_residual.training.evaluate import evaluate
from keras_residual.training.saved import Saved

KERAS = "keras"
"""What the row of the model itself is called."""

SAMPLES = 256
"""Random rows on which agreement is measured where there is no data."""


@dataclass(frozen=True)
class Row:
    """What was found of one format.

    Args:
        format: Its name; `"keras"` for the model itself.
        bytes: Size of its files; None where it could not be had.
        cost: What running it costs.
        agreement: How far its answers agree with the model's, up to 1.
        scores: What `evaluate` returns on the data; empty without data.
        reason: Why it could not be had; None where it could.
    """

    format: str
    bytes: int | None = None
    cost: Cost | None = None
    agreement: float | None = None
    scores: dict[str, float] | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON has them."""
        return asdict(self)


def formats_of(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of formats, in the order of the library; all whose packages are installed for no names.

    Raises:
        ValueError: For a name that is none.
        ImportError: If a package of a format that was named is missing.
    """
    for name in names:
        format_of("benchmark", Path(f"model{FORMATS[name].suffix if name in FORMATS else ''}"), name).check_installed()
    return tuple(name for name in FORMATS if (name in names if names else _is_installed(name)))


def benchmark(
    saved: Saved,
    formats: Sequence[str],
    dataset: Dataset | None = None,
    *,
    batch_sizes: Sequence[int] = (1, 32),
    threads: int = 1,
    seconds: float = 1.0,
) -> Iterator[Row]:
    """Yields a row for the model itself and one for each format, as soon as it is measured.

    Each is run in a process of its own, by the runtime of its format; files go to a folder that is gone afterwards.

    Args:
        saved: The model, of Keras.
        formats: Names of `FORMATS`.
        dataset: What accuracy and agreement are measured on; None for agreement on random rows.
        batch_sizes: Sizes of batches that are timed.
        threads: Number of threads.
        seconds: Time for which batches of one size are run.
    """
    model: keras.Model = saved.model
    signature = signature_of(model)
    batches = [signature.samples(size) for size in batch_sizes]
    random = signature.samples(SAMPLES, seed=1) if dataset is None else []

    def answers(model: Any) -> list[np.ndarray]:
        pieces = [random] if dataset is None else ([piece] for piece in parts(dataset.x_test))
        found = [_answers(model, signature, piece) for piece in pieces]
        return [np.concatenate(output) for output in zip(*found, strict=True)]

    expected = answers(model)
    with folder_beside(Path(tempfile.gettempdir(), "benchmark")) as folder, keeping_children():
        path = folder / "model.keras"
        model.save(path)

        def costs(path: Path, name: str | None) -> Cost:
            return measure(path, name, batches, threads=threads, seconds=seconds, folder=folder)

        scores = None if dataset is None else evaluate(saved, dataset)
        yield Row(KERAS, path.stat().st_size, costs(path, None), 1.0, scores)
        for name in formats:
            path = folder / f"model-{name}{FORMATS[name].suffix}"
            try:
                size = export(model, path, name).bytes
                cost = costs(path, name)
                found = load_exported(path, name)
                share = min(map(agreement, expected, answers(found)))
                scores = None if dataset is None else evaluate(Saved(path, found, saved.config), dataset)
            except (RuntimeError, ValueError) as error:  # an export that fails, or a file that does not run
                yield Row(name, reason=str(error))
            else:
                yield Row(name, size, cost, share, scores)


def _answers(model: Any, signature: Signature, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    typed = [array.astype(port.dtype) for array, port in zip(rows, signature.inputs, strict=True)]
    if isinstance(model, keras.Model):
        quiet: Any = 0  # annotated as text, documented as a number
        outputs = keras.tree.flatten(model.predict(keras.tree.pack_sequence_as(model.input, typed), verbose=quiet))
    else:
        found = model.predict(typed[0] if len(typed) == 1 else typed)
        outputs = list(found.values()) if isinstance(found, dict) else [found]
    return [np.asarray(output, np.float64) for output in outputs]


def _is_installed(name: str) -> bool:
    try:
        FORMATS[name].check_installed()
    except ImportError:
        return False
    return True
