"""The command `keras-residual`: thin subcommands that call the library."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command on `sys.argv` and ends the process: 0 done, 1 the work failed, 2 the call was wrong."""
    from keras_residual_cli import signals
    from keras_residual_cli.output import end_standard_output, prepare_standard_streams

    prepare_standard_streams()
    signals.heed()

    from keras_residual_cli.app import run
    from keras_residual_cli.failure import say

    status = run(sys.argv[1:])
    lost = end_standard_output()
    if lost is not None and status == 0:
        status = say(str(lost), status=1)
    if signals.ending.is_set():
        os._exit(status)  # a framework takes seconds to take itself apart
    sys.exit(status)
