"""The workers of one study: who is alive, and who has claimed which piece of work.

Workers meet in a second Optuna study, beside the study of the trials in the same storage. Each
worker is a running trial of it, whose beat it raises every few seconds, and so is each claim on a
piece of work that must be done once, such as a baseline. A claim is valid if no older claim on the
same piece of a living worker exists. Storages number their trials one after the other, so of any
number of workers that claim at once exactly one finds none older. That holds for every kind of
storage that Optuna has.

Whether a worker is alive is judged by whether its beat changes, on the judging worker's own clock.
Clocks of different machines are never compared.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from dse.search.patience import STORAGE_ERRORS

SUFFIX = " (workers)"
"""Added to a study's name, names the study in which its workers meet."""

_BEAT = "beat"
_PLACE = "place"
_MACHINE = "machine"
_KEY = "claims"
_BY = "by"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often workers look at each other.

    Attributes:
        beat_seconds: time between two beats of a worker.
        grace_seconds: time without a beat after which a worker counts as dead.
        poll_seconds: pause between two looks of a worker that waits for another, as long as there
            are no more than `few` workers; with more, it grows with their number.
        few: number of workers up to which they wait no longer.
    """

    beat_seconds: float = 5.0
    grace_seconds: float = 40.0
    poll_seconds: float = 0.25
    few: int = 4


class Colleagues(Protocol):
    """The other workers of a study, as one of them sees them."""

    @property
    def number(self) -> int | None:
        """This worker's number; None if it works alone."""

    def taken(self) -> frozenset[str]:
        """Return the keys of all work that living workers have claimed."""

    def take(self, key: str) -> bool:
        """Claim a piece of work; return whether it is this worker's now."""

    def release(self, key: str) -> None:
        """Give up a claim, because the work is done or failed."""

    def living(self) -> frozenset[int]:
        """Return the numbers of the workers that are alive, this one included."""

    def beside(self) -> int:
        """Return how many other workers are alive on this machine."""

    def stale(self, keys: Iterable[str]) -> frozenset[str]:
        """Return which of some things that nobody owns have been seen for longer than the grace."""

    def pause(self, *, seconds: float | None = None) -> None:
        """Wait for a moment, until another worker may have got on.

        Args:
            seconds: how long; None to go by the number of workers.
        """


class Alone:
    """No other workers: every claim succeeds, and costs nothing."""

    number: int | None = None

    def taken(self) -> frozenset[str]:
        """Return no key."""
        return frozenset()

    def take(self, key: str) -> bool:  # noqa: ARG002
        """Succeed."""
        return True

    def release(self, key: str) -> None:
        """Do nothing."""

    def living(self) -> frozenset[int]:
        """Return no number."""
        return frozenset()

    def beside(self) -> int:
        """Return none."""
        return 0

    def stale(self, keys: Iterable[str]) -> frozenset[str]:
        """Return all: nobody else can own anything."""
        return frozenset(keys)

    def pause(self, *, seconds: float | None = None) -> None:
        """Do nothing."""


@dataclass
class Watch:
    """Judges by one's own clock which of several signs of life have stopped changing.

    Time during which nobody looked counts little: after a pause of the storage, or of this process,
    the others get the chance to show a sign first.

    Attributes:
        grace_seconds: time without a change after which a sign counts as stopped.
        longest_seconds: the most that the time between two looks counts.
    """

    grace_seconds: float
    longest_seconds: float
    _seen: dict[object, tuple[object, float]] = field(default_factory=dict)
    _last: float | None = None

    def look(self, signs: Mapping[Any, object], *, now: float) -> frozenset[Any]:
        """Return the owners whose sign has not changed for longer than the grace.

        Args:
            signs: the current sign of each owner; the others are forgotten.
            now: seconds on a monotonic clock.
        """
        passed = 0.0 if self._last is None else min(now - self._last, self.longest_seconds)
        self._last = now
        found: dict[object, tuple[object, float]] = {}
        for owner, sign in signs.items():
            before, still = self._seen.get(owner, (None, 0.0))
            found[owner] = (sign, still + passed if owner in self._seen and before == sign else 0.0)
        self._seen = found
        return frozenset(one for one, (_, still) in found.items() if still > self.grace_seconds)


class Workers:
    """One worker among others; a context manager that beats in a thread of its own."""

    def __init__(
        self,
        storage: BaseStorage,
        study_name: str,
        *,
        about: Mapping[str, Any] | None = None,
        place: str | None = None,
        machine: str | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Prepare to join; `with` joins.

        Args:
            storage: the storage of the study.
            study_name: name of the Optuna study that holds the trials.
            about: what is stored about this worker, such as its processor; JSON values.
            place: identifies the locked run folder of this worker, so that an earlier worker of
                the same folder is known to be dead.
            machine: identifies the machine.
            pace: how often workers look at each other.
        """
        self._storage = storage
        self._name = study_name + SUFFIX
        self._about = {**(about or {}), _PLACE: place, _MACHINE: machine}
        self._pace = pace or Pace()
        self._watch = Watch(self._pace.grace_seconds, 2 * self._pace.beat_seconds)
        self._unowned = Watch(self._pace.grace_seconds, 2 * self._pace.beat_seconds)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._held: dict[str, int] = {}
        self._ids: dict[int, int] = {}
        self._meeting: optuna.Study | None = None
        self._own = -1
        self._beats = 0
        self._number_living = 1
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Join the workers, and start to beat."""
        self._meeting = optuna.create_study(
            study_name=self._name, storage=self._storage, load_if_exists=True
        )
        self._join()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave: claims are given up, so that others don't wait for them."""
        self._over.set()
        self._thread.join(timeout=1.0)  # it may hang in a storage that doesn't respond
        with suppress(*STORAGE_ERRORS):
            for key in list(self._held):
                self.release(key)
            self._end(self._own, left=True)

    @property
    def number(self) -> int | None:
        """This worker's number in the study of workers."""
        return self._own

    def living(self) -> frozenset[int]:
        """Return the numbers of the workers that are alive, this one included.

        Workers that turn out to be dead are marked so in the storage, with their claims.
        """
        return self._look()[0]

    def beside(self) -> int:
        """Return how many other workers are alive on this machine."""
        others, machine = self.living() - {self._own}, self._about[_MACHINE]
        return sum(
            one.number in others and one.user_attrs.get(_MACHINE) == machine
            for one in self._running()
        )

    def taken(self) -> frozenset[str]:
        """Return the keys of all work that living workers have claimed."""
        return frozenset(one.user_attrs[_KEY] for one in self._look()[1])

    def take(self, key: str) -> bool:
        """Claim a piece of work; return whether it is this worker's now."""
        living, claims = self._look()
        if any(one.user_attrs[_KEY] == key for one in claims):
            return False
        mine = self._add({_KEY: key, _BY: self._own})
        claims = [one for one in self._running() if one.user_attrs.get(_KEY) == key]
        if any(one.number < mine and one.user_attrs.get(_BY) in living for one in claims):
            self._end(mine)
            return False
        self._held[key] = mine
        return True

    def release(self, key: str) -> None:
        """Give up a claim, because the work is done or failed."""
        self._end(self._held.pop(key), left=True)

    def stale(self, keys: Iterable[str]) -> frozenset[str]:
        """Return which of some things that nobody owns have been seen for longer than the grace."""
        with self._lock:
            return self._unowned.look(dict.fromkeys(keys), now=time.monotonic())

    def pause(self, *, seconds: float | None = None) -> None:
        """Wait for a moment, until another worker may have got on."""
        # A look reads all that workers have stored: together they look no more often than few.
        if seconds is None:
            seconds = self._pace.poll_seconds * self._number_living / self._pace.few
            seconds = max(self._pace.poll_seconds, seconds)
        time.sleep(seconds)

    def _join(self) -> None:
        self._own = self._add({**self._about, _BEAT: 0})
        self._held.clear()

    def _live(self) -> None:
        """Beat until the end. Declared dead, as after a freeze of minutes, join anew."""
        while not self._over.wait(self._pace.beat_seconds):
            try:
                self._beat()
                if self._beats % max(2, self._number_living // 8) == 0:  # a look reads them all
                    self._look()
            except UpdateFinishedTrialError:
                with suppress(*STORAGE_ERRORS):
                    self._join()
            except STORAGE_ERRORS:
                continue  # the main thread meets the same error, and decides

    def _beat(self) -> None:
        self._beats += 1
        self._storage.set_trial_user_attr(self._id_of(self._own), _BEAT, self._beats)

    def _look(self) -> tuple[frozenset[int], list[FrozenTrial]]:
        """Return the living workers and their claims; end the others."""
        running = self._running()
        workers = [one for one in running if _BEAT in one.user_attrs]
        with self._lock:
            signs = {one.number: one.user_attrs[_BEAT] for one in workers}
            dead = self._watch.look(signs, now=time.monotonic()) | self._before_me(workers)
        living = frozenset(signs) - dead | {self._own}
        self._number_living = len(living)
        claims = [one for one in running if _KEY in one.user_attrs]
        lost = [one.number for one in claims if one.user_attrs.get(_BY) not in living]
        for number in (*(dead - {self._own}), *lost):
            self._end(number)
        return living, [one for one in claims if one.number not in lost]

    def _before_me(self, workers: Iterable[FrozenTrial]) -> frozenset[int]:
        """Return earlier workers of this worker's run folder, whose lock it holds now."""
        place = self._about[_PLACE]
        return frozenset(
            one.number
            for one in workers
            if place is not None and one.user_attrs.get(_PLACE) == place and one.number < self._own
        )

    def _add(self, attributes: Mapping[str, Any]) -> int:
        """Add a running trial to the study of workers, and return its number."""
        running = create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes))
        study_id = self._storage.get_study_id_from_name(self._name)
        entered = self._storage.create_new_trial(study_id, template_trial=running)
        number = self._storage.get_trial_number_from_id(entered)
        self._ids[number] = entered
        return number

    def _end(self, number: int, *, left: bool = False) -> None:
        """End a trial of the study of workers, unless somebody has."""
        state, values = (TrialState.COMPLETE, (0.0,)) if left else (TrialState.FAIL, None)
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._id_of(number), state, values)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _id_of(self, number: int) -> int:
        if number in self._ids:
            return self._ids[number]
        study_id = self._storage.get_study_id_from_name(self._name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)

    @property
    def _study(self) -> optuna.Study:
        if self._meeting is None:
            raise RuntimeError("a worker joins by a with statement")
        return self._meeting


@contextmanager
def claimed(colleagues: Colleagues, key: str) -> Iterator[None]:
    """Wait for a claim, and hold it in the block."""
    while not colleagues.take(key):
        colleagues.pause()
    try:
        yield
    finally:
        colleagues.release(key)
