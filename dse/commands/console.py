"""Where output goes: results to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 120  # columns where stdout is no terminal and so has no width of its own


def results() -> Console:
    """Return the console for results, on stdout; plain text where that is no terminal."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(file=sys.stdout, highlight=False, soft_wrap=True, width=width)


def messages() -> Console:
    """Return the console for progress and notes, on stderr; plain where that is no terminal."""
    width = None if sys.stderr.isatty() else PLAIN_WIDTH
    return Console(file=sys.stderr, highlight=False, soft_wrap=True, width=width)


def note(text: str) -> None:
    """Print one line of explanation to stderr."""
    messages().print(Text(text))


def say(text: str) -> None:
    """Print text to stdout as it is: brackets in it are no markup."""
    results().print(Text(text))


@contextmanager
def stdout_reserved() -> Iterator[None]:
    """Send to stderr whatever libraries or a user's factories print meanwhile."""
    with redirect_stdout(sys.stderr):
        yield


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout; NaN and infinities, which are no JSON, are refused."""
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """Lay out text in columns.

    Args:
        headings: one a column.
        rows: of the same length each.
        left: so many columns are aligned to the left, the others to the right.
    """
    built = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        built.add_column(heading, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        built.add_row(*(Text(cell) for cell in row))
    return built
