"""The run directory: a fresh one each time, nothing of the user's overwritten."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_residual.training.run_directory import RunDirectory, check_apart
from memory_disk import mounted

__all__ = ["mounted"]

pytestmark = pytest.mark.any_backend


def test_fresh_directories_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [RunDirectory.create(None, name="digits").path for _ in range(3)]
    assert [str(path) for path in made] == ["runs/digits-1", "runs/digits-2", "runs/digits-3"]


def test_an_empty_directory_is_taken(tmp_path):
    assert RunDirectory.create(str(tmp_path), name="x").path == tmp_path


def test_of_two_runs_that_take_a_directory_at_the_same_moment_one_has_it(tmp_path, monkeypatch):
    # Both have found it empty.
    monkeypatch.setattr("keras_residual.training.run_directory.check_free", lambda path: None)
    out = str(tmp_path / "run")
    with ThreadPoolExecutor(8) as threads:
        tries = [threads.submit(RunDirectory.create, out, name="x") for _ in range(8)]
    errors = [error for error in (done.exception() for done in tries) if error]
    assert len(errors) == 7
    assert {type(error) for error in errors} == {FileExistsError}
    assert all(str(error).startswith(f"The run directory {out!r} exists and is not empty.") for error in errors)


@pytest.mark.parametrize(
    ("source", "out", "refused"),
    [
        ("pets", "pets/run", True),
        ("pets", "pets/cats/run", True),
        ("./pets/", "other/../pets/run", True),
        ("pets", "link/run", True),
        (".", None, True),
        ("pets", None, False),
        ("pets", "pets2", False),
        ("pets", "run", False),
        ("pets/cats/0.csv", "pets/cats/run", False),
        ("nothing", "nothing/run", False),
    ],
)
def test_a_run_is_not_written_into_the_data_that_it_learns_from(source, out, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets" / "cats").mkdir(parents=True)
    (tmp_path / "pets" / "cats" / "0.csv").write_text("a")
    (tmp_path / "link").symlink_to("pets")
    if not refused:
        check_apart(out, source)
        return
    message = (
        f"The run directory {out or 'runs'!r} would lie within the data {source!r}, of which the next run would take "
        "it for a part. Choose another: --out DIR."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_apart(out, source)


def test_a_directory_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    message = (
        f"The run directory {str(tmp_path)!r} exists and is not empty. Choose another with --out DIR, "
        f"or leave --out away for a fresh one under runs/."
    )
    with pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"):
        RunDirectory.create(str(tmp_path), name="x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_refused(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("mine")
    message = f"The run directory {str(path)!r} is a file. Choose another: --out DIR."
    with pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"):
        RunDirectory.create(str(path), name="x")
    assert path.read_text() == "mine"


def test_history_and_metrics(tmp_path):
    run = RunDirectory(tmp_path)
    run.save_history([{"epoch": 1, "loss": 0.5}])
    run.save_history([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    run.save_metrics({"test_loss": 0.1, "data": "größe"})
    run.log("one")
    run.log("two")
    assert run.history.read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
    assert json.loads(run.metrics.read_text()) == {"test_loss": 0.1, "data": "größe"}
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (one|two)\n){2}", run.log_file.read_text())


def test_what_is_kept_is_all_that_is_there(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.kept() == f"No epoch was finished. Kept in {tmp_path}: nothing."
    for path in (run.log_file, run.config):
        path.touch()
    assert run.kept() == f"No epoch was finished. Kept in {tmp_path}: config.toml, log.txt."
    for path in (run.model, run.history, run.metrics, run.report, run.trained_on, run.last):
        path.touch()
    said = run.kept().removeprefix(f"Kept in {tmp_path}: ").removesuffix(".")
    assert sorted(said.split(", ")) == sorted(path.name for path in tmp_path.iterdir())


def test_how_a_run_goes_on(tmp_path):
    run = RunDirectory(tmp_path / "my run")
    run.path.mkdir()
    assert run.how_it_goes_on() == ""
    for path in (run.config, run.trained_on):
        path.touch()
    command = f"keras-residual train --resume '{run.path}'"
    assert run.how_it_goes_on() == f"Go on with: {command}"
    run.last.mkdir()
    for name in ("step-9.npz", "step-10.npz", "step-10.keras", "step-x.npz", "other"):
        (run.last / name).touch()
    assert run.how_it_goes_on() == f"Saved after step 10. Go on with: {command}"


def test_two_processes_do_not_work_on_a_run_at_the_same_time(tmp_path):
    run = RunDirectory(tmp_path)
    message = f"Another process works on the run directory {str(tmp_path)!r}. Wait until it has ended."
    with run.alone(), pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"), RunDirectory(tmp_path).alone():
        pytest.fail("both work")
    with run.alone():
        pass


def test_a_run_that_lies_in_a_read_only_place_is_not_gone_on_with(mounted):
    reason = "Read-only file system. A run goes on in its own directory. It cannot be written to"
    with pytest.raises(OSError, match=re.escape(reason)), RunDirectory(mounted("ro,size=1m")).alone():
        pytest.fail("works there")
