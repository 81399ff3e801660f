"""The script that draws the pictures: Vega-Lite with all that it needs, as text to be put into a page."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from types import ModuleType

from keras_residual import _atomic
from keras_residual._optional import require
from keras_residual._places import cache_folder


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
