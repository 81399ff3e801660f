"""What is known of a batch before a model sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

from keras_residual.xray.measure.batch import arrays_of

pytestmark = pytest.mark.any_backend

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(32, 5)).astype("float32")
PICTURES = RNG.integers(0, 256, size=(8, 4, 4, 3)).astype("uint8")


def facts(array: Any) -> dict[str, Any]:
    (found,) = arrays_of(ops.convert_to_tensor(array), "input")
    return found


def column(values: Any) -> np.ndarray:
    found = ROWS.copy()
    found[:, 2] = values
    return found


def test_size_type_and_name() -> None:
    found = facts(3 * ROWS)
    assert (found["name"], found["shape"], found["dtype"], found["channels"]) == ("input", [32, 5], "float32", 5)
    assert found["rms"] == pytest.approx(3 * np.sqrt((ROWS**2).mean()), rel=1e-5)
    assert (found["missing"], found["same"], found["different"], found["picture"]) == (0, False, 32, False)
    assert arrays_of(None, "targets") == []


def test_each_array_of_a_structure_has_a_name() -> None:
    tensor = ops.convert_to_tensor(ROWS)
    assert [one["name"] for one in arrays_of([tensor, tensor], "input")] == ["input '0'", "input '1'"]
    assert [one["name"] for one in arrays_of({"age": tensor, "b": {"c": tensor}}, "input")] == [
        "input 'age'",
        "input 'b.c'",
    ]


@pytest.mark.parametrize(("value", "nan"), [(np.nan, True), (np.inf, False), (-np.inf, False)])
def test_what_is_missing_is_counted_by_sample_and_the_rest_is_measured(value: float, nan: bool) -> None:
    array = ROWS.copy()
    array[[1, 4], 0] = value
    found = facts(array)
    assert (found["missing"], found["nan"]) == (2, nan)
    assert found["missing_share"] == pytest.approx(2 / 160)
    assert 0.5 < found["rms"] < 2


@pytest.mark.parametrize(
    ("array", "columns"),
    [
        (ROWS, []),
        (column(1.0), [2]),
        (column(0.0), [2]),
        (column(np.arange(32)), []),
        (np.eye(32, dtype="float32")[:20], []),  # of rare categories many are in no batch
        (np.maximum(column(0.0), 0), []),  # and of what is mostly zeros
        (np.round(column(0.0) * 10), []),  # counts
        (np.round(column(7.0) * 10), [2]),
        (np.round(column(7.0) * 10).astype("int32"), []),  # tokens
        (np.concatenate([PICTURES, np.full((8, 4, 4, 1), 255, "uint8")], axis=-1), [3]),
        (np.ones((32, 5), "float32"), []),  # a batch of equal samples, which is told as such
        (RNG.normal(size=32).astype("float32"), []),
    ],
)
def test_columns_that_do_not_vary(array: np.ndarray, columns: list[int]) -> None:
    assert facts(array)["constant"] == columns


def test_equal_samples_are_the_same_whatever_their_columns_are() -> None:
    found = facts(np.repeat(ROWS[:1], 32, axis=0))
    assert (found["same"], found["different"], found["constant"]) == (True, 1, [])


def test_pictures_are_whole_numbers_up_to_255_in_more_than_rows() -> None:
    assert facts(PICTURES)["picture"]
    assert facts(PICTURES.astype("float32"))["picture"]
    assert not facts(PICTURES / 255)["picture"]
    assert not facts(PICTURES.reshape(8, -1))["picture"]
    assert not facts(PICTURES.astype("float32") - 128)["picture"]


def test_what_is_neither_number_nor_whole_is_no_reason_to_fail() -> None:
    assert facts(ROWS > 0)["rms"] == 0
    assert facts(np.full((4, 2), 3e38, "float32"))["rms"] > 1e30
    assert facts(ROWS.astype("float16"))["dtype"] == "float16"
