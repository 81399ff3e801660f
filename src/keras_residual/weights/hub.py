"""Weights by the place where they are: a file, a folder, a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from keras_residual import _json, _optional
from keras_residual._errors import bad_argument, bad_checkpoint, listed
from keras_residual.weights.checkpoint import read_checkpoint
from keras_residual.weights.file_format import local_path
from keras_residual.weights.hub_repository import SCHEME, Repository, Wanted

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names that timm's layout has for the weights, in the order of preference."""

_NAME = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
# Part of a path in the cache, so no part of it may lead upwards.
_REVISION = re.compile(rf"{_NAME}(/{_NAME})*", re.ASCII)


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
        location: A file (see `read_checkpoint`), a folder with `model.safetensors` or `pytorch_model.bin` and mostly a
            `config.json`, or `hf://owner/name[@revision]`, a repository of the Hugging Face Hub with such a content.
        ema: Whether to take the averaged weights of a training program's checkpoint.
        cache_dir: Where repositories are kept. None: where the Hub's own programs keep them.

    Raises:
        CheckpointError: If there is nothing to read at that place; says what is wrong.
        ConnectionError: If a repository is not on this machine and cannot be downloaded.
        OSError: If the disk fills.
        ImportError: If a package of the extra `hub` or `torch` is needed and missing.

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
    except OSError:  # of which `read_checkpoint` has more to say
        there, is_folder = True, False
    if is_folder:
        return _open_folder(path, text, ema=ema)
    if not there and _REPOSITORY.fullmatch(text):
        raise bad_checkpoint(
            text, "there is no such file or folder", f"For the repository of the Hugging Face Hub give {SCHEME}{text}."
        )
    return Checkpoint(None, read_checkpoint(path, ema=ema), text)


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    filenames: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Returns the folder that holds files of a repository of the Hugging Face Hub, all of one commit.

    What is on this machine is not asked for again, so it works without a network and with `HF_HUB_OFFLINE=1`. A branch
    that has moved on since is not looked up either: for a newer state give its commit as the revision. The download
    shows a progress bar where there is a terminal. A file is compared with the hash that the Hub states after the
    download, and each time that it is taken from the cache.

    Args:
        repo_id: `"owner/name"`.
        revision: Branch, tag or commit. None: `main`.
        filenames: Files by their paths in the repository. None: `config.json` where there is one, and
            `model.safetensors`, else `pytorch_model.bin`.
        cache_dir: Where repositories are kept. None: where the Hub's own programs keep them (`HF_HUB_CACHE`).

    Raises:
        CheckpointError: If there is no such repository, revision or file, or the access to it is restricted; if a file
            is not what the Hub states, or that is no hash.
        ConnectionError: If files are not on this machine and the Hub cannot be reached.
        OSError: If the disk fills or cannot be written to. What is half done does not count as downloaded.
        ImportError: If huggingface_hub is not installed; it comes with the extra `hub`.
    """
    if not _REPOSITORY.fullmatch(repo_id):
        raise bad_argument("download", "repo_id", "'owner/name'", repo_id)
    if revision is not None and not _REVISION.fullmatch(revision):
        raise bad_argument("download", "revision", "the name of a branch, tag or commit", revision)
    for name in filenames or ():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise bad_argument("download", "filenames", "paths within the repository", name)
    hub = _optional.require("huggingface_hub", extra="hub")
    repository = Repository(hub, repo_id, revision or "main", cache_dir)
    wanted = [Wanted((name,)) for name in filenames] if filenames else [Wanted(WEIGHTS), Wanted((CONFIG,), must=False)]
    folder = repository.cached(wanted)
    if folder is not None:
        return folder
    try:
        return repository.fetched(wanted)
    except ConnectionError:
        # Rather weights of the second choice than none.
        folder = repository.cached(wanted, settle=True)
        if folder is None:
            raise
        return folder


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
        raise bad_checkpoint(path, "it must hold one JSON object", "Correct it, or delete it and get it again.")
    return config
