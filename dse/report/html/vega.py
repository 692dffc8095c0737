"""Vega-Lite, which draws the page's charts: its library, as one script."""

import re
from functools import cache
from typing import Any

import vl_convert

Spec = dict[str, Any]
"""A chart, or a part of one, in Vega-Lite's JSON."""


@cache
def vega_library() -> str:
    """Return Vega-Embed with Vega and Vega-Lite as one script, which sets `window.vegaEmbed`."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a script element, this would end it.
    return re.sub(r"</(script)", r"<\\/\1", script, flags=re.IGNORECASE)
