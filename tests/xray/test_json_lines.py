"""Lines that are whole, whatever happened to the process before."""

from __future__ import annotations

import json

import pytest

from keras_residual.xray.log_files import JsonLines

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
