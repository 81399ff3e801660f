"""Weights by the place where they are: a file, a folder, or a repository of the Hugging Face Hub.

huggingface_hub downloads and keeps the files. It makes paths of what a server answers, and does not compare what it
gets with what was stated, so both are checked here: commits and hashes before anything is written, and contents
whenever they are used.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, Literal

import numpy as np

from keras_residual import _json, _optional
from keras_residual._errors import CheckpointError, bad_argument, bad_checkpoint, listed, shown
from keras_residual.weights.files import local_path, read_checkpoint

SCHEME = "hf://"
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names of the weights in timm's layout, in order of preference."""

_NAME = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
# Part of a path in the cache, so no part of it may lead upwards.
_REVISION = re.compile(rf"{_NAME}(/{_NAME})*", re.ASCII)
# A file is stored under its hash, which the Hub calls its ETag: that of git for a small one, else SHA-256.
_COMMIT, _HASH = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_PATCHING = Lock()
_OTHER_FOLDER = "choose another folder: `cache_dir` or the environment variable HF_HUB_CACHE."


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what was with them.

    Attributes:
        config: The content of `config.json`; None where there is none, as beside a single file.
        tensors: Arrays by the names of the program that saved them.
        source: The file, the folder, or the repository with the commit, for messages.
    """

    config: dict[str, Any] | None
    tensors: dict[str, np.ndarray]
    source: str


def open_location(location: str | Path, *, ema: bool = False, cache_dir: str | Path | None = None) -> Checkpoint:
    """Returns the weights at a place.

    Args:
        location: A file (see `read_checkpoint`), a folder with `model.safetensors` or `pytorch_model.bin` and usually a
            `config.json`, or `hf://owner/name[@revision]`, a repository of the Hugging Face Hub with such files.
        ema: Whether to read the averaged weights of a training program's checkpoint.
        cache_dir: Where repositories are kept. None: where the Hub's own programs keep them.

    Raises:
        CheckpointError: If there is nothing to read at that place; the message says why.
        ConnectionError: If a repository is not on this machine and cannot be downloaded.
        OSError: If the disk is full.
        ImportError: If a package of the extra `hub` is needed and missing.

    Example:
        >>> from keras_residual.weights.hub import open_location
        >>> np.savez("weights.npz", **{"fc.weight": np.ones((2, 3))})
        >>> list(open_location("weights.npz").tensors)
        ['fc.weight']
    """
    text = str(location)
    if text.startswith(SCHEME):
        repo_id, at, revision = text.removeprefix(SCHEME).partition("@")
        if not _REPOSITORY.fullmatch(repo_id) or (at and not _REVISION.fullmatch(revision)):
            raise bad_argument("open_location", "location", "hf://owner/name or hf://owner/name@revision", text)
        folder = download(repo_id, revision=revision or None, cache_dir=cache_dir)
        return _open_folder(folder, f"{SCHEME}{repo_id}@{folder.name}", ema=ema)
    if "://" in text:
        raise bad_checkpoint(text, "addresses of this kind are not read", "Download the file and give its path.")
    path = local_path(text)
    try:
        there, is_folder = path.exists(), path.is_dir()
    except OSError:  # `read_checkpoint` says more about it
        there, is_folder = True, False
    if is_folder:
        return _open_folder(path, text, ema=ema)
    if not there and _REPOSITORY.fullmatch(text):
        raise bad_checkpoint(
            text, "there is no such file or folder", f"For the repository of the Hugging Face Hub give {SCHEME}{text}."
        )
    return Checkpoint(None, read_checkpoint(path, ema=ema), text)


def _open_folder(folder: Path, source: str, *, ema: bool) -> Checkpoint:
    weights = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if weights is None:
        found = listed(sorted(entry.name for entry in folder.iterdir())) or "nothing"
        raise bad_checkpoint(
            source,
            f"the folder holds neither {' nor '.join(WEIGHTS)}, but {found}",
            "Give the file that holds the weights.",
        )
    return Checkpoint(_read_config(folder / CONFIG), read_checkpoint(weights, ema=ema), source)


def _read_config(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        config = _json.parse(path.read_bytes())
    except (ValueError, OSError) as error:
        raise bad_checkpoint(path, str(error), "Correct it, or delete it and get it again.") from None
    if not isinstance(config, dict):
        raise bad_checkpoint(path, "it must hold a single JSON object", "Correct it, or delete it and get it again.")
    return config


# --- The Hugging Face Hub ---------------------------------------------------------------------------------------------


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    filenames: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Returns the folder that holds files of a repository of the Hugging Face Hub, all of one commit.

    What is on this machine is not asked for again, so it works without a network and with `HF_HUB_OFFLINE=1`. A branch
    that has since moved on is not looked up either: for a newer state give its commit as the revision. The download
    shows a progress bar in a terminal. A file is compared with the hash that the Hub states after the download, and
    each time that it is taken from the cache.

    Args:
        repo_id: `"owner/name"`.
        revision: Branch, tag or commit. None: `main`.
        filenames: Files by their paths in the repository. None: `model.safetensors`, else `pytorch_model.bin`, and
            `config.json` where there is one.
        cache_dir: Where repositories are kept. None: where the Hub's own programs keep them (`HF_HUB_CACHE`).

    Raises:
        CheckpointError: If there is no such repository, revision or file, or access to it is restricted; if a file is
            not what the Hub states, or what it states is not a hash.
        ConnectionError: If files are not on this machine and the Hub cannot be reached.
        OSError: If the disk is full or cannot be written to. An incomplete file does not count as downloaded.
        ImportError: If huggingface_hub is not installed; it comes with the extra `hub`.
    """
    if not _REPOSITORY.fullmatch(repo_id):
        raise bad_argument("download", "repo_id", "'owner/name'", repo_id)
    if revision is not None and not _REVISION.fullmatch(revision):
        raise bad_argument("download", "revision", "the name of a branch, tag or commit", revision)
    for name in filenames or ():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise bad_argument("download", "filenames", "paths within the repository", name)
    branch, folder = revision or "main", None
    wanted = [((name,), True) for name in filenames] if filenames else [(WEIGHTS, True), ((CONFIG,), False)]
    for names, must in wanted:
        # A branch may move on between two files, so the first one settles the commit.
        found = _Repository(repo_id, folder.name if folder else branch, cache_dir).first_of(names)
        folder = folder or found
        if found is None and must:
            what = f"the repository has no {' and no '.join(names)} at revision {branch!r}"
            way_out = f"See https://huggingface.co/{repo_id}/tree/{branch} for what it has."
            raise bad_checkpoint(f"{SCHEME}{repo_id}", what, way_out)
    return folder  # pyright: ignore[reportReturnType] - the first of those wanted must be there


class _Repository:
    """A revision of a repository; `cache_dir` is None for huggingface_hub's own."""

    def __init__(self, repo_id: str, revision: str, cache_dir: str | Path | None) -> None:
        # The package loads its modules when they are imported by name.
        self.hub, self.files, self.errors, self.constants = (
            _optional.require(name, extra="hub")
            for name in (
                "huggingface_hub",
                "huggingface_hub.file_download",
                "huggingface_hub.utils",
                "huggingface_hub.constants",
            )
        )
        self.repo_id, self.revision, self.cache_dir = repo_id, revision, cache_dir

    def first_of(self, names: Sequence[str]) -> Path | None:
        """Returns the folder of the first of these files that the repository has; None if it has none of them.

        Where the Hub cannot be reached, the first that is on this machine.
        """
        unreachable: ConnectionError | None = None
        for name in names:
            path = self.cached(name)
            damaged = bool(path and not is_what_was_stated(path))
            if path is None or damaged:
                path = None
                try:
                    path = None if unreachable else self.fetched(name, damaged=damaged)
                except ConnectionError as error:
                    unreachable = error
            if path:
                return _folder(path, name)
        if unreachable is not None:
            raise unreachable
        return None

    def cached(self, name: str) -> Path | Literal[False] | None:
        """Returns the path of a file, False if the repository is known not to have it, None if that is unknown."""
        found = self.hub.try_to_load_from_cache(self.repo_id, name, cache_dir=self.cache_dir, revision=self.revision)
        if not isinstance(found, str):
            return None if found is None else False
        # What the cache notes of a branch is a file too, and may be anything.
        return Path(found) if _COMMIT.fullmatch(_folder(Path(found), name).name) else None

    def fetched(self, name: str, *, damaged: bool) -> Path | None:
        """Returns the downloaded file, or None if the repository does not have it."""
        try:
            with self._checked_answers():
                path = Path(
                    self.hub.hf_hub_download(
                        self.repo_id, name, revision=self.revision, cache_dir=self.cache_dir, force_download=damaged
                    )
                )
        except CheckpointError:
            raise
        # Beside its own errors huggingface_hub lets those of its transport through, which is not always the same one.
        except Exception as error:
            reason = self._explained(error, name)
            if reason is None:
                return None
            raise reason from error
        if not is_what_was_stated(path):
            with suppress(OSError):
                path.resolve().unlink()  # nor shall another program take it for the file
            raise self._refused(f"{name} is not what the Hub states: its hash is another one")
        return path

    @contextmanager
    def _checked_answers(self) -> Iterator[None]:
        """Lets huggingface_hub hear of no answer whose commit or ETag is not a hash: it makes paths of both."""

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

        files: Any = self.files
        with _PATCHING:
            ask = files.get_hf_file_metadata
            files.get_hf_file_metadata = ask_and_check
            try:
                yield
            finally:
                files.get_hf_file_metadata = ask

    def _check(self, commit: str | None, etag: str | None) -> None:
        if commit is not None and not _COMMIT.fullmatch(commit):
            raise self._refused(f"the Hub answers with the commit {shown(commit)}, which is none")
        if etag is not None and not _HASH.fullmatch(etag):
            raise self._refused(f"the Hub states the hash {shown(etag)}, which is none")

    def _refused(self, what: str) -> CheckpointError:
        way_out = "Nothing of it was kept. Is HF_ENDPOINT, or a proxy, one that you trust?"
        return bad_checkpoint(f"{SCHEME}{self.repo_id}", what, way_out)

    def _explained(self, error: Exception, name: str) -> Exception | None:
        """Returns what to raise for an error of `hf_hub_download`, or None if the repository does not have the file."""
        place, page = f"{SCHEME}{self.repo_id}", f"https://huggingface.co/{self.repo_id}"
        cache = local_path(self.cache_dir or self.constants.HF_HUB_CACHE)
        # Not those of the causes, which are of the network.
        number = error.errno if isinstance(error, OSError) else None
        # hf_xet, which is written in Rust, tells the number in the text.
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
            what = f"the disk is full: {name} does not fit into the {free / 1e6:.1f} MB that are free in {cache}"
            way_out = f"Make room there, or {_OTHER_FOLDER}"
            return OSError(number or errno.ENOSPC, str(bad_checkpoint(place, what, way_out)))
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = f"the cache {cache} cannot be written to"
            return OSError(number, str(bad_checkpoint(place, what, f"Make it writable, or {_OTHER_FOLDER}")))
        causes = list(_causes(error))
        log_in = "log in with `hf auth login` or set HF_TOKEN."
        # The order matters: a later kind may be the base of an earlier one.
        known = {
            "GatedRepoError": ("access to the repository is restricted", f"Ask for it at {page}, then {log_in}"),
            "RepositoryNotFoundError": (
                "there is no such repository, or it is private",
                f"Check the name at {page}; if it is private, {log_in}",
            ),
            "RevisionNotFoundError": (
                f"the repository has no revision {self.revision!r}",
                f"See {page}/commits/main for its branches, tags and commits.",
            ),
        }
        for cause in causes:
            for kind, (what, way_out) in known.items():
                if isinstance(cause, getattr(self.errors, kind)):
                    return bad_checkpoint(place, what, way_out)
            missing, not_here = self.errors.EntryNotFoundError, self.errors.LocalEntryNotFoundError
            if isinstance(cause, missing) and not isinstance(cause, not_here):
                return None
        reason = next((line for line in str(causes[-1]).splitlines() if line.strip()), type(error).__name__)
        first = "Check the network"
        if self.constants.HF_HUB_OFFLINE:
            reason, first = "HF_HUB_OFFLINE is set", "Unset it"
        what = f"{name} is not in the cache {cache}, or not whole, and could not be downloaded ({reason.rstrip('.')})"
        way_out = f"{first}, or get the files on another machine and give their folder."
        return ConnectionError(str(bad_checkpoint(place, what, way_out)))


def is_what_was_stated(path: Path) -> bool:
    """Returns whether a file in the cache has the hash under which it is stored.

    On a system without links a file is stored under its own name, and nothing is stated.
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the error, and what caused it, down to the first cause."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__
