"""Files that appear complete or not at all, whatever other processes do."""

import os
from pathlib import Path


def move_if_free(made: Path, path: Path) -> None:
    """Move a file to a path unless another process created that path first.

    Args:
        made: The complete file, on the same file system. It may remain; the caller removes it.
        path: Where it goes.

    Raises:
        OSError: If it can't be moved.
    """
    try:
        os.link(made, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            made.rename(path)
