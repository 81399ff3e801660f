"""The subcommands, and how whatever they end with becomes an exit status and one line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any

import typer

from keras_residual_cli import (
    benchmark,
    compare,
    convert,
    evaluate,
    export,
    failure,
    models,
    predict,
    recipes,
    residualize,
    runs,
    show,
    show_batch,
    signals,
    train,
    xray,
)

# Each subcommand is a function in a file of its own, which imports the library only when it runs: `--help` stays quick.
COMMANDS = (
    train.train,
    runs.runs,
    recipes.recipes,
    show_batch.show_batch,
    evaluate.evaluate,
    predict.predict,
    compare.compare,
    models.models,
    show.show,
    xray.xray,
    convert.convert,
    residualize.residualize,
    export.export,
    benchmark.benchmark,
)

# Typer brings its own copy of click or uses click itself, by version; the base of its error is right in both.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"keras-residual {metadata.version('keras-residual')}")
        raise typer.Exit


def _make() -> typer.Typer:
    app = typer.Typer(
        name="keras-residual",
        help="Train residual networks on pictures and tables, with Keras on JAX, PyTorch or TensorFlow.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in COMMANDS:
        app.command()(_ending_in_order(command))
    app.callback()(_options)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the command as a whole."""


def _ending_in_order(command: Callable[..., None]) -> Callable[..., None]:
    # Typer would end the process by itself, with another status and without a word.
    @functools.wraps(command)
    def caught(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            signals.ending.set()
            raise _stopped(interrupt) from interrupt

    return caught


def _stopped(interrupt: KeyboardInterrupt) -> failure.StoppedFromOutside:
    by = interrupt.args[0] if interrupt.args else "Ctrl-C"
    return failure.StoppedFromOutside(" ".join([f"Stopped by {by}.", *getattr(interrupt, "__notes__", ())]))


def run(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    try:
        if "" in arguments:
            raise failure.CallError("An argument is empty. Is a variable of the shell not set?")
        status = _make()(list(arguments), prog_name="keras-residual", standalone_mode=False) or 0
        # Typer's own word for a KeyboardInterrupt outside the subcommands.
        return failure.say("Stopped by Ctrl-C.", status=1) if status == 130 else status
    except UsageError as error:
        return failure.usage(error)
    except failure.CallError as error:
        return failure.say(str(error), status=2)
    except KeyboardInterrupt as interrupt:
        return failure.say(str(_stopped(interrupt)), status=1)
    except failure.StoppedFromOutside as stopped:
        return failure.say(str(stopped), status=1)
    except Exception as error:
        return failure.work(error)
