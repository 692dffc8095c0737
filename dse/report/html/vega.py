"""Vega-Lite, which draws the page's charts: its library, as one script."""

import re
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any

import vl_convert

from dse.atomic import replaced_whole
from dse.caches import cache_folder
from dse.digests import bytes_digest

Spec = dict[str, Any]
"""A chart, or a part of one, in Vega-Lite's JSON."""

_CALL = "window.vegaEmbed = vegaEmbed;"
_DIGEST_LETTERS = 64


@cache
def vega_library() -> str:
    """Return Vega-Embed with Vega and Vega-Lite as one script, which sets `window.vegaEmbed`.

    Bundling takes seconds, so the script is kept in the cache, after its SHA-256.
    """
    path = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        stored = path.read_bytes()
        if stored[:_DIGEST_LETTERS] == _digest(stored[_DIGEST_LETTERS:]):
            return stored[_DIGEST_LETTERS:].decode()
    script = vl_convert.javascript_bundle(_CALL)
    # Inside a script element, this would end it.
    script = re.sub(r"</(script)", r"<\\/\1", script, flags=re.IGNORECASE)
    with suppress(OSError):  # a cache that can't be written costs time alone
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_whole(path) as partial:
            partial.write_bytes(_digest(script.encode()) + script.encode())
    return script


def _digest(content: bytes) -> bytes:
    return bytes_digest(content).encode()
