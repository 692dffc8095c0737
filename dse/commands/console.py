"""Output: results go to stdout, everything else to stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from dse.errors import DseError

_WIDEST = 10_000  # columns of a row
PLAIN_WIDTH = 120  # columns if the output is not a terminal and has no width of its own


UNREAD = 141  # 128 + SIGPIPE, the exit status that shells report


class _Results(Console):
    """Exits like SIGPIPE if the reader has closed the pipe, as in `dse report RUN | head -1`."""

    def on_broken_pipe(self) -> None:
        """Exit without a message."""
        _drop_stdout()
        raise SystemExit(UNREAD)


def _drop_stdout() -> None:
    """Discard output that is still buffered, so that Python doesn't fail when it exits."""
    with suppress(OSError, ValueError):  # a stdout that is not a file has no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextmanager
def _flushed() -> Iterator[None]:
    """Flush stdout at the end of the block, and turn its errors into ours.

    Raises:
        DseError: if stdout can't be written, for example on a full disk.
        SystemExit: if the reader has closed the pipe.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise SystemExit(UNREAD) from None
    except OSError as error:
        _drop_stdout()
        raise DseError(f"stdout can't be written: {error.strerror}; make room for it") from error


def results() -> Console:
    """Return the console for results on stdout; it writes plain text if that is not a terminal."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return _Results(file=sys.stdout, highlight=False, soft_wrap=True, width=width)


def messages() -> Console:
    """Return the console for messages on stderr; it writes plain text if that is not a terminal."""
    width = None if sys.stderr.isatty() else PLAIN_WIDTH
    return Console(file=sys.stderr, highlight=False, soft_wrap=True, width=width)


def note(text: str) -> None:
    """Print one line of explanation to stderr."""
    messages().print(Text(text))


def say(text: str) -> None:
    """Print text to stdout literally, without interpreting brackets as markup."""
    with _flushed():
        results().print(Text(text))


@contextmanager
def stdout_reserved() -> Iterator[None]:
    """Redirect output of libraries and of user factories to stderr.

    Raises:
        DseError: if their code calls `sys.exit`.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        raise DseError(
            f"the code of a network or data set tried to end the process ({error}): take its "
            "sys.exit out, or raise an exception in its place"
        ) from error


@contextmanager
def training(title: str) -> Iterator[Callable[[float], None]]:
    """Show the progress of one training on stderr: a bar, or a line per quarter.

    Yields:
        A callback for the share that is done, from 0 to 1.
    """
    shown = messages()
    if shown.is_terminal:
        with Progress(console=shown, transient=True) as display:
            task = display.add_task(title, total=1.0)
            yield lambda share: display.update(task, completed=share)
        return
    quarters = iter((0.25, 0.5, 0.75, 1.0))
    following = next(quarters)

    def advance(share: float) -> None:
        nonlocal following
        if share >= following:
            shown.print(Text(f"{title}: {100 * share:.0f} %"))
            following = next((quarter for quarter in quarters if quarter > share), 2.0)

    yield advance


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout; NaN and infinity are refused because JSON lacks them."""
    text = json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False)
    with _flushed():
        sys.stdout.write(f"{text}\n")


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, wrapped: bool = False
) -> None:
    """Print text in columns to stdout.

    A row that is wider than the terminal is printed as one line, so that no figure is cut.

    Args:
        headings: one per column.
        rows: cells of each row, one per column.
        left: number of left-aligned columns; the others are right-aligned.
        wrapped: whether the last column may take several lines.
    """
    built = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headings))
    for index, heading in enumerate(headings):
        wraps = wrapped and index == len(headings) - 1
        built.add_column(
            heading,
            justify="left" if index < left else "right",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
        )
    for row in rows:
        built.add_row(*(Text(cell) for cell in row))
    console = results()
    if not wrapped:
        wide = console.options.update(max_width=_WIDEST)
        console.width = max(console.width, Measurement.get(console, wide, built).maximum)
    with console.capture() as captured:
        console.print(built)
    with _flushed():
        for line in captured.get().splitlines():
            sys.stdout.write(f"{line.rstrip()}\n")
