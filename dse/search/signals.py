"""Ctrl-C and SIGTERM stop a run once, and let it save itself in peace."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 10.0


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt on the first SIGINT or SIGTERM, and overlook those that follow.

    A signal often comes twice (`timeout` sends it to a process and to its group, a terminal to
    everyone in the foreground), and the second must not break off the saving that the first set
    off. After a grace period it counts again, so that a saving that hangs can be left. Handlers can
    only be set in the main thread; elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped_at: float | None = None

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped_at
        now = time.monotonic()
        if stopped_at is None or now - stopped_at > GRACE_SECONDS:
            stopped_at = now
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
