"""A script: runs the tiny search again and again, each time killed by SIGKILL at a chosen commit.

Usage: dying_search.py RUN_FOLDER COMMIT... ; prints how each process ended, a line each.
"""

import os
import signal
import sys
from pathlib import Path

import sqlalchemy as sa

from support.searches import memory_model, search


def die_at(commit: int) -> None:
    """Let this process be killed just before its storage commits for the n-th time."""
    left = commit

    def count(_connection: sa.Connection) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "commit", count)


def main(folder: Path, commits: list[int]) -> None:
    memory_model()  # compiled once, for all the processes forked below
    for commit in commits:
        child = os.fork()
        if child == 0:
            die_at(commit)
            search(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]])
