"""Small pictures and tables written for a test."""

import os
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", Path(__file__).parents[3] / "shared"))


@pytest.fixture
def write_picture():
    """Returns a function that writes a picture of one colour, or of given pixels, and returns its path."""
    from PIL import Image

    def write(path, value=0, size=(8, 8), mode="L", pixels=None, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new(mode, size, value) if pixels is None else Image.fromarray(pixels)
        image.save(path, **options)
        return path

    return write


@pytest.fixture
def two_classes(tmp_path, write_picture):
    """Returns a folder with ten grey 8×8 PNGs in each of `cat` (values 0..9) and `dog` (100..109)."""
    for label, base in (("cat", 0), ("dog", 100)):
        for number in range(10):
            write_picture(tmp_path / "pets" / label / f"{label}{number}.png", base + number)
    return tmp_path / "pets"


@pytest.fixture
def write_csv(tmp_path):
    """Returns a function that writes text to a `.csv` and returns its path as text."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.fixture
def cifar():
    """Returns the folder of the re-encoded CIFAR-10."""
    folder = SHARED / "data" / "cifar10-jpeg"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}; KERAS_RESIDUAL_TEST_DATA names the folder that holds data/cifar10-jpeg")
    return folder


@pytest.fixture
def iris_rows():
    """Returns the rows of a table with a text target: 20 rows `width,height,kind` of two kinds."""
    rng = np.random.default_rng(0)
    return [f"{rng.random():.3f},{rng.random():.3f},{'ab'[row % 2]}" for row in range(20)]
