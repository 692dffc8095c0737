"""Depth as a dimension of a search: which residual blocks a candidate lacks."""

from collections.abc import Callable, Sequence

from dse.config import JointConfig
from dse.config.fields import canonical_blocks
from dse.errors import NetworkError
from dse.names import WHOLE_DEPTH, dropped
from dse.sampling.joint import JointChoice

_SHARES = (1 / 4, 1 / 2)  # of the blocks that can be left out


def depth_choice(
    joint: JointConfig | None,
    *,
    stages: Callable[[], Sequence[Sequence[str]]],
    vanishing: Callable[[str], frozenset[str]],
) -> tuple[JointChoice, ...]:
    """Return the dimension of a study's joint space that leaves blocks out; none if none may be.

    Args:
        joint: The study's joint space.
        stages: Returns the names of the blocks that can be left out, stage by stage.
        vanishing: Returns the channel groups that the network lacks without some blocks.

    Raises:
        NetworkError: If the network has no block that can be left out.
        PruningError: If a listed block can't be left out.
    """
    if joint is None or not (joint.depth or joint.drop):
        return ()
    values = joint.drop or usual_sets(stages())
    if not values:
        raise NetworkError(
            "space.joint.depth: the network has no residual block that can be left out "
            "(dse memory NETWORK --explain says why): take it out"
        )
    every = (WHOLE_DEPTH, *values)
    return (
        JointChoice(
            "drop",
            every,
            changes=({}, *({"drop": value} for value in values)),
            features=_features([dropped(value) for value in ("", *values)]),
            gone=(frozenset(), *map(vanishing, values)),
        ),
    )


def usual_sets(stages: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return sets of a quarter and of half of the blocks, each within the next.

    One block after another is taken from the end of the stage that has most left, so that all
    stages lose about the same share, the later one first.

    Args:
        stages: Names of the blocks, stage by stage.
    """
    left, order = [list(stage) for stage in stages], []
    while any(left):
        order.append(max(reversed(left), key=len).pop())
    counts = dict.fromkeys(round(share * len(order)) or 1 for share in _SHARES if order)
    return tuple(canonical_blocks(",".join(order[:count])) for count in counts)


def _features(sets: Sequence[Sequence[str]]) -> tuple[tuple[float, ...], ...]:
    """Describe sets of blocks by the blocks in them; those in the same sets count once."""
    names = dict.fromkeys(name for one in sets for name in one)
    columns = dict.fromkeys(tuple(float(name in one) for one in sets) for name in names)
    return tuple(zip(*columns, strict=True))
