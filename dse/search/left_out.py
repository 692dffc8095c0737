"""Failed baselines and finalists, stored with their reasons."""

from dse.candidate import Candidate
from dse.errors import TrainingError
from dse.results.candidate_records import FailureRecord
from dse.results.trials import FAILED
from dse.search.session import Session


def note_failure(
    session: Session, what: str, label: str, candidate: Candidate, error: TrainingError
) -> None:
    """Store a failed baseline or finalist with its reason, and notify the observer.

    Args:
        session: the run's session.
        what: "baseline" or "finalist".
        label: its label.
        candidate: the candidate that could not be trained.
        error: the reason.
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
    """Remove what `note_failure` stored, after the training succeeded in the end."""
    key = _key(what, label)
    if session.archive.user_attrs.get(key) is not None:
        session.archive.set_user_attr(key, None)  # an attribute can't be deleted


def _key(what: str, label: str) -> str:
    return f"{FAILED}{what}:{label}"
