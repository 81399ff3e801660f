"""Data that cannot be learned from, as the user meets it: exit status 2, one line, their files untouched, no run."""

import numpy as np
import pytest
from PIL import Image

from cli.command import fingerprint
from keras_residual_cli.app import run

pytestmark = pytest.mark.any_backend


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)).save(path)


def no_picture_in_a_folder(home):
    for name in ("cat", "dog"):
        for index in range(4):
            picture(home / "pets" / name / f"{index}.png")
    (home / "pets" / "dog" / "notes.txt").write_text("not a picture")
    return ["pets"], ["pets/dog/notes.txt"]


def one_class_only(home):
    for index in range(4):
        picture(home / "pets" / "cat" / f"{index}.png")
    return ["pets"], ["'cat'", "two at least"]


def empty_folder(home):
    (home / "pets").mkdir()
    return ["pets"], ["'pets'"]


def table(home, *rows):
    (home / "t.csv").write_text("\n".join(["height,kind,weight", *rows]) + "\n")


ROWS = [f"{1 + index / 10},{index % 3},{2 + index}" for index in range(30)]


def missing_value(home):
    table(home, *ROWS[:7], "1.5,1,", *ROWS[7:])
    return ["t.csv", "--target", "kind"], ["'weight'"]


def column_of_text(home):
    table(home, *ROWS, "tall,1,3")
    return ["t.csv", "--target", "kind"], ["'height'"]


def no_such_target(home):
    table(home, *ROWS)
    return ["t.csv", "--target", "knd"], ["'knd'", "Did you mean 'kind'?"]


def no_target(home):
    table(home, *ROWS)
    return ["t.csv"], ["target"]


def one_class_in_a_table(home):
    table(home, *(f"{index},a,{index}" for index in range(30)))
    return ["t.csv", "--target", "kind"], ["'a'", "two at least"]


def nothing_there(home):
    return ["digts"], ["'digts'", "Did you mean 'digits'?"]


CASES = [
    no_picture_in_a_folder,
    one_class_only,
    empty_folder,
    missing_value,
    column_of_text,
    no_such_target,
    no_target,
    one_class_in_a_table,
    nothing_there,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bad_data(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, words = case(tmp_path)
    before = fingerprint(tmp_path)
    status = run(["train", *arguments])
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert status == 2, line
    assert line.startswith("keras-residual: Data ")
    for word in words:
        assert word in line
    assert shown.out == ""
    assert fingerprint(tmp_path) == before
    assert not (tmp_path / "runs").exists()
