"""The page itself: a whole file, or what another page needs to hold X-rays among other things."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any

from keras_residual import _atomic
from keras_residual._optional import require
from keras_residual._places import cache_folder
from keras_residual.xray.health import SIGNS, Findings
from keras_residual.xray.page.content import CHAPTERS, Content


def page(report: Findings, earlier: Findings | None = None) -> str:
    """Returns an HTML file that needs no other file and no network.

    Args:
        report: What is shown.
        earlier: An earlier report of the same net, drawn beside it.

    Raises:
        ImportError: Without the extra `plot`.
    """
    template = _environment().get_template("page.html.j2")
    return template.render(
        title="X-ray of " + str(report.model.get("name", "the net")), head=head(), section=section(report, earlier)
    )


def head() -> Any:
    """Returns style and scripts for the head of a page that holds sections; once a page, whatever their number."""
    style, script = (_template(name) for name in ("xray.css", "xray.js"))
    return _markup(f"<style>\n{style}</style>\n<script>{drawing_library()}</script>\n<script>\n{script}</script>\n")


def section(
    report: Findings, earlier: Findings | None = None, earlier_name: str = "earlier", *, folded: bool = False
) -> Any:
    """Returns the part of a page that shows an X-ray, with a heading of the second level.

    Args:
        report: What is shown.
        earlier: An earlier report of the same net, drawn beside it.
        earlier_name: What the page calls the earlier time, for example "before training".
        folded: Whether all chapters of pictures but the first are closed at first.
    """
    content = Content(report, earlier, earlier_name)
    pictures = content.pictures
    chapters = [
        (name, [picture for picture in pictures if picture.chapter == key])
        for key, name in CHAPTERS.items()
        if any(picture.chapter == key for picture in pictures)
    ]
    text = (
        _environment()
        .get_template("section.html.j2")
        .render(
            content=content,
            data=content.data(pictures),
            chapters=chapters,
            folded=folded,
            signs=SIGNS,
        )
    )
    return _markup(text)


# --- Parts -----------------------------------------------------------------------------------------------------------


def _template(name: str) -> str:
    return (files("keras_residual.xray.page") / "templates" / name).read_text(encoding="utf-8")


def _environment() -> Any:
    jinja2 = require("jinja2", extra="plot")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_residual.xray.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    return environment


def _prose(text: str) -> Any:
    """Returns a text with its code and its addresses marked as such, and all else escaped."""
    escaped = str(require("markupsafe", extra="plot").escape(text))
    linked = re.sub(r"(https?://[\w./-]*\w)", r'<a href="\1" rel="noreferrer">\1</a>', escaped)
    return _markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", linked))


def _markup(text: str) -> Any:
    return require("markupsafe", extra="plot").Markup(text)


@cache
def drawing_library() -> str:
    """Returns a script that defines `vegaEmbed`.

    It takes the package some seconds to put it together, so that it is kept in the user's cache folder, for each
    version of the package. Where nothing can be kept it is made each time.

    Raises:
        ImportError: Without the extra `plot`.
    """
    package = require("vl_convert", extra="plot")
    folder = cache_folder()
    if folder is None:
        return _made(package)
    kept = folder / f"vega-{package.__version__}.js"
    with suppress(OSError):
        return kept.read_text(encoding="utf-8")
    script = _made(package)
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        _atomic.write_text(kept, script)
    return script


def _made(package: ModuleType) -> str:
    # In a scope of its own, and without a text that would end the element it stands in.
    return f"(() => {{{package.javascript_bundle()}}})();".replace("</script", "<\\/script")
