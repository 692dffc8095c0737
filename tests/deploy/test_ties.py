"""Ties of contenders: only over several seeds, and never against a difference in either part."""

from dataclasses import replace

from dse.deploy.contenders import Contender, pools
from dse.deploy.ties import tied, tied_with
from support.runs import make_records

ONE = next(iter(pools(make_records(finals=4)))).contenders[0]
LOW, HIGH, NEAR = (0.80, 0.81, 0.82), (0.90, 0.91, 0.92), (0.895, 0.91, 0.915)


def contender(kept: int, selection: tuple[float, ...], shown: tuple[float, ...]) -> Contender:
    return replace(
        ONE,
        label=f"trial {kept}",
        trial=kept,
        candidate=ONE.candidate.with_channels({"stem": kept}),
        peak_bytes=kept,
        selection_accuracy=sum(selection) / len(selection),
        selection_figures=selection,
        figures=shown,
    )


def test_a_tie_needs_both_parts_and_several_seeds() -> None:
    first = contender(1, HIGH, HIGH)
    assert tied(first, contender(2, NEAR, NEAR)) is True
    assert tied(first, contender(2, NEAR, LOW)) is False
    assert tied(first, contender(2, LOW, NEAR)) is False
    assert tied(first, contender(2, (0.9,), (0.9,))) is None


def test_the_tied_are_named_smallest_first() -> None:
    leader = contender(9, HIGH, HIGH)
    others = [contender(7, NEAR, NEAR), contender(5, LOW, LOW), contender(3, NEAR, NEAR)]
    found = tied_with(leader, [leader, *others])
    assert found is not None
    assert [one.label for one in found] == ["trial 3", "trial 7"]
    assert tied_with(leader, [leader]) == ()
    assert tied_with(leader, [leader, contender(3, (0.9,), (0.9,))]) is None
