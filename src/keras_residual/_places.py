"""Places in the file system, for users who have no home folder too."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path | None:
    """Returns the folder in which the library keeps what can be made again; None for a user without a home."""
    try:
        folder = platformdirs.user_cache_path("keras-residual", appauthor=False)
    except RuntimeError:  # no HOME, and no entry in the list of users
        return None
    return folder if folder.is_absolute() else None  # older versions give `~` back


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with `~` as the user's home; where there is no such user the `~` stands for itself."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
