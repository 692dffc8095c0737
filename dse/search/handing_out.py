"""Hands out pieces of work among the workers of a study, each piece to one of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dse.search.workers import Colleagues


@dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work that must be done once.

    Attributes:
        key: names it among all workers of the study.
        is_done: whether its result is stored.
        run: does it, and stores its result; only reads the result if it is stored. What it raises
            ends the handing out.
    """

    key: str
    is_done: Callable[[], bool]
    run: Callable[[], None]


def hand_out(jobs: Iterable[Job], colleagues: Colleagues) -> None:
    """Run every job that no other worker runs, then wait for those that others run.

    Each job is run here in the end, in order as far as possible, because its result is needed. The
    result of a job that another worker has done is only read.
    """
    pending = list(jobs)
    while pending:
        left = []
        taken = colleagues.taken()  # one look for all jobs: hundreds of workers may wait here
        for job in pending:
            if job.is_done():
                job.run()
            elif job.key not in taken and colleagues.take(job.key):
                try:
                    job.run()
                finally:
                    colleagues.release(job.key)
            else:
                left.append(job)
        if len(left) == len(pending):
            colleagues.pause()
        pending = left
