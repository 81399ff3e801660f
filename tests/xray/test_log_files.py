"""What TensorBoard is told, read back from its files."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from keras_residual.xray.log_files import BINS, MOST_BLOCKS, EventFiles, JsonLines
from keras_residual.xray.report import XrayReport

pytestmark = pytest.mark.any_backend


def report(count: int, **model: Any) -> XrayReport:
    blocks = [
        {"name": f"stack.{index}", "gradient_norm": float(index), "update_ratio": 0.1, "branch_ratio": None}
        for index in range(count)
    ]
    blocks[-1]["gradient_norm"] = math.inf
    return XrayReport(blocks, {"loss": 2.5, "learning_rate": None, **model})


def entries(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=100), np.array([])) for _ in range(count)]


def events(folder: Path) -> Iterator[Any]:
    """Yields the events in the files of a folder: of each record its length, a checksum, the event, and a checksum."""
    for path in sorted(folder.iterdir()):
        content, start = path.read_bytes(), 0
        while start < len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            yield Event.FromString(content[start + 12 : start + 12 + length])
            start += 16 + length


def written(folder: Path) -> dict[tuple[int, str], Any]:
    return {(event.step, value.tag): value for event in events(folder) for value in event.summary.value}


def test_scalars_and_histograms_say_what_the_report_says(tmp_path) -> None:
    files = EventFiles(tmp_path / "xray")
    numbers = entries(3)
    files.add(report(3, update_steps=1), numbers, 7)
    found = written(tmp_path / "xray")  # before the file is closed
    files.close()
    assert found[7, "model/loss"].simple_value == 2.5
    assert (7, "model/learning_rate") not in found
    assert [found[7, f"gradient_norm/{i}_stack.{i}"].simple_value for i in range(3)] == [0, 1, math.inf]
    assert (7, "branch_ratio/0_stack.0") not in found

    profile = found[7, "over_depth/gradient_norm"].histo
    assert (profile.min, list(profile.bucket_limit), list(profile.bucket)) == (0, [1, 2, 3], [0, 1, 0])
    weights = found[7, "weights/1_stack.1"].histo
    counts, edges = np.histogram(numbers[1][0], BINS)
    assert list(weights.bucket) == counts.tolist()
    assert [weights.min, *weights.bucket_limit] == edges.tolist()
    assert (weights.num, weights.sum) == (100, pytest.approx(numbers[1][0].sum()))
    assert (7, "gradients/1_stack.1") not in found, "nothing of a block without any"


def test_an_estimate_of_the_update_is_no_measurement(tmp_path) -> None:
    files = EventFiles(tmp_path)
    files.add(report(1, update_steps=0), entries(1), 0)
    files.add(report(1, update_steps=2), entries(1), 2)
    files.close()
    assert [step for step, tag in written(tmp_path) if tag == "update_ratio/0_stack.0"] == [2]


def test_of_many_blocks_some_have_charts_and_all_are_in_the_histogram(tmp_path) -> None:
    files = EventFiles(tmp_path)
    files.add(report(1000), entries(1000), 1)
    files.close()
    found = written(tmp_path)
    tags = sorted(tag for _, tag in found if tag.startswith("gradient_norm/"))
    assert len(tags) == MOST_BLOCKS
    assert (tags[0], tags[-1]) == ("gradient_norm/000_stack.0", "gradient_norm/999_stack.999"), "in order of depth"
    assert len(found[1, "over_depth/gradient_norm"].histo.bucket) == 1000


def test_what_is_added_after_closing_goes_to_a_file_of_its_own(tmp_path) -> None:
    files = EventFiles(tmp_path)
    for step in (1, 2):
        files.add(report(1), entries(1), step)
        files.close()
    EventFiles(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 2
    assert {step for step, _ in written(tmp_path)} == {1, 2}


pytestmark = pytest.mark.any_backend


def test_lines_are_added_to_what_is_there(tmp_path) -> None:
    path = tmp_path / "new" / "xray.jsonl"
    lines = JsonLines(path)
    lines.add({"step": 0, "value": float("nan"), "list": [1.5, float("inf")]})
    assert path.read_text() == '{"step": 0, "value": null, "list": [1.5, null]}\n', "it is there before the next comes"
    lines.add({"step": 1})
    JsonLines(path).add({"step": 2, "name": "größer"})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize(("cut", "kept"), [('{"step": 1, "va', [0, 2]), ('{"step": 1}', [0, 1, 2])])
def test_a_line_that_was_cut_off_is_taken_away(tmp_path, cut: str, kept: list[int]) -> None:
    path = tmp_path / "xray.jsonl"
    path.write_text('{"step": 0}\n' + cut)
    JsonLines(path).add({"step": 2})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == kept
