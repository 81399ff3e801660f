"""The command `keras-residual`: thin subcommands that call the library."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command on `sys.argv` and ends the process: 0 done, 1 the work failed, 2 the call was wrong."""
    from keras_residual_cli.app import run

    sys.exit(run(sys.argv[1:]))
