"""The progress of `dse run`: a live display on a terminal, otherwise one line per event."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Display
from rich.segment import ControlType, Segment
from rich.text import Text

from dse.commands import console
from dse.measures import Measure
from dse.results.candidate_records import TrialRecord
from dse.search.progress import Phase, Progress
from dse.units import format_duration, format_size

_TITLES: dict[Phase, str] = {
    "pretraining": "pretraining",
    "reference": "recipes of the unpruned network",
    "baselines": "baselines",
    "search": "trials",
    "repeats": "what may be best, with more seeds",
    "finalists": "finalists, in full",
}
_REDRAW_SECONDS = 0.1
_FIRST_SHARE = 0.05  # of a training; before that, the time left in its phase isn't estimated


class _Bar(Display):
    """A progress bar with a status line below it, both cut to the terminal's width.

    It is redrawn on events and not by a thread. The width of the last drawing is therefore known,
    which is needed after the terminal was narrowed and the old lines wrap into more rows.
    """

    standing = ""
    _drawn: tuple[int, tuple[int, ...]] = (0, ())
    _drawn_at = 0.0

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the bar, and the status line if there is one."""
        yield self.make_tasks_table(self.tasks)
        if self.standing:
            yield Text(self.standing, no_wrap=True, overflow="ellipsis")

    def draw(self, *, now: float, hurry: bool = True) -> None:
        """Redraw in place of the last drawing.

        Args:
            now: time on the clock in seconds.
            hurry: if False, skip the drawing if the last one was less than 0.1 s ago.
        """
        if not hurry and now - self._drawn_at < _REDRAW_SECONDS:
            return
        width = self.console.size.width
        before, lines = self._drawn
        if before > width:
            # Terminals wrap the old lines again, so more rows have to be erased.
            extra = sum(-(-cells // width) - 1 for cells in lines if cells)
            erase = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self.console.control(Control(*(erase * extra)))
        rendered = self.console.render_lines(Group(*self.get_renderables()), pad=False)
        self._drawn = (width, tuple(Segment.get_line_length(line) for line in rendered))
        self._drawn_at = now
        self.refresh()


class RunDisplay:
    """An observer of a run (see `dse.search.progress.Observer`) that shows progress on stderr."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with an empty display.

        Args:
            clock: monotonic clock in seconds.
        """
        self._console: Console = console.messages()
        self._clock = clock
        self._started = self._phase_began = clock()
        self._phase: Phase | None = None
        self._quarter = 0
        self._rest = ""  # of the status line, after the times
        self._ends_at: float | None = None  # estimated end of the run, on the clock
        self._display: _Bar | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._display = _Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                console=self._console,
                transient=True,
                auto_refresh=False,
            )

    def __enter__(self) -> Self:
        """Start the live display."""
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the live display."""
        if self._display is not None:
            self._display.stop()

    def on_phase(self, name: Phase, total: int) -> None:
        """Start the display of a phase."""
        self._phase, self._phase_began, self._quarter = name, self._clock(), 0
        if self._display is None:
            self._print(
                f"{_TITLES[name]}: {total} in all"
                if total > 1
                else f"{_TITLES[name]}: begins after {self._elapsed()}"
            )
            return
        if self._task is not None:
            self._display.remove_task(self._task)
        self._task = self._display.add_task(_TITLES[name], total=total)
        self._display.standing = self._standing()
        self._display.draw(now=self._clock())

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """Show a trial that has ended."""
        self._tell(describe_trial(record, progress.measure), progress)

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """Show the score of a baseline or of one seed of a finalist."""
        self._tell(f"{label}: {progress.measure.text(accuracy)}", progress)

    def on_progress(self, share: float) -> None:
        """Move the bar within the current training, whose share done is given."""
        if self._display is None:
            if self._phase == "pretraining":
                self._tell_quarters(share)
            return
        if self._task is None:  # the network is prepared before the first phase
            self._task = self._display.add_task("preparing", total=1)
        task = self._display.tasks[self._display.task_ids.index(self._task)]
        done = int(task.completed) + min(share, 0.99)
        self._display.update(self._task, completed=done)
        left = [] if self._ends_at is not None else self._phase_left(done, int(task.total or 1))
        self._display.standing = self._standing(left)
        self._display.draw(now=self._clock(), hurry=False)

    def _elapsed(self) -> str:
        return format_duration(self._clock() - self._started)

    def _phase_left(self, done: float, total: int) -> list[str]:
        """Estimate the time left in a phase, once 5 % of its first training is done."""
        if done < _FIRST_SHARE:
            return []
        seconds = (self._clock() - self._phase_began) * (total - done) / done
        title = "" if self._phase is None else f" of {_TITLES[self._phase]}"
        return [f"about {format_duration(max(0.0, seconds))} left{title}"]

    def _tell_quarters(self, share: float) -> None:
        quarter = int(4 * share)
        if quarter > self._quarter:
            self._quarter = quarter
            left = "".join(f", {text}" for text in self._phase_left(share, 1) if share < 1)
            self._print(f"{_TITLES['pretraining']}: {100 * share:.0f} %{left}")

    def on_message(self, text: str) -> None:
        """Show one line of text."""
        self._print(text)

    def _tell(self, event: str, progress: Progress) -> None:
        now, left = self._clock(), progress.remaining_seconds
        self._ends_at = None if left is None else now + left
        self._rest = _describe(progress)
        standing = self._standing()
        if self._display is None or self._task is None:
            self._print(f"[{progress.done}/{progress.total}] {event} | {standing}")
            return
        self._print(event)
        self._display.standing = standing
        self._display.update(self._task, completed=progress.done, total=progress.total)
        self._display.draw(now=self._clock())

    def _standing(self, phase_left: Sequence[str] = ()) -> str:
        """Return the status: time elapsed and left, and what was found so far."""
        parts = [f"{self._elapsed()} elapsed", *phase_left]
        if self._ends_at is not None:
            parts.append(f"{format_duration(max(0.0, self._ends_at - self._clock()))} left")
        return ", ".join([*parts, *([self._rest] if self._rest else [])])

    def _print(self, line: str) -> None:
        self._console.print(Text(line))


def _describe(progress: Progress) -> str:
    best = [
        f"best {progress.measure.text(accuracy)} in {format_size(budget)}"
        for budget, accuracy in sorted(progress.best.items())
    ]
    return ", ".join(
        [f"front {progress.front_size}", *best, f"hypervolume {progress.hypervolume:.3f}"]
    )


def describe_trial(record: TrialRecord, measure: Measure) -> str:
    """Describe the result of a trial in one line, in the unit of the study's metric."""
    size = format_size(record.peak_bytes)
    title = f"trial {record.number}"
    if record.state == "complete" and record.accuracy is not None:
        return (
            f"{title}: {measure.text(record.accuracy)} at {size}, "
            f"{format_duration(record.wall_seconds)}"
        )
    if record.state == "stopped":
        return f"{title}: stopped early, at {size}, {format_duration(record.wall_seconds)}"
    if record.state == "infeasible":
        return f"{title}: {size} is over every budget, not trained"
    if record.state == "duplicate":
        return f"{title}: the same as trial {record.duplicate_of}, not trained again"
    reason = "" if record.failure is None else f": {record.failure}"
    return f"{title}: {record.state} at {size}{reason}"
