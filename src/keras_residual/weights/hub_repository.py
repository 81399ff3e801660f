"""A repository of the Hugging Face Hub, and the part of it that is on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Literal

from keras_residual._errors import bad_checkpoint
from keras_residual.weights.file_format import is_cut_off
from keras_residual.weights.hub_errors import explained

SCHEME = "hf://"


@dataclass(frozen=True)
class Wanted:
    """One file.

    Attributes:
        names: The paths in the repository that it may have: of these the first that the repository has.
        must: Whether the repository must have it.
    """

    names: tuple[str, ...]
    must: bool = True


@dataclass(frozen=True)
class Repository:
    """A revision of a repository.

    Attributes:
        hub: The package huggingface_hub.
        repo_id: `"owner/name"`.
        revision: Branch, tag or commit.
        cache_dir: Where repositories are kept; None where huggingface_hub keeps them.
    """

    hub: ModuleType
    repo_id: str
    revision: str
    cache_dir: str | Path | None

    def cached(self, wanted: Sequence[Wanted], *, settle: bool = False) -> Path | None:
        """Returns the folder in the cache if the Hub has nothing to add, else None.

        Args:
            wanted: The files, at least one.
            settle: Whether a later name will do where the Hub might have an earlier one.
        """
        folders = []
        for file in wanted:
            folder = self._folder_in_cache(file, settle=settle)
            if folder is None or (file.must and not folder):
                return None
            folders.append(folder)
        return next(folder for folder in folders if folder)

    def fetched(self, wanted: Sequence[Wanted]) -> Path:
        """Returns the folder in the cache after the download of what is missing there.

        Raises:
            CheckpointError, ConnectionError, OSError: See `explained`.
        """
        # A branch may move on between two files, so the first one settles the commit.
        revision, folders = self.revision, []
        for file in wanted:
            for name in file.names:
                path = self._fetch(name, revision)
                if path is not None:
                    folders.append(_folder(path, name))
                    revision = folders[0].name
                    break
            else:
                if file.must:
                    raise bad_checkpoint(
                        f"{SCHEME}{self.repo_id}",
                        f"the repository has no {' and no '.join(file.names)} at revision {self.revision!r}",
                        f"See https://huggingface.co/{self.repo_id}/tree/{self.revision} for what it has.",
                    )
        return folders[0]

    def _folder_in_cache(self, file: Wanted, *, settle: bool) -> Path | Literal[False] | None:
        """Returns the folder of the file, False where the repository is known not to have it, None where unknown."""
        unknown = False
        for name in file.names:
            path = self._in_cache(name, self.revision)
            if path and _is_whole(path):
                return _folder(path, name)
            if path is not False:
                unknown = True
                if not settle:
                    break
        return None if unknown else False

    def _in_cache(self, name: str, revision: str) -> Path | Literal[False] | None:
        """Returns the path, False where the repository is known not to have it, None where unknown."""
        found = self.hub.try_to_load_from_cache(self.repo_id, name, cache_dir=self.cache_dir, revision=revision)
        if found is None:
            return None
        return Path(found) if isinstance(found, str) else False

    def _fetch(self, name: str, revision: str) -> Path | None:
        """Returns the downloaded file, or None where the repository does not have it."""
        there = self._in_cache(name, revision)
        damaged = bool(there and not _is_whole(there))
        try:
            path = self.hub.hf_hub_download(
                self.repo_id, name, revision=revision, cache_dir=self.cache_dir, force_download=damaged
            )
        # Beside its own errors huggingface_hub lets those of its transport through, which is not always the same one.
        except Exception as error:
            reason = explained(
                self.hub, error, repo_id=self.repo_id, name=name, revision=revision, cache_dir=self.cache_dir
            )
            if reason is None:
                return None
            raise reason from error
        return Path(path)


def _folder(path: Path, name: str) -> Path:
    """Returns the folder in which the file has its path in the repository; its own name is the commit."""
    return path.parents[len(PurePosixPath(name).parts) - 1]


def _is_whole(path: Path) -> bool:
    if path.suffix != ".json":
        return not is_cut_off(path)
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
