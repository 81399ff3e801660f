"""Hostile files for a reader: each is read in a process of its own, whose memory and time are bounded.

A test hands over cases and the name of a reader; `attack` says of each what became of it. What counts is how many were
*plain* (refused in one line of text by an error that the reader documents) or *read* (with the right values), and that
none was *unexpected* (any other exception), *wrong* (read as something else than it is) or *crashed* (a signal, too
long, too much memory).

The reader's process imports the library once and forks for each case, so that a case costs milliseconds.
"""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pytest

Expected = Literal["refused", "same", "same or refused", "any"]

SMALL, ALLOWED = 10_000_000, 1_000_000_000
"""Reading a file of fewer bytes may take this much memory above the import, in bytes."""

_MOST_ADDRESSES = 3_000_000_000
"""By how much a reader's address space may grow before the system refuses, in bytes."""


@dataclass(frozen=True)
class Case:
    """One input.

    Args:
        name: What was done to it.
        content: The bytes of the file, or a function that makes what is to be read at the path that it is given.
        expected: `"refused"`; `"same"`, which is what the reader returns for `original`; one of both; or `"any"`, for
            damage that nobody can see (still no crash, no other exception, no flood of memory).
        file: Name of the file.
        original: What the reader returns for the intact file.
    """

    name: str
    content: bytes | Callable[[Path], Any]
    expected: Expected = "refused"
    file: str = "file"
    original: Any = None


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        case: The case.
        verdict: `"plain"`, `"read"`, `"unexpected"`, `"wrong"` or `"crashed"`.
        detail: The message, or what was read.
        memory: Bytes that it took at its peak above what the library itself takes.
        seconds: How long it took.
    """

    case: Case
    verdict: str
    detail: str
    memory: int
    seconds: float


def attack(reader: str, cases: Iterable[Case], *, seconds: int = 30, processes: int = 2) -> list[Outcome]:
    """Returns what becomes of each case.

    Args:
        reader: `"module:function"`, importable from `tests/` or from the library. The function gets a path and returns
            what JSON can hold, such as a digest of the arrays. It may have an attribute `refuses`, the exceptions that
            are a plain refusal; ValueError, OSError and ImportError where it has none.
        cases: The inputs.
        seconds: The longest that one may take, of the processor's time.
        processes: How many are read at a time.
    """
    todo = list(cases)
    # To import the library takes a second one as long as some dozens of cases.
    servers = [_Server(reader, seconds) for _ in range(max(1, min(processes, len(todo) // 40)))]
    try:
        with ThreadPoolExecutor(len(servers)) as pool, tempfile.TemporaryDirectory() as folder:
            shares = [
                pool.submit(
                    lambda n=n, server=server: [
                        (number, server.run(todo[number], Path(folder) / str(number)))
                        for number in range(n, len(todo), len(servers))
                    ]
                )
                for n, server in enumerate(servers)
            ]
            return [outcome for _, outcome in sorted((pair for share in shares for pair in share.result()), key=_first)]
    finally:
        for server in servers:
            server.close()


def read_intact(reader: str, files: Sequence[tuple[bytes, str]]) -> list[Any]:
    """Returns what the reader makes of intact files, contents with names, for `Case.original`."""
    outcomes = attack(reader, [Case("intact", content, "any", file) for content, file in files])
    for outcome in outcomes:
        if outcome.verdict != "read":
            raise AssertionError(f"the intact {outcome.case.file} is {outcome.verdict}: {outcome.detail}")
    return [json.loads(outcome.detail) for outcome in outcomes]


def assert_harmless(outcomes: Sequence[Outcome]) -> collections.Counter[str]:
    """Raises with the list of what was unexpected, wrong, crashed or too large; returns how many there are of each."""
    bad = [
        f"{outcome.verdict} ({outcome.memory / 1e6:.0f} MB, {outcome.seconds:.1f} s) {outcome.case.file}: "
        f"{outcome.case.name}: {outcome.detail[:300]}"
        for outcome in outcomes
        if outcome.verdict not in ("plain", "read") or outcome.memory > ALLOWED
    ]
    if bad:
        raise AssertionError("\n".join([f"{len(bad)} of {len(outcomes)} inputs did harm:", *bad[:40]]))
    return collections.Counter(outcome.verdict for outcome in outcomes)


def share(cases: Sequence[Case], config: pytest.Config, *, one_in: int = 8) -> list[Case]:
    """Returns every case where the tests are asked for by `-m hostile`, else a fixed share of them."""
    return list(cases) if "hostile" in config.option.markexpr else list(cases)[::one_in]


# Mutations of a valid file -------------------------------------------------------------------------------------------


def mutations(content: bytes, seed: int, number: int) -> Iterator[tuple[str, bytes]]:
    """Yields `number` damaged copies of a file, of each kind in turn, with what was done."""
    rng = random.Random(seed)
    kinds = [_flip_a_bit, _change_a_byte, _cut_off, _swap_lengths, _huge_length, _repeat, _leave_out, _blank, _exchange]
    for turn in range(number):
        kind = kinds[turn % len(kinds)]
        what, damaged = kind(content, rng)
        yield f"seed {seed}, {turn}: {what}", damaged


def _flip_a_bit(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, bit = rng.randrange(len(content)), rng.randrange(8)
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return f"bit {bit} of byte {place} flipped", bytes(changed)


def _change_a_byte(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    # Where the structure is: at the beginning, or at the end, where a zip has its directory.
    near = min(len(content), 2000)
    place = rng.randrange(near) if rng.random() < 0.5 else len(content) - 1 - rng.randrange(near)
    changed = bytearray(content)
    changed[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    return f"byte {place} set to {changed[place]}", bytes(changed)


def _cut_off(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    keep = rng.randrange(len(content))
    return f"cut off after {keep} bytes", content[:keep]


def _swap_lengths(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    size = rng.choice([2, 4, 8])
    first, second = (rng.randrange(max(1, len(content) - size)) for _ in range(2))
    changed = bytearray(content)
    changed[first : first + size], changed[second : second + size] = (
        content[second : second + size],
        content[first : first + size],
    )
    return f"{size} bytes at {first} and {second} exchanged", bytes(changed[: len(content)])


def _huge_length(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    size, place = rng.choice([(4, "<I"), (8, "<Q")]), rng.randrange(max(1, len(content) - 8))
    most = rng.choice([2 ** (8 * size[0]) - 1, 2 ** (8 * size[0] - 1) - 1, 2 ** (4 * size[0]), len(content)])
    changed = bytearray(content)
    changed[place : place + size[0]] = struct.pack(size[1], most)
    return f"{size[0]} bytes at {place} set to {most}", bytes(changed)


def _repeat(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 200))
    return f"bytes {start} to {end} twice", content[:end] + content[start:end] + content[end:]


def _leave_out(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 200))
    return f"bytes {start} to {end} left out", content[:start] + content[end:]


def _blank(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 200))
    return f"bytes {start} to {end} set to 0", content[:start] + bytes(end - start) + content[end:]


def _exchange(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    start = rng.randrange(len(content))
    noise = rng.randbytes(rng.randrange(1, 60))
    return f"noise from byte {start}", (content[:start] + noise + content[start + len(noise) :])[: len(content)]


# The processes -------------------------------------------------------------------------------------------------------


def _first(pair: tuple[int, Outcome]) -> int:
    return pair[0]


class _Server:
    """A process that has imported the reader and forks for each case."""

    def __init__(self, reader: str, seconds: int):
        self.seconds = seconds
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), reader, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        )

    def run(self, case: Case, folder: Path) -> Outcome:
        folder.mkdir()
        path = folder / case.file
        if callable(case.content):
            case.content(path)
        else:
            path.write_bytes(case.content)
        small = not path.is_file() or path.stat().st_size < SMALL
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the process has no pipes")
        stdin.write(json.dumps(str(path)) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline() or '{"verdict": "crashed", "detail": "the reader does not start"}')
        verdict, detail = answer["verdict"], answer["detail"]
        if verdict == "read" and (
            case.expected == "refused" or (case.expected != "any" and json.loads(detail) != case.original)
        ):
            verdict = "wrong"
        if verdict == "plain" and case.expected == "same":
            verdict = "wrong"
        memory = answer.get("memory", 0) if small else 0
        return Outcome(case, verdict, detail, memory, answer.get("seconds", 0.0))

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.kill()  # the end of a program that has imported so much takes seconds, and leaves nothing
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _serve(name: str, seconds: int) -> None:
    module, _, function = name.partition(":")
    reader = getattr(__import__(module, fromlist=[function]), function)
    answers = os.fdopen(os.dup(1), "w")
    # What a reader prints is not an answer.
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_in_a_child(reader, json.loads(line), seconds)), file=answers, flush=True)


def _in_a_child(reader: Callable[[str], Any], path: str, seconds: int) -> dict[str, Any]:
    receive, send = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(receive)
        # Not the exit of Python, which would run what the parent has registered.
        try:
            answer = json.dumps(_read(reader, path, seconds)).encode()
            with os.fdopen(send, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    took = time.monotonic() - started
    if os.WIFSIGNALED(status):
        ended = os.WTERMSIG(status)
        endless = ended in (signal.SIGALRM, signal.SIGXCPU)
        detail = f"longer than {seconds} s" if endless else signal.Signals(ended).name
        return {"verdict": "crashed", "detail": detail, "seconds": took}
    if not answer:
        return {"verdict": "crashed", "detail": "the process ended without an answer", "seconds": took}
    return {**json.loads(answer), "seconds": took}


def _read(reader: Any, path: str, seconds: int) -> dict[str, Any]:
    # Unlike exceptions these signals end code in C too. A machine that is busy with other things may take its time.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(10 * seconds)
    limit = int(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    # From here on the peak counts anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    limit = _status("VmSize") + _MOST_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    refuses = getattr(reader, "refuses", (ValueError, OSError, ImportError))
    try:
        verdict, detail = "read", json.dumps(reader(path))
    except BaseException as error:
        text = str(error)
        plain = isinstance(error, refuses) and text.isprintable() and 0 < len(text) <= 5000
        verdict, detail = "plain" if plain else "unexpected", f"{type(error).__name__}: {text[:2000]!r}"
    return {"verdict": verdict, "detail": detail, "memory": _status("VmHWM") - before}


def _status(name: str) -> int:
    """Returns a size of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
