"""A folder in which compiled programs outlive the process, on JAX: a deep network compiles once a machine."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from keras_residual import _backend
from keras_residual._places import cache_folder, expanded

SWITCH = "KERAS_RESIDUAL_COMPILATION_CACHE"
"""Environment variable: `0` or `off` for no cache, or the folder to use instead of the default one."""

MOST_BYTES = 2 * 2**30
"""What is left of the cache when a process starts to use it; what was not used for longest is deleted first."""

_OFF = ("0", "off", "false", "no")
_ON = ("", "1", "on", "true", "yes")

_ours: Path | None = None  # the folder that JAX was told to use here
_decided = False  # whether someone has asked for the cache, or for none


def enable_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Lets JAX keep what it compiles in a folder and read it from there, in this process and the next.

    What the user has set is left as it is: JAX's own `JAX_COMPILATION_CACHE_DIR`, and the environment variable
    `KERAS_RESIDUAL_COMPILATION_CACHE`, which is `0` or `off` for no cache, or a folder. Where the folder cannot be
    written to there is no cache. The folder is trusted: who can write to it decides what this process runs.

    Args:
        folder: Where to keep it. By default the user's cache folder. In it, each version of the compiler and each kind
            of CPU has a folder of its own, since code for one CPU does not run on every other.

    Returns:
        The folder that JAX uses, or None where there is no cache, as on the other backends.
    """
    global _ours, _decided
    cache = _backend.compilation_cache()
    # The user may have told JAX otherwise since.
    if folder is None and _ours is not None and cache is not None and cache.folder() == str(_ours):
        return _ours
    _decided = True
    switch = os.environ.get(SWITCH, "").strip()
    if cache is None or cache.is_off() or switch.lower() in _OFF:
        return None
    set_before = cache.folder()
    if set_before and set_before != str(_ours):
        return Path(set_before)
    root = _root(folder, switch)
    if root is None:
        return None
    made = root / f"{cache.version()}-{_cpu()}"
    if set_before != str(made):
        if not _writable(made):
            return None
        _prune(root)
        cache.enable(made)
        _ours = made
    return made


def enable_compilation_cache_by_default() -> Path | None:
    """Calls `enable_compilation_cache()` where this process has not decided about the cache yet, as a stack does."""
    return _ours if _decided else enable_compilation_cache()


def disable_compilation_cache() -> None:
    """Makes JAX compile anew; what is in the folder stays there.

    A folder that the user has named to JAX stays in use, and no stack enables the cache again by itself.
    """
    global _ours, _decided
    cache = _backend.compilation_cache()
    if cache is not None and _ours is not None and cache.folder() == str(_ours):
        cache.disable()
    _ours = None
    _decided = True


def _root(folder: str | os.PathLike[str] | None, switch: str) -> Path | None:
    if folder is None and switch.lower() in _ON:
        home = cache_folder()
        return None if home is None else home / "xla"
    named = expanded(folder or switch)
    return named if str(named).startswith("~") else named.absolute()


def _writable(folder: Path) -> bool:
    if not folder.is_absolute():  # no home folder: `~` stands for itself
        return False
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Permissions alone do not tell: the file system may be full or read-only.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError:
        return False
    return True


def _prune(root: Path) -> None:
    """Deletes the compiled programs in the folders below `root` that were not used for longest.

    JAX can bound a cache itself, but only with a package for locks, by a lock around each reading and writing, and
    without a look at the folders of former versions.
    """
    found = []
    for path in root.glob("*/*-cache"):  # as JAX names them
        with suppress(OSError):  # another process has deleted it
            status = path.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    size = sum(entry[1] for entry in found)
    for _, bytes_of_it, path in sorted(found):
        if size <= MOST_BYTES:
            break
        with suppress(OSError):
            path.unlink()
        size -= bytes_of_it


@functools.cache
def _cpu() -> str:
    """Returns a name for what the compiler sees of the CPU, `x86_64-` and a hash."""
    traits = _linux_traits() or _macos_traits() or platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(traits.encode()).hexdigest()[:12]}"


def _linux_traits(file: Path = Path("/proc/cpuinfo")) -> str:
    try:
        first = file.read_text("utf-8", errors="replace").split("\n\n", 1)[0]  # its cores are alike
    except OSError:
        return ""
    names = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part", "isa")
    found = []
    for line in first.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            found.append(f"{name.strip()}: {' '.join(sorted(value.split()))}")
    return "\n".join(sorted(found))


def _macos_traits() -> str:
    if platform.system() != "Darwin":
        return ""
    try:
        command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
