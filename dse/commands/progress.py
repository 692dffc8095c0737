"""How far `dse run` has come: a live display on a terminal, a line for each event elsewhere."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Display
from rich.text import Text

from dse.commands import console
from dse.results.records import TrialRecord
from dse.search.progress import Phase, Progress
from dse.units import format_duration, format_size

_TITLES: dict[Phase, str] = {
    "baselines": "baselines",
    "search": "trials",
    "finalists": "finalists, in full",
}


class _Bar(Display):
    """A bar, and below it one line that says where the run stands."""

    standing = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the bar and the line, if there is something to say."""
        yield self.make_tasks_table(self.tasks)
        if self.standing:
            yield Text(self.standing)


class RunDisplay:
    """Observes a run (see `dse.search.progress.Observer`) and shows it on stderr."""

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self._console: Console = console.messages()
        self._display: _Bar | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._display = _Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                console=self._console,
                transient=True,
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
        """Take the live display away."""
        if self._display is not None:
            self._display.stop()

    def on_phase(self, name: Phase, total: int) -> None:
        """A phase begins."""
        if self._display is None:
            self._print(f"{_TITLES[name]}: {total} in all")
            return
        if self._task is not None:
            self._display.remove_task(self._task)
        self._task = self._display.add_task(_TITLES[name], total=total)

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """A trial ended."""
        self._tell(describe_trial(record), progress)

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """A baseline or one seed of a finalist was scored."""
        self._tell(f"{label}: {100 * accuracy:.1f} %", progress)

    def on_progress(self, share: float) -> None:
        """The training under way has come so far: moves the bar between two trials."""
        if self._display is None:
            return
        if self._task is None:  # the network is made ready before the first phase
            self._task = self._display.add_task("preparing", total=1)
        task = self._display.tasks[self._display.task_ids.index(self._task)]
        self._display.update(self._task, completed=int(task.completed) + min(share, 0.99))

    def on_message(self, text: str) -> None:
        """Something the user should read."""
        self._print(text)

    def _tell(self, event: str, progress: Progress) -> None:
        standing = self._standing(progress)
        if self._display is None or self._task is None:
            self._print(f"[{progress.done}/{progress.total}] {event} | {standing}")
            return
        self._print(event)
        self._display.standing = standing
        self._display.update(self._task, completed=progress.done, total=progress.total)

    def _standing(self, progress: Progress) -> str:
        parts = []
        if progress.remaining_seconds is not None:
            parts.append(f"{format_duration(progress.remaining_seconds)} left")
        parts.append(f"front {progress.front_size}")
        parts += [
            f"best {100 * accuracy:.1f} % in {format_size(budget)}"
            for budget, accuracy in sorted(progress.best.items())
        ]
        parts.append(f"hypervolume {progress.hypervolume:.3f}")
        return ", ".join(parts)

    def _print(self, line: str) -> None:
        self._console.print(Text(line))


def describe_trial(record: TrialRecord) -> str:
    """Say in one line what became of a trial."""
    size = format_size(record.peak_bytes)
    title = f"trial {record.number}"
    if record.state == "complete" and record.accuracy is not None:
        return (
            f"{title}: {100 * record.accuracy:.1f} % at {size}, "
            f"{format_duration(record.wall_seconds)}"
        )
    if record.state == "stopped":
        return f"{title}: given up at its rung, at {size}, {format_duration(record.wall_seconds)}"
    if record.state == "infeasible":
        return f"{title}: {size} is over every budget, not trained"
    if record.state == "duplicate":
        return f"{title}: the same as trial {record.duplicate_of}, not trained again"
    reason = "" if record.failure is None else f": {record.failure}"
    return f"{title}: {record.state} at {size}{reason}"
