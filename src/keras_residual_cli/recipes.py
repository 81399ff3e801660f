"""`keras-residual recipes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from keras_residual_cli.backend import start_keras
from keras_residual_cli.failure import CallError, reading_the_call
from keras_residual_cli.output import output, print_json


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The recipe to be shown.", show_default="all")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the recipes of `train`: where they are from, what was published, what they leave out, what they set."""
    with output(as_json) as console:
        with reading_the_call():
            start_keras()
            from keras_residual._errors import did_you_mean
            from keras_residual.training.recipes import RECIPES

            if name is not None and name not in RECIPES:
                raise CallError(f"No recipe has the name {name!r}.{did_you_mean(name, RECIPES)}")
        shown = {key: recipe for key, recipe in RECIPES.items() if name in (None, key)}
        if as_json:
            print_json({"recipes": [_plain(key, recipe) for key, recipe in shown.items()]})
            return
        for key, recipe in shown.items():
            told = {"from": recipe.source, "result": recipe.result, "differs": recipe.differs}
            told["sets"] = _in_one_line(recipe.settings)
            for most, settings in recipe.by_examples:
                told["else" if most is None else f"<{most}"] = _in_one_line(settings)
            console.say("\n".join([key, *(f"  {f'{title}:':9}{text}" for title, text in told.items() if text)]))


def _plain(name: str, recipe: Any) -> dict[str, Any]:
    return {
        "name": name,
        "source": recipe.source,
        "result": recipe.result,
        "differs": recipe.differs,
        "settings": dict(recipe.settings),
        "by_examples": [{"below": most, "settings": dict(settings)} for most, settings in recipe.by_examples],
    }


def _in_one_line(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{setting}={_toml(value)}" for setting, value in settings.items())


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)
