"""Where an exported model goes: its files, whether the place is free, how they come there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_residual._atomic import check_can_be_made, replacing, write_text
from keras_residual._errors import bad_argument, shown
from keras_residual.deploy.formats.base import Format
from keras_residual.deploy.signature import OWNER


def check_free(made: Format, target: Path, *, overwrite: bool) -> None:
    """Raises an error where a model cannot be written to a path, or something there is not to be replaced.

    Raises:
        FileNotFoundError: If there is no folder for it.
        FileExistsError: If one of its files is there already and `overwrite` is False, or what is there is no model of
            the format.
    """
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{OWNER}: there is no folder {shown(str(target.parent))}. Make it first.")
    try:
        check_can_be_made(target)
    except OSError as error:
        rule = "a place where a file can be made"
        raise bad_argument(OWNER, "path", rule, str(target), f"{error.strerror}.") from error
    free = not made.suffix and target.is_dir() and not any(target.iterdir())  # as `mkdir` or a mount has made it
    places = _places(made, target)[1:] if free else _places(made, target)
    taken = next((path for path in places if os.path.lexists(path)), None)
    if taken is not None and not overwrite:
        raise FileExistsError(
            f"{OWNER}: {shown(str(taken))} exists. Choose another path, or replace it with overwrite=True (on the "
            "command line --overwrite)."
        )
    if os.path.lexists(target) and not free and not made.is_made(target):
        what = "a folder that holds something else" if target.is_dir() else "a file"
        raise FileExistsError(
            f"{OWNER}: {shown(str(target))} is {what} and not replaced by a {made.name} model. Choose another path."
        )


def note_path(target: Path) -> Path:
    """Returns where the note about a model lies, beside it."""
    return target.with_name(f"{target.name}.json")


def files_of(made: Format, path: Path) -> list[Path]:
    """Returns all files that belong to an exported model, the main one last."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [file for file in reversed(_places(made, path)[:-1]) if file.is_file()]


def move(made: Format, written: Path, target: Path, note: Mapping[str, Any]) -> None:
    """Puts a good model in its place, the note last; a folder that is replaced is gone only then.

    A link stays, and what it points to is replaced.
    """
    if written.is_dir():
        former, folder = written.with_name("former"), Path(os.path.realpath(target))
        if folder.exists():
            folder.rename(former)
        try:
            written.rename(folder)
        except OSError:
            if former.exists():
                former.rename(folder)
            raise
    else:
        for file in files_of(made, written):
            with replacing(target.with_name(file.name)) as beside:
                shutil.move(file, beside)  # a copy where a link leads to another disk
    write_text(note_path(target), json.dumps(note, indent=2, ensure_ascii=False) + "\n")


def _places(made: Format, target: Path) -> list[Path]:
    return [target, *(target.with_suffix(suffix) for suffix in made.companions), note_path(target)]
