"""How a real net answers real pictures in each exported format, in float32 and in int8.

    python benchmarks/exported_answers.py ../shared

The folder holds `weights/resnet20-12fca82f.th`, the CIFAR ResNet-20 of akamaster/pytorch_resnet_cifar10, and
`data/cifar10-jpeg/` with `train.parquet` and `test.parquet`, CIFAR-10 as JPEG files, on which every net does worse than
on the published pictures. `right` counts the answers that are the label, of 10,000; `agreement` is the share of answers
that are those of the model in Keras. int8 is calibrated on 500 pictures of the training part.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pyarrow.parquet
from _report import report, write_page
from PIL import Image

import keras_residual as kr
from keras_residual.deploy.child import keeping_children
from keras_residual.deploy.formats import FORMATS

MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
ROWS = 750
"""Of these int8 is calibrated on two thirds, and checks itself on the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[2] / "shared")
    folder = parser.parse_args().folder
    weights = folder / "weights" / "resnet20-12fca82f.th"
    model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10, weights=weights)
    x, labels = pictures(folder / "data" / "cifar10-jpeg" / "test.parquet")
    rows, _ = pictures(folder / "data" / "cifar10-jpeg" / "train.parquet", ROWS)
    expected = model.predict(x, batch_size=500, verbose=0)
    found = [_row("keras", None, expected, expected, labels)]
    with tempfile.TemporaryDirectory() as folder_of_files, keeping_children():
        for name, made in FORMATS.items():
            for int8 in (None, rows) if made.takes_int8 else (None,):
                path = Path(folder_of_files, f"{name}{'' if int8 is None else '-int8'}{made.suffix}")
                size = kr.export(model, path, name, int8=int8).bytes
                outputs = kr.load_exported(path, name).predict(x, batch_size=500)
                found.append(_row(path.stem, size, outputs, expected, labels))
                print(found[-1], flush=True)
    report("exported_answers", found)
    write_page("export", "answers", table(found))


def pictures(path: Path, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns standardised pictures of a file and their labels; `count` of them, drawn by a seed, or all."""
    held = pyarrow.parquet.read_table(path)
    if count is not None:
        held = held.take(np.random.default_rng(0).permutation(len(held))[:count])
    names = (Image.open(io.BytesIO(row["bytes"])) for row in held["img"].to_pylist())
    x = np.stack([np.asarray(picture) for picture in names]).astype("float32") / 255
    return (x - MEAN) / DEVIATION, np.array(held["label"])


def _row(name: str, size: int | None, outputs: Any, expected: Any, labels: Any) -> dict[str, Any]:
    answers = np.argmax(outputs, -1)
    return {
        "file": name,
        "megabytes": None if size is None else size / 1e6,
        "right": int((answers == labels).sum()),
        "agreement": float((answers == np.argmax(expected, -1)).mean()),
        "difference": float(np.abs(outputs - expected).max()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as Markdown."""
    lines = ["| file | MB | right of 10,000 | agrees with the model | largest difference |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        size = "" if row["megabytes"] is None else f"{row['megabytes']:.2f}"
        name = row["file"].replace("-", ", ")
        lines.append(f"| {name} | {size} | {row['right']:,} | {row['agreement']:.4f} | {row['difference']:.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
