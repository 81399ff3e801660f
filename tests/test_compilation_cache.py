"""The folder in which compiled programs outlive the process; each test that touches JAX has processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from keras_residual import compilation_cache

on_jax = pytest.mark.any_backend  # the first backend, which runs these tests, is JAX

START = """
import json, os, time
import jax
import numpy as np
from keras_residual.compilation_cache import *
from keras_residual.compilation_cache import enable_compilation_cache_by_default

counts = dict(hits=0, misses=0)
def count(event, **_):
    for name in counts:
        counts[name] += event == f"/jax/compilation_cache/cache_{name}"
jax.monitoring.register_event_listener(count)

def compile_one(power=5):
    # From an array of NumPy: to make one of JAX is a program too.
    jax.block_until_ready(jax.jit(lambda x: (x @ x) ** power)(np.ones((7, 7), "float32")))

def tell(**values):
    print(json.dumps({name: value if isinstance(value, (int, float)) else value and str(value)
                      for name, value in dict(counts, **values).items()}))

def seconds():
    return jax.config.jax_persistent_cache_min_compile_time_secs
"""


def run(code: str, home: Path, *, threshold: str | None = "0", **environment: str) -> dict[str, Any]:
    """Runs code after `START` in a process of its own, where warnings are errors, and returns what it tells.

    By default every program is kept, since one that is small enough for a test takes no time to compile.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "KERAS_", "XDG_"))}
    environment = {
        "KERAS_BACKEND": "jax",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "LOCALAPPDATA": str(home / "cache"),
        **({"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": threshold} if threshold else {}),
        **environment,
    }
    program = [sys.executable, "-W", "error::UserWarning", "-c", START + code]
    done = subprocess.run(program, env=inherited | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # XLA complains on loading where it holds the CPU for another one.
    assert "warn" not in done.stderr.lower(), done.stderr
    assert "aot" not in done.stderr.lower(), done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def programs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*-cache") if path.is_file())


@on_jax
def test_a_second_process_reads_what_the_first_compiled(tmp_path: Path) -> None:
    first = run("enable_compilation_cache(); compile_one(); tell()", tmp_path)
    kept = programs(tmp_path)
    assert len(kept) == 1
    assert (first["hits"], first["misses"]) == (0, 1)
    second = run(
        """
compile_one(3)  # JAX looks at its settings when it first compiles
folder = enable_compilation_cache()
compile_one()
tell(folder=folder)
""",
        tmp_path,
    )
    assert (second["hits"], second["misses"]) == (1, 0)
    assert programs(tmp_path) == kept
    folder = Path(second["folder"])
    assert [parent.name for parent in folder.parents][:2] == ["xla", "keras-residual"]
    assert folder == kept[0].parent
    if os.name == "posix":
        assert folder.stat().st_mode & 0o077 == 0  # who writes here decides what we run


@pytest.mark.slow
@on_jax
def test_it_is_enabled_in_microseconds_and_disabled_until_it_is_asked_for(tmp_path: Path) -> None:
    told = run(
        """
default = enable_compilation_cache_by_default()
start = time.perf_counter()
same = all(enable_compilation_cache() == enable_compilation_cache_by_default() == default for _ in range(1000))
spent = time.perf_counter() - start
lowered = seconds()

disable_compilation_cache()
restored = seconds()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
compile_one(2)
off = enable_compilation_cache_by_default()
compile_one(3)
misses = counts["misses"]

on = enable_compilation_cache()
compile_one(4)
tell(default=default, same=same, spent=spent, lowered=lowered, restored=restored, off=off, misses_off=misses, on=on)
""",
        tmp_path,
        threshold=None,
    )
    assert told["same"]
    assert told["spent"] < 0.02
    assert (told["lowered"], told["restored"]) == (0.5, 1.0)
    assert told["off"] is None
    assert told["misses_off"] == 0
    assert told["on"] == told["default"]
    assert told["misses"] == len(programs(tmp_path)) == 1


@on_jax
def test_there_is_none_where_it_is_switched_off_or_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    told = run(
        """
given = []
for switch in ("0", "OFF", " off "):
    os.environ["KERAS_RESIDUAL_COMPILATION_CACHE"] = switch
    given += [enable_compilation_cache(), enable_compilation_cache(os.path.expanduser("~/own"))]
del os.environ["KERAS_RESIDUAL_COMPILATION_CACHE"]
given.append(enable_compilation_cache(os.path.expanduser("~/file/below")))
given.append(jax.config.jax_compilation_cache_dir)
compile_one()
tell(given=" ".join(map(str, given)))
""",
        tmp_path,
    )
    assert told["given"] == " ".join(["None"] * 8)
    assert told["misses"] == 0
    assert not (tmp_path / "own").exists()
    assert not list(tmp_path.rglob("xla"))


@pytest.mark.slow
@on_jax
def test_the_switch_names_a_folder_and_an_argument_another(tmp_path: Path) -> None:
    told = run(
        """
named = enable_compilation_cache()
compile_one()
own = enable_compilation_cache(os.path.expanduser("~/own"))
compile_one(3)
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/users"))
users = enable_compilation_cache()
jax.config.update("jax_compilation_cache_dir", None)
again = enable_compilation_cache()
tell(named=named, own=own, users=users, again=again, used=jax.config.jax_compilation_cache_dir)
""",
        tmp_path,
        KERAS_RESIDUAL_COMPILATION_CACHE="~/named",
    )
    assert Path(told["named"]).parent == tmp_path / "named"
    assert Path(told["own"]).parent == tmp_path / "own"
    assert told["users"] == str(tmp_path / "users")
    assert told["again"] == told["used"] == told["named"]
    assert len(programs(tmp_path / "named")) == len(programs(tmp_path / "own")) == 1


@pytest.mark.slow
@on_jax
def test_the_users_own_folder_and_threshold_are_kept(tmp_path: Path) -> None:
    told = run(
        """
by_environment = enable_compilation_cache()
compile_one()
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/by_config"))
by_config = enable_compilation_cache()
disable_compilation_cache()
tell(by_environment=by_environment, by_config=by_config, kept=jax.config.jax_compilation_cache_dir, seconds=seconds())
""",
        tmp_path,
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "by_environment"),
    )
    assert told["by_environment"] == str(tmp_path / "by_environment")
    assert told["by_config"] == told["kept"] == str(tmp_path / "by_config")
    assert told["seconds"] == 0
    assert len(programs(tmp_path)) == len(programs(tmp_path / "by_environment")) == 1
    assert not (tmp_path / "cache" / "keras-residual").exists()


@on_jax
def test_the_suite_has_none_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # A test must not pass for what another run has compiled, nor fill the folder of who runs it.
    switch = os.environ[compilation_cache.SWITCH]
    if switch != "0":
        pytest.skip("whoever runs the tests has chosen")
    monkeypatch.setattr(compilation_cache, "_decided", False)
    assert compilation_cache.enable_compilation_cache_by_default() is None


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has the cache")
def test_other_backends_have_none(tmp_path: Path) -> None:
    assert compilation_cache.enable_compilation_cache(tmp_path / "cache") is None
    compilation_cache.disable_compilation_cache()
    assert not list(tmp_path.iterdir())


@on_jax
def test_what_was_not_used_for_longest_is_deleted_down_to_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation_cache, "MOST_BYTES", 250)
    for place, (name, used, written) in enumerate([("a", 5, 1), ("b", 2, 2), ("c", 3, 1), ("d", 1, 4)]):
        path = tmp_path / f"version{place % 2}" / f"{name}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (used, written))
    (tmp_path / "version0" / "other.bin").write_bytes(b"x" * 1000)
    compilation_cache._prune(tmp_path)
    assert [path.name for path in programs(tmp_path)] == ["a-cache", "d-cache"]
    assert (tmp_path / "version0" / "other.bin").exists()


@on_jax
def test_cpus_are_told_apart_by_what_the_compiler_sees(tmp_path: Path) -> None:
    def traits(**entries: str) -> str:
        known = {"vendor_id": "A", "model": "17", "flags": "sse2 avx2", "cpu MHz": "2000"} | entries
        text = "".join(f"{name}\t: {value}\n" for name, value in known.items())
        (tmp_path / "cpuinfo").write_text(f"{text}\n{text}")
        return compilation_cache._linux_traits(tmp_path / "cpuinfo")

    assert traits() == traits(flags="avx2 sse2") == traits(**{"cpu MHz": "3100"})
    assert len({traits(), traits(flags="sse2 avx2 avx512f"), traits(model="18"), traits(vendor_id="B")}) == 4
    assert compilation_cache._linux_traits(tmp_path / "nothing") == ""
