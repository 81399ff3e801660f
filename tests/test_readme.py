"""What the README and the documentation pages show can be typed in: code runs, commands and links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import pytest

from keras_residual_cli.app import COMMANDS
from only_one_backend import environment, python

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(*languages: str) -> list:
    """Returns the fenced blocks in these languages, each with the page and the line where it begins."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            if match[1] in languages:
                found.append(pytest.param(match[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def shell_lines() -> list:
    """Returns each command of the shell blocks, without comments, continued lines joined."""
    return [
        pytest.param(shlex.split(line, comments=True), id=f"{block.id}: {line.strip()}")
        for block in blocks("sh", "bash")
        for line in block.values[0].replace("\\\n", " ").splitlines()
        if shlex.split(line, comments=True)
    ]


@pytest.mark.any_backend
def test_the_readme_shows_code_and_commands() -> None:
    pages = [block.id.partition(":")[0] for block in blocks("python")]
    assert "README.md" in pages
    assert any(line.id.startswith("README.md") for line in shell_lines())


@pytest.mark.any_backend
def test_the_readme_says_where_each_checkpoint_comes_from() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    lines = [
        line.values[0] for line in shell_lines() if line.id.startswith("README.md") and "convert" in line.values[0]
    ]
    files = [words[2] for words in lines if not words[2].startswith("hf://")]
    assert files
    assert all(f"[`{name}`](https://" in text for name in files)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a machine on which one backend is installed, and of which nobody has told Keras."""
    return environment(tmp_path_factory.mktemp("newcomer"), keras.backend.backend())


@pytest.mark.any_backend
@pytest.mark.parametrize("code", blocks("python"))
def test_code_runs_as_it_is_typed_on_a_fresh_machine(code: str, newcomer: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(python(code), cwd=tmp_path, env=newcomer, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_code_of_the_readme_runs_with_any_backend(newcomer: dict[str, str], tmp_path: Path) -> None:
    first, *_ = blocks("python")
    assert first.id.startswith("README.md")
    test_code_runs_as_it_is_typed_on_a_fresh_machine(first.values[0], newcomer, tmp_path)


@pytest.mark.any_backend
@pytest.mark.parametrize("words", shell_lines())
def test_command_exists(words: list[str]) -> None:
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, *arguments = words
    match Path(program).name:
        case "make":
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert {word for word in arguments if "=" not in word} <= set(targets)
        case "keras-residual":
            check_command(arguments)
        case "pip":
            wanted = re.findall(r"(?:keras-residual|\.)\[([\w,-]+)\]", " ".join(arguments))
            assert wanted
            extras = {extra for group in wanted for extra in group.split(",")}
            assert extras <= set(PROJECT["project"]["optional-dependencies"])
        case "python" | "pytest":
            paths = [word.partition("::")[0] for word in arguments if "/" in word]
            assert all((ROOT / path).exists() for path in paths)
        case "git" | "cd":
            pass
        case _:
            pytest.fail(f"unknown program {program!r}")


def check_command(arguments: list[str]) -> None:
    """Asserts that the command line has the subcommand, and the subcommand the options."""
    subcommand = [word for word in arguments[:1] if not word.startswith("-")]
    known = options(*subcommand)
    assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= known


def options(*subcommand: str) -> set[str]:
    """Returns the options that the help of a subcommand names."""
    helped = subprocess.run(
        [Path(sys.executable).parent / "keras-residual", *subcommand, "--help"],
        env=os.environ | {"COLUMNS": "200"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert helped.returncode == 0, helped.stdout + helped.stderr
    return set(re.findall(r"--[a-z][a-z0-9-]*", helped.stdout))


@pytest.mark.any_backend
@pytest.mark.parametrize("subcommand", [command.__name__.replace("_", "-") for command in COMMANDS])
def test_the_page_of_the_command_line_has_every_option(subcommand: str) -> None:
    text = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {subcommand}$(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    assert section, f"docs/command_line.md has no section {subcommand!r}"
    assert options(subcommand) - {"--help"} <= set(re.findall(r"`(--[a-z0-9-]+)", section[1]))


@pytest.mark.any_backend
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
