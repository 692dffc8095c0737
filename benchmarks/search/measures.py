"""Hypervolumes of searches, and what seeds say of their means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from methods import Point
from numpy.typing import NDArray
from scipy.stats import kendalltau
from world import World

from dse.names import Fidelity
from dse.results.front import hypervolume, hypervolume_history, non_dominated
from dse.results.seeds import mean_interval, ratio_interval

RESAMPLES = 4000
Floats = NDArray[np.float64]


def history(world: World, points: Sequence[Point], *, limit_bytes: int | None = None) -> Floats:
    """Hypervolume after each evaluation, as a share of the reference box.

    Where means are known, the front is chosen by what was scored and measured by its means: luck
    chooses, and doesn't count.

    Args:
        world: the study's parts.
        points: in the order of their evaluations.
        limit_bytes: memory of the reference point; the unpruned network's if None.
    """
    limit = limit_bytes or world.unpruned_peak_bytes
    scored = [(point.accuracy, point.peak_bytes / limit) for point in points]
    chance = 1 / world.classes
    reference = [chance, 1.0]
    if any(point.mean is None for point in points):
        reached = hypervolume_history(scored, reference=reference, maximise=[True, False])
    else:
        settled = np.array([(point.mean, point.peak_bytes / limit) for point in points])
        reached = np.array(
            [
                hypervolume(
                    settled[:count][non_dominated(scored[:count], maximise=[True, False])],
                    reference=reference,
                    maximise=[True, False],
                )
                for count in range(1, len(points) + 1)
            ]
        )
    shares: Floats = reached / (1 - chance)
    return shares


def share(world: World, points: Sequence[Point]) -> float:
    """Hypervolume of all points together, as a share of the reference box."""
    values = [(point.accuracy, point.peak_bytes / world.unpruned_peak_bytes) for point in points]
    chance = 1 / world.classes
    return hypervolume(values, reference=[chance, 1.0], maximise=[True, False]) / (1 - chance)


def seed_noise(lines: Sequence[dict[str, str]]) -> float:
    """Standard deviation of `short` over seeds of one candidate, pooled over candidates."""
    scores: dict[str, list[float]] = {}
    for line in lines:
        if line["fidelity"] == "short":
            scores.setdefault(line["kept"], []).append(float(line["accuracy"]))
    spreads = [np.var(values, ddof=1) for values in scores.values() if len(values) > 1]
    return float(np.sqrt(np.mean(spreads)))


def with_interval(values: Floats) -> str:
    """Write a mean, and its interval where there is one."""
    ends = mean_interval(values.tolist())
    mean = f"{values.mean():.3f}"
    return mean if ends is None else f"{mean} ({ends[0]:.3f} to {ends[1]:.3f})"


def ratio(ours: Floats, others: Floats) -> dict[str, object]:
    """Ratio of two means, with a 95 % Welch interval of its logarithm."""
    ends = ratio_interval(ours.tolist(), others.tolist())
    return {
        "value": round(float(ours.mean() / others.mean()), 4),
        "interval": None if ends is None else [round(end, 4) for end in ends],
        "seeds": min(len(ours), len(others)),
    }


def gap_closed(histories: dict[str, Floats], plain: str, ceiling: float) -> float:
    """Say what share of the way from a plain sampler to the best known front is gone."""
    ours, theirs = (float(histories[name][:, -1].mean()) for name in ("dse front", plain))
    return (ours - theirs) / (ceiling - theirs)


def cost_to_reach(histories: Floats, goal: float) -> Floats:
    """Evaluations until each run reached a hypervolume; the run's length and one where never."""
    reached = histories >= goal
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, histories.shape[1] + 1).astype(
        np.float64
    )


@dataclass(frozen=True)
class Scoring:
    """A fidelity, and the seeds that are averaged over.

    Attributes:
        seed_indices: places in the study's list of seeds.
    """

    fidelity: Fidelity
    seed_indices: tuple[int, ...] = (0,)

    def of(self, lines: Sequence[dict[str, str]]) -> tuple[dict[str, float], float]:
        """Mean accuracy of each candidate that has all these seeds, and what one candidate costs.

        Args:
            lines: of a table of fidelities.
        """
        found: dict[str, dict[int, float]] = {}
        cost = 0.0
        for line in lines:
            seed_index = int(line["seed_index"])
            if line["fidelity"] == self.fidelity and seed_index in self.seed_indices:
                found.setdefault(line["kept"], {})[seed_index] = float(line["accuracy"])
                cost = int(line["images_trained"]) + int(line["images_forward"]) / 3
        count = len(self.seed_indices)
        means = {
            name: float(np.mean(list(scores.values())))
            for name, scores in found.items()
            if len(scores) == count
        }
        return means, cost * count


SHORT = Scoring("short")
FULL = Scoring("full", (0, 1, 2))


def kendall(
    lines: Sequence[dict[str, str]], first: Scoring = SHORT, second: Scoring = FULL
) -> dict[str, Any]:
    """Rank correlation of two fidelities, and what the first costs of the second.

    Args:
        lines: of a table of fidelities.
        first: the cheaper one.
        second: the dearer one.
    """
    (cheap, cost), (dear, whole) = first.of(lines), second.of(lines)
    names = [name for name in dear if name in cheap]
    if len(names) < 2:  # noqa: PLR2004  # nothing to rank
        raise ValueError(f"fewer than two candidates have {first} and {second}: run fidelity.py")
    pairs = np.array([(cheap[name], dear[name]) for name in names])
    rng = np.random.default_rng(0)
    taus = []
    for _ in range(RESAMPLES):
        some = pairs[rng.integers(0, len(names), len(names))]
        taus.append(kendalltau(some[:, 0], some[:, 1]).statistic)
    low, high = np.quantile([tau for tau in taus if np.isfinite(tau)], [0.025, 0.975])
    return {
        "value": round(float(kendalltau(pairs[:, 0], pairs[:, 1]).statistic), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "seeds": len(second.seed_indices),
        "candidates": len(names),
        "cost_share": round(cost / whole, 3),
    }
