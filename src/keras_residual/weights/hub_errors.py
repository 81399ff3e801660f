"""Why a file of the Hugging Face Hub is not there, in words that say what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from keras_residual import _optional
from keras_residual._errors import bad_checkpoint
from keras_residual.weights.file_format import local_path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def explained(
    hub: ModuleType, error: Exception, *, repo_id: str, name: str, revision: str, cache_dir: str | Path | None
) -> Exception | None:
    """Returns the exception to raise for one of huggingface_hub, or None if the repository does not have the file.

    Args:
        hub: The package huggingface_hub.
        error: What `hf_hub_download` raised.
        repo_id: `"owner/name"`.
        name: The file.
        revision: The revision that was asked for.
        cache_dir: Where repositories are kept; None where huggingface_hub keeps them.
    """
    # The package loads its modules when they are imported by name.
    kinds, constants = (_optional.require(f"huggingface_hub.{name}", extra="hub") for name in ("utils", "constants"))
    place, page = f"hf://{repo_id}", f"https://huggingface.co/{repo_id}"
    cache = local_path(cache_dir or constants.HF_HUB_CACHE)
    causes = list(_causes(error))
    # Not those of the causes, which are of the network.
    number = error.errno if isinstance(error, OSError) else None

    # hf_xet, which is written in Rust, tells the number in the text.
    if number in _FULL or "No space left on device" in str(error):
        url = hub.hf_hub_url(repo_id, name, revision=revision)
        what = f"the disk is full: {_room(hub, url, name, cache)} in {cache}"
        way_out = "Make room there, or choose another folder: `cache_dir` or the environment variable HF_HUB_CACHE."
        return OSError(number or errno.ENOSPC, str(bad_checkpoint(place, what, way_out)))
    if number in _FORBIDDEN:
        way_out = "Choose another folder: `cache_dir` or the environment variable HF_HUB_CACHE."
        return OSError(number, str(bad_checkpoint(place, f"the cache {cache} cannot be written to", way_out)))
    for cause in causes:
        # The order matters: a later kind may be the base of an earlier one.
        if isinstance(cause, kinds.GatedRepoError):
            what, way_out = "access to the repository is restricted", f"Ask for it at {page}, then {_LOG_IN}."
            return bad_checkpoint(place, what, way_out)
        if isinstance(cause, kinds.RepositoryNotFoundError):
            way_out = f"Check the name at {page}; if it is private, {_LOG_IN}."
            return bad_checkpoint(place, "there is no such repository, or it is private", way_out)
        if isinstance(cause, kinds.RevisionNotFoundError):
            what = f"the repository has no revision {revision!r}"
            return bad_checkpoint(place, what, f"See {page}/commits/main for its branches, tags and commits.")
        if isinstance(cause, kinds.EntryNotFoundError) and not isinstance(cause, kinds.LocalEntryNotFoundError):
            return None
    reason = next((line for line in str(causes[-1]).splitlines() if line.strip()), type(error).__name__)
    if constants.HF_HUB_OFFLINE:
        reason, first = "HF_HUB_OFFLINE is set", "Unset it"
    else:
        first = "Check the network"
    what = f"{name} is not in the cache {cache}, or not whole, and could not be downloaded ({reason.rstrip('.')})"
    way_out = f"{first}, or get the files on another machine and give their folder."
    return ConnectionError(str(bad_checkpoint(place, what, way_out)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields the error, and what caused it, down to the first cause."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _room(hub: ModuleType, url: str, name: str, cache: Path) -> str:
    """Returns what the file needs, as far as the Hub says it, and what is free."""
    size = None
    # The answer is a courtesy: its failure must not hide that the disk is full.
    with suppress(Exception):
        size = hub.get_hf_file_metadata(url).size
    folder = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    needs = f"{name} needs {size / 1e6:.1f} MB" if size else f"{name} does not fit"
    return f"{needs} and {free / 1e6:.1f} MB are free"
