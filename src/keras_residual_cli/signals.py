"""Ctrl-C, SIGTERM and SIGHUP: the command ends in order, and where that takes too long, at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType

GRACE = 0.5
"""Seconds that the work has to notice. A compiler may run for a minute without a look at Python's signals, and Keras
drops a KeyboardInterrupt that arrives while it reads a batch's numbers."""

_MOMENT = 0.1
"""Seconds that it has then, in which a step may have ended while a checkpoint was written."""

_NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}

ending = threading.Event()
"""Set as soon as the work has ended and only words are left to be said."""


def heed() -> None:
    """Makes each signal a KeyboardInterrupt that says which it was; one that the caller has switched off stays off.

    Whatever is on the disk is complete at every moment, so that an end at once loses no more than the work since.
    """
    names = {getattr(signal, name): said for name, said in _NAMES.items() if hasattr(signal, name)}
    # A shell starts a job in the background with Ctrl-C ignored, and nohup ignores SIGHUP.
    heeded = {number: name for number, name in names.items() if signal.getsignal(number) is not signal.SIG_IGN}

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(heeded[number])

    for number in heeded:
        signal.signal(number, interrupt)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    words = os.dup(2)  # standard error may be turned away while a framework is loaded
    threading.Thread(target=_watch, args=(reader, heeded, words), daemon=True).start()


def _watch(reader: socket.socket, heeded: dict[int, str], words: int) -> None:
    asked = False
    while number := reader.recv(1):
        if number[0] not in heeded:
            continue
        by = heeded[number[0]]
        if asked:
            _end_at_once(f"Stopped by {by}.", words)
        asked = True
        if not ending.wait(GRACE):
            # In a thread of its own, since a second signal does not wait for what is still to be written.
            threading.Thread(target=_end_in_order, args=(by, words), daemon=True).start()


def _end_in_order(by: str, words: int) -> None:
    # Only what is loaded: the end may come while the library is.
    training = sys.modules.get("keras_residual.training.stopped")
    kept = "" if training is None else " ".join(training.leave(by))
    if not ending.wait(_MOMENT):  # else the work has noticed meanwhile
        _end_at_once(f"Stopped by {by}. {kept}".rstrip(), words)


def _end_at_once(text: str, words: int) -> None:
    # The processes before the folders, which they would make again.
    for name in ("keras_residual.deploy.child", "keras_residual._atomic"):
        if (module := sys.modules.get(name)) is not None:
            module.leave()
    from keras_residual_cli.output import printable

    # A progress bar has hidden the cursor.
    bare = "\r\033[2K\033[?25h" if os.isatty(words) else ""
    line = printable(f"keras-residual: {text}")
    try:
        os.write(words, f"{bare}{line}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(1)
