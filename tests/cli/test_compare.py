"""`keras-residual compare` as it is called."""

from __future__ import annotations

import json

import pytest

from keras_residual.training import compare as compare_module
from keras_residual_cli.app import run

QUICK = ["compare", "wine", "--depths", "2,4", "--width", "8", "--epochs", "1"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_prints_a_table_and_makes_a_fresh_folder_each_time(tmp_path, capsys):
    assert run(QUICK) == 0
    first = capsys.readouterr().out
    assert run(QUICK) == 0

    for text in (
        "wine: nets of width 8, 1 epochs",
        "depth   2  plain",
        "2  residual",
        "runs/compare-wine-1: results.csv",
    ):
        assert text in first
    assert "…" not in first  # nothing is cut off in 80 columns
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["compare-wine-1", "compare-wine-2"]


@pytest.mark.any_backend
def test_json_is_one_object_alone_on_standard_output(tmp_path, capfd):
    assert run([*QUICK, "--json", "--out", "here"]) == 0

    printed = json.loads(capfd.readouterr().out)
    assert printed == json.loads((tmp_path / "here" / "results.json").read_text())
    assert [row["depth"] for row in printed["rows"]] == [2, 2, 4, 4]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--depths", "3"], "`depths` must be different even numbers"),
        (["--depths", "many"], "`depths` must be different even numbers"),
        (["--depths", "8,8"], "`depths` must be different even numbers"),
        (["--width", "0"], "`width` must be in [1, 65536]"),
        (["--out", "taken"], "exists and is not empty"),
        (["--target", "alcohol"], "target"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(arguments, part, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")

    assert run(["compare", "wine", *arguments]) == 2

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert part in lines[0]
    assert [path.name for path in tmp_path.rglob("*.*")] == ["mine.txt"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.any_backend
def test_ctrl_c_says_what_was_kept(tmp_path, monkeypatch, capsys):
    measure, calls = compare_module._measure, []

    def interrupted(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 3:  # one warms the process up
            raise KeyboardInterrupt
        return measure(*arguments, **named)

    monkeypatch.setattr(compare_module, "_measure", interrupted)

    assert run(QUICK) == 1

    assert capsys.readouterr().err.splitlines() == [
        "keras-residual: Stopped by Ctrl-C. runs/compare-wine-1 holds 1 of 4 nets."
    ]
    assert (tmp_path / "runs" / "compare-wine-1" / "results.csv").read_text().count("\n") == 2
