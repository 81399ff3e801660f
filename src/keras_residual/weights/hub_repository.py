"""A repository of the Hugging Face Hub, and the part of it that is on this machine.

huggingface_hub makes names of files of what a server answers, and does not compare what it gets with what was stated.
Here both are checked: commits and hashes before anything is written, and contents whenever they are used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from types import ModuleType
from typing import Any, Literal

from keras_residual import _optional
from keras_residual._errors import CheckpointError, bad_checkpoint, shown
from keras_residual.weights.hub_errors import explained

SCHEME = "hf://"
# A file is stored under its hash, which the Hub calls its ETag: that of git for a small one, else SHA-256.
_COMMIT, _HASH = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_PATCHING = Lock()


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
            if path and is_what_was_stated(path):
                return _folder(path, name)
            if path is not False:
                unknown = True
                if not settle:
                    break
        return None if unknown else False

    def _in_cache(self, name: str, revision: str) -> Path | Literal[False] | None:
        """Returns the path, False where the repository is known not to have it, None where unknown."""
        found = self.hub.try_to_load_from_cache(self.repo_id, name, cache_dir=self.cache_dir, revision=revision)
        if not isinstance(found, str):
            return None if found is None else False
        # What the cache notes of a branch is a file too, and may be anything.
        return Path(found) if _COMMIT.fullmatch(_folder(Path(found), name).name) else None

    def _fetch(self, name: str, revision: str) -> Path | None:
        """Returns the downloaded file, or None where the repository does not have it."""
        there = self._in_cache(name, revision)
        damaged = bool(there and not is_what_was_stated(there))
        try:
            with self._checked_answers():
                path = self.hub.hf_hub_download(
                    self.repo_id, name, revision=revision, cache_dir=self.cache_dir, force_download=damaged
                )
        except CheckpointError:
            raise
        # Beside its own errors huggingface_hub lets those of its transport through, which is not always the same one.
        except Exception as error:
            reason = explained(
                self.hub, error, repo_id=self.repo_id, name=name, revision=revision, cache_dir=self.cache_dir
            )
            if reason is None:
                return None
            raise reason from error
        if not is_what_was_stated(Path(path)):
            with suppress(OSError):
                Path(path).resolve().unlink()  # nor shall another program take it for the file
            raise self._refused(f"{name} is not what the Hub states: its hash is another one")
        return Path(path)

    @contextmanager
    def _checked_answers(self) -> Iterator[None]:
        """Lets huggingface_hub hear of no answer whose commit or ETag is not a hash: it makes paths of both."""
        module: Any = _optional.require("huggingface_hub.file_download", extra="hub")

        def ask_and_check(*arguments: Any, **options: Any) -> Any:
            try:
                answer = ask(*arguments, **options)
            except Exception as error:
                # That a file is missing is noted under the commit.
                headers = getattr(getattr(error, "response", None), "headers", {})
                self._check(headers.get("X-Repo-Commit"), None)
                raise
            self._check(answer.commit_hash, answer.etag)
            return answer

        with _PATCHING:
            ask = module.get_hf_file_metadata
            module.get_hf_file_metadata = ask_and_check
            try:
                yield
            finally:
                module.get_hf_file_metadata = ask

    def _check(self, commit: str | None, etag: str | None) -> None:
        if commit is not None and not _COMMIT.fullmatch(commit):
            raise self._refused(f"the Hub answers with the commit {shown(commit)}, which is none")
        if etag is not None and not _HASH.fullmatch(etag):
            raise self._refused(f"the Hub states the hash {shown(etag)}, which is none")

    def _refused(self, what: str) -> CheckpointError:
        way_out = "Nothing of it was kept. Is HF_ENDPOINT, or a proxy, one that you trust?"
        return bad_checkpoint(f"{SCHEME}{self.repo_id}", what, way_out)


def is_what_was_stated(path: Path) -> bool:
    """Returns whether a file in the cache has the hash under which it is stored.

    Where a system has no links a file is stored under its own name, and nothing is stated.
    """
    if not path.is_symlink():
        return path.is_file()
    stated = path.readlink()
    if not (_HASH.fullmatch(stated.name) and stated.parent.name == "blobs" and path.is_file()):
        return False
    with path.open("rb") as file:
        if len(stated.name) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == stated.name
        of_git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            of_git.update(chunk)
        return of_git.hexdigest() == stated.name


def _folder(path: Path, name: str) -> Path:
    """Returns the folder in which the file has its path in the repository; its own name is the commit."""
    return path.parents[len(PurePosixPath(name).parts) - 1]
