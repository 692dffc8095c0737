"""Baselines and finalists that failed, kept with their reasons."""

from dse.candidate import Candidate
from dse.errors import TrainingError
from dse.results.records import FailureRecord
from dse.results.trials import FAILED
from dse.search.session import Session


def note_failure(
    session: Session, what: str, label: str, candidate: Candidate, error: TrainingError
) -> None:
    """Keep a failed baseline or finalist with its reason, and tell the observer.

    Args:
        session: of the run.
        what: "baseline" or "finalist".
        label: of it.
        candidate: that could not be trained.
        error: why.
    """
    record = FailureRecord(
        label=label,
        what=what,
        candidate=candidate,
        peak_bytes=session.costs.peak_bytes(candidate),
        reason=str(error),
    )
    session.archive.set_user_attr(_key(what, label), record.to_json())
    session.observer.on_message(
        f"{what} {label} failed and is left out: {error} (tried again when the run goes on)"
    )


def forget_failure(session: Session, what: str, label: str) -> None:
    """Drop what `note_failure` kept, once the training succeeded after all."""
    key = _key(what, label)
    if session.archive.user_attrs.get(key) is not None:
        session.archive.set_user_attr(key, None)  # an attribute can't be deleted


def _key(what: str, label: str) -> str:
    return f"{FAILED}{what}:{label}"
