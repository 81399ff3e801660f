"""Calls that are wrong: exit status 2 and one line that says how to put it right. Nothing is written."""

import os
import subprocess
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from cli.command import fingerprint
from keras_residual_cli.app import run

pytestmark = pytest.mark.any_backend

WRONG = {
    ("train", "--epoch", "3"): (
        "keras-residual: No such option: --epoch (Possible options: --epochs) See: keras-residual train --help"
    ),
    ("trian",): "keras-residual: No such command 'trian'. Did you mean 'train'? See: keras-residual --help",
    ("predict",): "keras-residual: Missing argument 'RUN_OR_MODEL'. See: keras-residual predict --help",
    ("train", "--set", "optimizer.learnig_rate=3"): (
        "keras-residual: Unknown key 'optimizer.learnig_rate'. Did you mean 'optimizer.learning_rate'?"
    ),
    ("train", "--epochs", "0"): (
        "keras-residual: TrainConfig: `epochs` must be greater than or equal to 1 or 'auto', but received 0 (int)."
    ),
    ("train", "--config", "no.toml"): "keras-residual: The configuration file 'no.toml' is not there.",
    ("train", "--set", "batch_size=5000"): (
        "keras-residual: TrainConfig: `batch_size` must be at most the number of training examples, 1293, "
        "but received 5000 (int)."
    ),
    ("train", "--out", "mine"): (
        "keras-residual: The run directory 'mine' exists and is not empty. Choose another with --out DIR, "
        "or leave --out away for a fresh one under runs/."
    ),
    ("evaluate", "nothing"): "keras-residual: There is no run directory or model 'nothing'.",
    ("evaluate", "mine"): (
        "keras-residual: 'mine' holds no model.keras, so it is no run directory or its first epoch was not finished."
    ),
    ("predict", "mine", "a.png", "--csv", "mine/thesis.txt"): (
        "keras-residual: mine/thesis.txt is there already and is not overwritten. Choose another: --csv FILE"
    ),
    ("predict", "mine", "a.png", "--csv", "no/where.csv"): (
        "keras-residual: There is no folder no to write where.csv to."
    ),
}


@pytest.mark.parametrize("call", WRONG, ids=" ".join)
def test_a_wrong_call(call, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.write_text("years of work")
    assert run(call) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [WRONG[call]]
    assert shown.out == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [thesis]
    assert thesis.read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        (
            "smal_resnet",
            "keras-residual: create_model: unknown name for `name`: 'smal_resnet'. Did you mean 'small_resnet'?",
        ),
        ("series_resnet", "keras-residual: create_model: `input_shape` must be (time, channels) for 'series_resnet', "),
    ],
)
def test_a_model_that_is_not_there_or_does_not_fit(name, begins, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "digits", "--model", name]) == 2
    assert capsys.readouterr().err.startswith(begins)
    assert list(tmp_path.iterdir()) == []


EMPTY = "An argument is empty. Is a variable of the shell not set?"
NO_INTEGER = "Invalid value for '--epochs': "
ODD = {
    # How it ends, and how the line begins. The folder holds pets/{cats,dogs}/*.png, table.csv, a run directory, a file,
    # an empty folder, one that is not, a named pipe, a dangling link, a link to itself, and a model of two bytes.
    "train ''": (2, EMPTY),
    "train wine --out ''": (2, EMPTY),
    "train wine --config ''": (2, EMPTY),
    "evaluate ''": (2, EMPTY),
    "train ' '": (2, "Data ' ': there is no such file or folder"),
    "train -": (2, "Data '-': there is no such file or folder"),
    "train -- -x": (2, "Data '-x': there is no such file or folder"),
    "train digitz": (
        2,
        "Data 'digitz': there is no such file or folder, and no set has this name. Did you mean 'digits'?",
    ),
    r"train $'a\x1b[2J'": (2, r"Data 'a\x1b[2J': there is no such file or folder"),
    "train ~nobody-here/x": (2, "Data '~nobody-here/x': "),
    "train dangling": (2, "Data 'dangling': there is no such file or folder"),
    "train loop": (2, "Data 'loop': "),
    "train empty": (2, "Data 'empty': "),
    "train pipe": (2, "Data 'pipe': "),
    "train file": (2, "Data 'file': "),
    "train /dev/zero": (2, "Data '/dev/zero': "),
    "train table.csv": (2, "Data 'table.csv': a table needs the column to predict"),
    "train table.csv --target nope": (2, "Data 'table.csv': there is no target column 'nope'"),
    "train wine --epochs 0": (2, "TrainConfig: `epochs` must be greater than or equal to 1"),
    "train wine --epochs -1": (2, "TrainConfig: `epochs` must be greater than or equal to 1"),
    "train wine --epochs 1e9": (2, NO_INTEGER),
    "train wine --epochs 1000000000": (2, "TrainConfig: `epochs` must be less than or equal to 1000000"),
    f"train wine --epochs {'9' * 5000}": (2, NO_INTEGER),
    "train wine --epochs １": (2, NO_INTEGER),
    "train wine --batch-size 0": (2, "TrainConfig: `batch_size` must be greater than or equal to 1"),
    "train wine --batch-size 999": (
        2,
        "TrainConfig: `batch_size` must be at most the number of training examples, 128,",
    ),
    "train wine --learning-rate nan": (2, "TrainConfig: `optimizer.learning_rate` must be a finite number"),
    "train wine --learning-rate 1e400": (2, "TrainConfig: `optimizer.learning_rate` must be a finite number"),
    "train wine --learning-rate 0": (2, "TrainConfig: `optimizer.learning_rate` must be greater than 0"),
    "train wine --image-size 32": (2, "Data 'wine': `image_size` must be left out"),
    "train digits --image-size 99999": (2, "TrainConfig: `data.image_size` must be less than or equal to 4096"),
    "train wine --seed -1": (2, "TrainConfig: `seed` must be greater than or equal to 0"),
    "train wine --seed 4294967296": (2, "TrainConfig: `seed` must be less than 4294967296"),
    "train wine --out file": (2, "The run directory 'file' is a file."),
    "train wine --out file/below": (
        2,
        "The run directory 'file/below' cannot be made: Not a directory. Choose another: --out DIR.",
    ),
    "train wine --out /proc/x": (2, "The run directory '/proc/x' cannot be made: "),
    "compare wine --out /proc/x": (2, "The run directory '/proc/x' cannot be made: "),
    "train wine --out mine": (2, "The run directory 'mine' exists and is not empty."),
    "train wine --out done": (2, "The run directory 'done' exists and is not empty."),
    "train wine --out dangling": (2, "The run directory 'dangling' is a link that leads nowhere."),
    "train wine --out loop": (2, "The run directory 'loop' is a link that leads nowhere."),
    f"train wine --out {'a' * 300}": (2, "The run directory 'aaa"),
    f"evaluate {'a' * 300} wine": (2, "A name is longer than the file system takes: aaa"),
    f"predict done table.csv --csv {'a' * 300}": (2, "aaa"),
    "predict done table.csv --csv dangling": (2, "dangling is a link that leads nowhere. Choose another: --csv FILE"),
    "predict done table.csv --csv /proc/x": (2, "/proc/x cannot be written: "),
    "predict done table.csv --csv file/x": (2, "file/x cannot be written: Not a directory. Choose another: --csv FILE"),
    "benchmark done --out /proc/x": (2, "/proc/x cannot be written: "),
    "benchmark done --picture x.jpg": (2, "--picture must end in .png, but received 'x.jpg'."),
    r"train wine --out $'a\xff'": (
        2,
        r"TrainConfig: `out` must be text without NUL that UTF-8 can hold, but received 'a\udcff'",
    ),
    "train pets --out pets/run": (2, "The run directory 'pets/run' would lie within the data 'pets'"),
    "train pets --out pets/cats/run": (2, "The run directory 'pets/cats/run' would lie within the data 'pets'"),
    "train .": (2, "The run directory 'runs' would lie within the data '.'"),
    "train wine --model resnet18": (2, "create_model: `input_shape` must be (height, width, channels)"),
    "train digits --model [bold]": (2, "create_model: unknown name for `name`: '[bold]'."),
    "train wine --set epochs": (2, "A setting must be written key=value, but received 'epochs'."),
    "train wine --set =": (2, "A setting must be written key=value, but received '='."),
    "train wine --set lr=1": (2, "Unknown key 'lr'. Did you mean 'optimizer.learning_rate'?"),
    "train wine --set model=x": (2, "'model' is a section, not a value."),
    "train wine --config .": (2, "The configuration file 'config.toml' is not there."),
    "train wine --config pipe": (2, "The configuration file 'pipe' is no file that can be read."),
    "train wine --config /dev/zero": (2, "The configuration file '/dev/zero' is no file that can be read."),
    "train wine --config table.csv": (2, "table.csv is not a TOML file: "),
    "train wine extra": (2, "Got unexpected extra argument"),
    "train --epochs": (2, "Option '--epochs' requires an argument."),
    "evaluate pipe": (2, ""),
    "evaluate /dev/zero": (2, ""),
    "evaluate no.keras": (2, "There is no run directory or model 'no.keras'."),
    "evaluate bad.keras wine": (2, ""),
    "predict done 'a[/b].csv'": (2, ""),
    "compare wine --depths 99999999999999999999": (2, "compare: `depths` must be different even numbers"),
    "compare wine --width 99999999999": (2, "compare: `width` must be in [1, 65536]"),
    "compare wine --epochs 1000000000000": (2, "compare: `epochs` must be in [1, 1000000]"),
    "compare wine --out file": (2, "The run directory 'file' is a file."),
    "models [": (2, "No network has the name '['."),
    r"models $'\x1b[31m'": (2, r"No network has the name '\x1b[31m'."),
    "show [/x]": (2, "create_model: unknown name for `name`: '[/x]'."),
    "show ../x": (2, "create_model: unknown name for `name`: '../x'."),
    "xray done --examples 1": (2, "Invalid value for '--examples': "),
    "xray done --html file": (2, "file is there already and is not overwritten."),
    "convert file out.h5 --model resnet18": (2, "OUT must end in .keras, but received 'out.h5'."),
    "convert file out.keras --model resnet18 --mean 1,2": (2, "--mean must be three numbers"),
    "residualize no.keras out.keras": (2, "There is no model 'no.keras'."),
}


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name in ("cats", "dogs"):
        (folder / "pets" / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(np.full((8, 8), 40 * index, np.uint8)).save(folder / "pets" / name / f"{index}.png")
    for name in ("empty", "mine", "done"):
        (folder / name).mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    (folder / "done" / "log.txt").write_text("")
    (folder / "table.csv").write_text("a,b,y\n1,2,x\n3,4,z\n" * 9)
    (folder / "file").write_text("x")
    (folder / "bad.keras").write_bytes(b"PK")
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.mark.parametrize("line", ODD)
def test_an_odd_call_is_one_plain_line_and_leaves_nothing(line, odd_folder, monkeypatch, capsys):
    monkeypatch.chdir(odd_folder)
    before = fingerprint(odd_folder)
    call = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True).stdout
    arguments = [os.fsdecode(word) for word in call.split(b"\0")[:-1]]
    status, beginning = ODD[line]
    assert run(arguments) == status
    shown = capsys.readouterr()
    (said,) = shown.err.splitlines()
    assert said.startswith(f"keras-residual: {beginning}")
    assert said.isprintable()
    assert "unexpected " not in said.replace("unexpected extra argument", "")
    assert shown.out == "" or status == 1
    assert fingerprint(odd_folder) == before


@pytest.mark.parametrize("name", ["ünï [/cödé] 🎉 [bold]", "-dash", "a\nb", "a\x1b[2Jb"])
def test_a_run_may_have_any_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["--epochs", "1", "--set", "xray=false"]
    assert run(["train", "wine", f"--out={name}", *short]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.isprintable()
    assert name.encode("unicode_escape").decode() in last or name in last
    assert run(["train", "wine", f"--out={name}", *short]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["evaluate", "--", name]) == 0
    assert run(["train", f"--config={name}", *short]) == 0
    assert (tmp_path / "runs" / "wine-1" / "report.html").exists()


def test_without_arguments_the_help(capsys):
    assert run([]) == 2
    assert "Usage: keras-residual" in capsys.readouterr().out


def test_print_config_settles_every_setting_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "wine", "--print-config", "--set", "optimizer.learning_rate=0.5"]) == 0
    (tmp_path / "again.toml").write_text(capsys.readouterr().out)
    assert '= "auto"' not in (tmp_path / "again.toml").read_text()
    assert run(["train", "--config", "again.toml", "--print-config"]) == 0
    assert capsys.readouterr().out == (tmp_path / "again.toml").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["again.toml"]


def test_what_nobody_foresaw_is_one_line_and_a_file_with_the_traceback(monkeypatch, capsys, tmp_path):
    from keras_residual.training import train as training

    def broken(config, resume=None):
        raise KeyError("oops")

    monkeypatch.setattr(training, "prepare", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.iterdir()
    assert line == f"keras-residual: unexpected KeyError: 'oops'. The traceback is in {log}"
    assert "in broken" in log.read_text()


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"keras-residual {version('keras-residual')}\n"
