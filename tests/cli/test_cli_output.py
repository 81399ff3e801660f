"""What the command writes: foreign text as it is, in any encoding, to whoever still listens."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table

from cli.command import PROGRAM, environment, run, said
from keras_residual_cli import output
from keras_residual_cli.output import OutputLost, Words, print_table

pytestmark = pytest.mark.any_backend

FOREIGN = "runs[/old] x[v2].keras :smile: [bold]b \x1b[31mred\x1b]0;title\x07 a\rb\u202e"
SHOWN = r"runs[/old] x[v2].keras :smile: [bold]b \x1b[31mred\x1b]0;title\x07 a\rb\u202e"


def words(**settings):
    return Words(file=io.StringIO(), width=200, color_system=None, legacy_windows=False, **settings)


@pytest.mark.parametrize("terminal", [False, True])
def test_foreign_text_is_no_markup_and_no_terminal_obeys_it(terminal):
    console = words(force_terminal=terminal)
    console.say(FOREIGN)
    table = Table(title=FOREIGN, caption=FOREIGN)
    table.add_column(FOREIGN)
    table.add_row(FOREIGN)
    print_table(console, table)
    text = console.file.getvalue()
    assert text.count(SHOWN) == 5
    assert "\a" not in text
    assert "\r" not in text
    assert "\u202e" not in text
    assert not re.search(r"\x1b(?!\[\d*m)", text)  # the styles of Rich's own


def test_lines_stay_lines():
    console = words()
    console.say("one\ntwo")
    assert console.file.getvalue() == "one\ntwo\n"


class Deaf(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


class Full(io.StringIO):
    def flush(self):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("file", "reason"), [(Deaf, "Broken pipe"), (Full, "No space left on device")])
def test_what_nobody_receives_is_an_end_in_order(file, reason):
    console = Words(file=file(), width=80)
    with pytest.raises(OutputLost, match=f"^The output cannot be written: {reason}.$"):
        console.say("epoch 1")
    with pytest.raises(OutputLost, match=f"^The output cannot be written: {reason}.$"):
        print_table(console, Table("a"))
    live = Words(file=file(), force_terminal=True)
    with pytest.raises(OutputLost), Progress(TextColumn("epoch"), console=live, auto_refresh=False) as progress:
        progress.add_task("")


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "latin-1", "utf-8"])
@given(text=st.text(st.characters(exclude_categories=[]), max_size=40))
def test_every_text_can_be_written_in_every_encoding(encoding, text):
    output.codecs.register_error("spelled", output._spell)
    text.encode(encoding, errors="spelled").decode(encoding)


def test_signs_are_spelled_where_the_encoding_has_none():
    output.codecs.register_error("spelled", output._spell)
    assert "R² 1×1 – … →é".encode("ascii", errors="spelled") == rb"R2 1x1 - ... ->\xe9"
    assert "R² é".encode("latin-1", errors="spelled").decode("latin-1") == "R² é"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_one_object_of_json_is_valid_in_every_encoding(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "__stdout__", io.TextIOWrapper(raw, encoding=encoding))
    content = {"R²": "größe \udcff \U0001f600"}
    output.print_json(content)
    assert json.loads(raw.getvalue().decode(encoding)) == content


def test_a_terminal_without_our_signs_gets_the_result_all_the_same(tmp_path):
    variables = environment(tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii")
    variables["KERAS_BACKEND"] = "torch"
    arguments = ["train", "diabetes", "--epochs", "1", "--out", "größe[/x]", "--set", "xray=false"]
    done = run(*arguments, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Test R2 -?[\d.]+, root mean square error", done.stdout, re.MULTILINE)
    assert r"Report: 'gr\xf6\xdfe[/x]'/report.html" in done.stdout
    assert (tmp_path / "größe[/x]" / "report.html").exists()


def bash(line, tmp_path):
    """Runs a line of the shell, in which `keras-residual` is the command; returns the status and standard error."""
    program = " ".join(PROGRAM)
    script = f'set -o pipefail; keras-residual() {{ {program} "$@"; }}; {line}'
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path, KERAS_BACKEND="torch"),
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, said(done)


LOST = "keras-residual: The output cannot be written: {}."


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")  # noqa: PTH110
@pytest.mark.parametrize(
    ("line", "status", "lines"),
    [
        ("keras-residual models resnet18 >/dev/full", 1, [LOST.format("No space left on device")]),
        ("keras-residual models resnet18 --json >/dev/full", 1, [LOST.format("No space left on device")]),
        ("keras-residual models resnet18 >&-", 1, [LOST.format("Bad file descriptor")]),
        ("keras-residual train wine --print-config >/dev/full", 1, [LOST.format("No space left on device")]),
        # The words are lost, and the status says it.
        ("keras-residual models resnet18 2>&-", 0, []),
        ("keras-residual models resnet18 2>/dev/full", 0, []),
        ("keras-residual show resnet5O 2>&-", 2, []),
        ("keras-residual show resnet5O 2>/dev/full", 2, []),
        ("keras-residual models resnet18 <&- >&- 2>&-", 1, []),
        ("keras-residual --version >&-", 1, ["keras-residual: Bad file descriptor"]),
    ],
)
def test_a_stream_that_is_closed_or_full_is_one_line_and_a_status(line, status, lines, tmp_path):
    assert bash(line, tmp_path) == (status, lines)


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_training_in_order(tmp_path):
    line = "keras-residual train wine --epochs 300 --out run --set xray=false | head -1"
    status, (said_last,) = bash(line, tmp_path)
    assert status == 1
    assert re.fullmatch(
        r"keras-residual: Training stopped: The output cannot be written: Broken pipe\. "
        r"(No epoch was finished\. )?Kept in run: ([a-z_]+\.[a-z]+, )*(last, )?log\.txt\. "
        r"(Saved after step \d+\. )?Go on with: keras-residual train --resume run",
        said_last,
    )
    assert (tmp_path / "run" / "log.txt").read_text().endswith("Stopped: The output cannot be written: Broken pipe.\n")
