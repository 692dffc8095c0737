"""The CPU threads that a training uses, unless the study sets their number: as many as are free.

A kernel that runs on several threads waits for the slowest of them. On a core that another process
keeps busy, a thread gets its turn only every few milliseconds, and all others wait for it in every
kernel: then many threads are several times slower than few.
"""

import math
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dse.networks.devices import threads_set

SAMPLE_SECONDS = 0.3
_STAT = Path("/proc/stat")
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
# Columns of /proc/stat, in ticks; further ones repeat what user and nice hold.
_NICE, _IDLE, _WAIT, _COUNT = 1, 3, 4, 8


def thread_count(*, usable: float, busy: float = 0.0, workers: int = 1, others: int = 0) -> int:
    """Return how many threads each of some workers should use, at least one.

    Args:
        usable: cores that the workers may use together.
        busy: cores' worth of time that other processes take of those.
        workers: number of workers that begin now.
        others: number of workers of the same study that began before, which may be idle just now.
    """
    free = (usable - busy + 0.5) / workers  # a core counts as free if it is idle half of the time
    share = usable / (workers + others)
    return max(1, math.floor(min(free, share)))


def logical_cores() -> int:
    """Return the logical cores that this process may use; on macOS, all that there are."""
    return len(_affinity())


def usable_cores() -> float:
    """Return the cores' worth of time that this process may use: by affinity and by quota."""
    return min(logical_cores(), cpu_quota())


def cpu_quota(groups: Path = _GROUPS, own: Path = _OWN_GROUP) -> float:
    """Return the cores' worth of time that Linux grants this process's control group.

    Args:
        groups: where control groups are mounted.
        own: file that names this process's group.

    Returns:
        The least quota of the group and of those above it; infinity if there is none.
    """
    found = math.inf
    for line in _lines(own):
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        mount = groups / kinds if kinds else groups
        # In a container, the path may be that of the host, and the mount is the group itself.
        for place in {mount, *(mount / part for part in _upwards(path))}:
            found = min(found, _quota_in(place))
    return found


def busy_cores(seconds: float = SAMPLE_SECONDS) -> float:
    """Measure the cores' worth of time that other processes take of the cores we may use.

    This process sleeps meanwhile. Processes of lower priority don't count, since they make room.
    Where the kernel shows no times, the average load of the last minute counts.

    Args:
        seconds: how long to measure.
    """
    before = _ticks(_lines(_STAT), _affinity())
    if not before:
        return min(os.getloadavg()[0], logical_cores())
    time.sleep(seconds)
    after = _ticks(_lines(_STAT), _affinity())
    polite = os.getpriority(os.PRIO_PROCESS, 0) > 0
    return sum(
        _busy_share(ticks, after[name], polite=polite)
        for name, ticks in before.items()
        if name in after
    )


@contextmanager
def threads_chosen(
    threads: int,
    *,
    device: str,
    workers: int = 1,
    others: int = 0,
    on_message: Callable[[str], None] = lambda _text: None,
) -> Iterator[int]:
    """Let torch compute with as many threads as there are free cores, in the `with` block.

    Args:
        threads: a number that was chosen already, such as the study's; 0 to choose one.
        device: the study's device. Beside a GPU, torch keeps its own number.
        workers: number of workers that begin now on this machine.
        others: number of workers of the study that began before on this machine.
        on_message: called with one line if a number is chosen.

    Yields:
        The number of threads.
    """
    most = torch.get_num_threads()  # which OMP_NUM_THREADS limits
    if threads or most == 1 or torch.device(device).type != "cpu":
        with threads_set(threads):
            yield threads or most
        return
    usable, busy = usable_cores(), busy_cores()
    chosen = min(most, thread_count(usable=usable, busy=busy, workers=workers, others=others))
    on_message(_described(chosen, usable=usable, busy=busy, workers=workers, others=others))
    with threads_set(chosen):
        yield chosen


def _described(chosen: int, *, usable: float, busy: float, workers: int, others: int) -> str:
    plural = "s" * (chosen > 1)
    each = " for each worker" if workers > 1 else ""
    parts = [f"{usable:g} core{'s' * (usable != 1)}", f"{busy:.1f} busy with other processes"]
    if others:
        parts.append(f"{others} other worker{'s' * (others > 1)} of the study here")
    return f"uses {chosen} CPU thread{plural}{each} ({', '.join(parts)}); training.threads sets it"


def _affinity() -> Collection[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _upwards(path: str) -> Iterator[str]:
    """Yield a group's path and those of the groups above it, relative to the mount."""
    parts = path.strip("/").split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[:count])


def _quota_in(place: Path) -> float:
    """Return the quota in a folder of a control group, of version 2 or 1."""
    words = " ".join(_lines(place / "cpu.max")).split()
    if not words:
        words = [*_lines(place / "cpu.cfs_quota_us"), *_lines(place / "cpu.cfs_period_us")]
    if len(words) != 2 or not all(word.isdecimal() for word in words):  # noqa: PLR2004  # or "max"
        return math.inf
    quota, period = map(int, words)
    return quota / period if quota and period else math.inf


def _ticks(lines: list[str], cores: Collection[int]) -> dict[str, list[int]]:
    """Return the times of some cores by name, from the lines of /proc/stat."""
    wanted = {f"cpu{number}" for number in cores}
    rows = (line.split() for line in lines if line.startswith("cpu"))
    return {row[0]: [int(one) for one in row[1 : _COUNT + 1]] for row in rows if row[0] in wanted}


def _busy_share(before: list[int], after: list[int], *, polite: bool) -> float:
    """Return the share of a core's time that was taken.

    Args:
        before: its times at first.
        after: its times later.
        polite: whether this process has a low priority itself.
    """
    spent = [late - early for early, late in zip(before, after, strict=True)]
    free = spent[_IDLE] + spent[_WAIT] + (0 if polite else spent[_NICE])
    whole = sum(spent)
    return 1 - free / whole if whole > 0 else 0.0
