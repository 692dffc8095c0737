"""Contenders that the seeds can't tell apart; the smallest of them is preferred.

Reports compare finalists on the validation part alone (`dse.results.ties`). Here a difference on
the selection part, by which contenders are ranked, rules a tie out, too.
"""

from collections.abc import Sequence

from dse.deploy.contenders import Contender
from dse.results.seeds import differ


def tied(first: Contender, second: Contender) -> bool | None:
    """Whether Welch's test (5 %) finds no difference, neither in selection nor in shown figures.

    The selection part is what contenders are ranked on; a difference on the validation part can
    only prevent a tie.

    Returns:
        None if no test is possible (see `dse.results.seeds.differ`).
    """
    verdicts = (
        differ(first.selection_figures, second.selection_figures),
        differ(first.figures, second.figures),
    )
    if True in verdicts:
        return False
    return None if None in verdicts else True


def tied_with(leader: Contender, others: Sequence[Contender]) -> tuple[Contender, ...] | None:
    """Return the contenders that are tied with the most accurate one, smallest peak first.

    Args:
        leader: the most accurate contender.
        others: contenders of the same fidelity; the leader among them is passed over.

    Returns:
        None if there are others, but no test against any is possible.
    """
    digest = leader.candidate.digest
    verdicts = [(one, tied(leader, one)) for one in others if one.candidate.digest != digest]
    if verdicts and all(verdict is None for _, verdict in verdicts):
        return None
    found = [one for one, verdict in verdicts if verdict]
    return tuple(sorted(found, key=lambda one: (one.peak_bytes, -one.selection_accuracy)))
