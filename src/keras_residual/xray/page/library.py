"""The script that draws the pictures: Vega-Lite with all that it needs, as text to be put into a page."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import platformdirs

from keras_residual import _atomic
from keras_residual._optional import require


@cache
def drawing_library() -> str:
    """Returns a script that defines `vegaEmbed`.

    It takes the package some seconds to put it together, so that it is kept in the user's cache folder, for each
    version of the package. Where nothing can be kept it is made each time.

    Raises:
        ImportError: Without the extra `plot`.
    """
    package = require("vl_convert", extra="plot")
    kept = platformdirs.user_cache_path("keras-residual", appauthor=False) / f"vega-{package.__version__}.js"
    with suppress(OSError):
        return kept.read_text(encoding="utf-8")
    # In a scope of its own, and without a text that would end the element it stands in.
    script = f"(() => {{{package.javascript_bundle()}}})();".replace("</script", "<\\/script")
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        _atomic.write_text(kept, script)
    return script
