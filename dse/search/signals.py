"""Ctrl-C and SIGTERM stop a run once, and let it save itself in peace."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dse.results.records import TrialRecord
from dse.search.progress import Observer, Phase, Progress

GRACE_SECONDS = 10.0


class Stop:
    """Whether the user asked to stop."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.asked_at: float | None = None

    def check(self) -> None:
        """Stop now where a signal came but its KeyboardInterrupt got lost.

        Raises:
            KeyboardInterrupt: a stop was asked for.
        """
        if self.asked_at is not None:
            raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Raise KeyboardInterrupt on the first SIGINT or SIGTERM, and overlook those that follow.

    A signal often comes twice (`timeout` sends it to a process and to its group, a terminal to
    everyone in the foreground), and the second must not break off the saving that the first set
    off. After a grace period it counts again, so that a saving that hangs can be left. Handlers can
    only be set in the main thread; elsewhere nothing is changed.

    Yields:
        To be asked now and then while there is more to do: an exception raised in a callback of
        C code or in a finaliser is printed and dropped by Python, and the stop would be lost.
    """
    asked = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked.asked_at is None or now - asked.asked_at > GRACE_SECONDS:
            asked.asked_at = now
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Attentive:
    """Passes on what a run tells, and stops it there if a stop was asked for and got lost."""

    def __init__(self, observer: Observer, stop: Stop) -> None:
        """Keep both."""
        self._observer = observer
        self._stop = stop

    def on_phase(self, name: Phase, total: int) -> None:
        """Check, then pass it on."""
        self._stop.check()
        self._observer.on_phase(name, total)

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """Pass it on, then check."""
        self._observer.on_trial(record, progress)
        self._stop.check()

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """Pass it on, then check."""
        self._observer.on_evaluation(label, accuracy, progress)
        self._stop.check()

    def on_progress(self, share: float) -> None:
        """Check, then pass it on."""
        self._stop.check()
        self._observer.on_progress(share)

    def on_message(self, text: str) -> None:
        """Pass it on: messages also come while a run saves itself."""
        self._observer.on_message(text)
