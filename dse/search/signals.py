"""Handles Ctrl-C, SIGTERM and SIGHUP: the first stops the run, repeats don't stop the saving."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dse.results.candidate_records import TrialRecord
from dse.search.progress import Observer, Phase, Progress

GRACE_SECONDS = 10.0


class Stop:
    """Whether the user requested a stop."""

    def __init__(self) -> None:
        """Start without a request."""
        self.requested_at: float | None = None

    def check(self) -> None:
        """Raise the stop if a signal came but its KeyboardInterrupt was lost.

        Raises:
            KeyboardInterrupt: if a stop was requested.
        """
        if self.requested_at is not None:
            raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Raise KeyboardInterrupt on the first SIGINT, SIGTERM or SIGHUP, and ignore those after it.

    A SIGHUP that is ignored, as under nohup, stays ignored.

    A signal often comes twice: `timeout` sends it to a process and to its group, a terminal to the
    whole foreground group. The second must not interrupt the saving that the first started. After a
    grace period signals count again, so that the user can leave a saving that hangs. Python sets
    handlers only in the main thread; in other threads this does nothing.

    Yields:
        An object to check regularly: Python prints and drops exceptions that are raised inside a
        callback of C code or a finaliser, and the stop would be lost.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(_number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if stop.requested_at is None or now - stop.requested_at > GRACE_SECONDS:
            stop.requested_at = now
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Attentive:
    """Forwards a run's events, and raises a stop whose KeyboardInterrupt was lost."""

    def __init__(
        self, observer: Observer, stop: Stop, check: Callable[[], None] = lambda: None
    ) -> None:
        """Wrap an observer.

        Args:
            observer: the observer that events are forwarded to.
            stop: the stop to check.
            check: checks something else that may end the run, by an exception.
        """
        self._observer = observer
        self._stop = stop
        self._check_else = check

    def on_phase(self, name: Phase, total: int) -> None:
        """Check, then forward."""
        self._check()
        self._observer.on_phase(name, total)

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """Forward, then check."""
        self._observer.on_trial(record, progress)
        self._check()

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """Forward, then check."""
        self._observer.on_evaluation(label, accuracy, progress)
        self._check()

    def on_progress(self, share: float) -> None:
        """Check, then forward."""
        self._check()
        self._observer.on_progress(share)

    def _check(self) -> None:
        self._stop.check()
        self._check_else()

    def on_message(self, text: str) -> None:
        """Forward without a check, because messages also come while a run saves itself."""
        self._observer.on_message(text)
