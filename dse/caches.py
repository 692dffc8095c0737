"""The folder of files that can be made again."""

import os
from pathlib import Path

CACHE_VARIABLE = "DSE_CACHE"


def cache_folder() -> Path:
    """Return the folder for files that can be made again: `$DSE_CACHE`, or `~/.cache/dse`."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "dse"
