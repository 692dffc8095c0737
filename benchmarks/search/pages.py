"""The comparison as a page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from interpolated import Interpolation
from measures import (
    FULL,
    SHORT,
    Floats,
    Scoring,
    cost_to_reach,
    gap_closed,
    kendall,
    share,
    with_interval,
)
from methods import Point
from recorded import Row
from sources import UNIFORM
from world import World

OWN = ("proposed", "proposed, aimed")
"""Sources that are the search's own, whose baselines count as evaluations."""

_HEAD = """# Searches at equal cost, on recorded candidates

Rewritten by `make bench-search`. {description}: batch {batch}, {optimizer}, scheme `{scheme}`,
fidelity `short` ({epochs:g} epochs), with the whole range of memory for a budget ({peak:.1f} MiB,
convention `tensors`). Every evaluation costs {cost:.0f} images (those trained, and a third of those
only passed forward; {training:.1f} s of CPU time on average). The {baselines} baselines of `dse`
are counted; `plain` trains every draw, with Optuna's defaults over the same ranges. Hypervolume as
a share of the box between the reference (unpruned peak, chance) and the ideal; means over seeds
with 95 % t intervals. A front is chosen by what was scored and measured by what its members would
score on average (the interpolation without its noise), so that luck doesn't count.
Optuna's NSGA-II draws its first 50 candidates at random, and TPE its first 10.
"""

_GATE = """
## Within a budget: what the gate is worth

The same for a device of {budget:.0f} MiB: hypervolume as a share of the box up to that budget. With
the gate off, what is over the budget is trained, and what was trained before counts as one more
evaluation, both as for `plain`. A search that ends early, 300 draws in a row having been too
large or known, stays where it was.

| method | seeds | after a quarter | at the end |
| :--- | ---: | ---: | ---: |
{rows}
"""

_REAL = """
## Trained, not interpolated

The same comparison with real training at fidelity `short`, one seed each, from the recorded lines:
hypervolume after as many evaluations as every one of them made.

"""

_FIDELITIES = """
## How fidelities rank

Over {candidates} candidates spread along the recorded front, Kendall's tau with 95 % bootstrap
intervals over candidates. `full` is what it is in a run: the mean over three seeds. The output
layer is new, so that `calibrate` scores by chance and can't be a rung. The last rows are a
yardstick: what another seed alone changes.

| | candidates | tau | cost of the first |
| :--- | ---: | ---: | ---: |
{rows}
"""

_TAIL = """
The last columns: evaluations until the better plain sampler's final hypervolume, and the time of a
whole search without its trainings. Best known front (all that was recorded or that any method
found, on average): {ceiling:.3f}. The baselines alone, the first {baselines} evaluations of every
`dse` line: {first:.3f}. Of the gap between a plain sampler and the best known front, `dse front`
closes {nsga2:.0f} % (NSGA-II) and {tpe:.0f} % (TPE).

![Hypervolume against cost]({picture})

## How far to trust it

{count} candidates were really trained ({sources}). Between them accuracy is the mean of a
support-vector and an extra-trees regressor, neither of which the search uses itself, plus noise
with the standard deviation that another seed makes ({noise:.3f}). Fitted on one half and judged
on the other, {half} rows each, ten times: RMSE {rmse:.3f} (the noise of one training included),
Kendall's tau {kendall:.2f}, bias {bias:+z.3f}; over the tenth that is most accurate for its
memory the bias is {front_bias:+z.3f}, in part the luck of those trainings, in part that the best is
understated.
"""


def page(
    world: World,
    rows: Sequence[Row],
    interpolation: Interpolation,
    histories: dict[str, Floats],
    *,
    within_budget: tuple[int, dict[str, Floats]],
    seconds: dict[str, list[float]],
    cost: float,
    ceiling: float,
    goal: float,
    lines: Sequence[dict[str, str]],
    picture: str,
) -> str:
    """Write the page.

    Args:
        world: the study's parts.
        rows: what was recorded.
        interpolation: what lies between.
        histories: hypervolumes of each method, (seeds, evaluations).
        within_budget: bytes, and hypervolumes within them.
        seconds: CPU time of each search, training left out.
        cost: of one evaluation.
        ceiling: hypervolume of the best known front.
        goal: what plain Optuna reaches.
        lines: of the table of fidelities.
        picture: name of the figure.
    """
    study = world.study
    baselines = 1 + len(world.study.search.uniform_baselines)
    head = _HEAD.format(
        description=study.description,
        batch=study.training.batch_size,
        optimizer=study.training.optimizer,
        scheme=study.training.scheme,
        epochs=study.proxy.short_epochs,
        peak=world.unpruned_peak_bytes / 2**20,
        cost=cost,
        baselines=baselines,
        training=np.mean([row.cpu_seconds for row in rows]),
    )
    counts = Counter(row.source for row in rows)
    tail = _TAIL.format(
        picture=picture,
        ceiling=ceiling,
        baselines=baselines,
        first=float(histories["dse front"][:, baselines - 1].mean()),
        nsga2=100 * gap_closed(histories, "plain nsga2", ceiling),
        tpe=100 * gap_closed(histories, "plain tpe", ceiling),
        count=len(rows),
        half=len(rows) // 2,
        sources=", ".join(f"{count} {name}" for name, count in counts.items()),
        noise=interpolation.noise,
        **asdict(interpolation.errors),
    )
    table = "\n".join(_table(histories, seconds, ceiling=ceiling, goal=goal))
    budget, tight = within_budget
    gate = _GATE.format(budget=budget / 2**20, rows="\n".join(_gate_table(tight)))
    real = "\n".join(_real_table(world, rows))
    return f"{head}\n{table}\n{tail}{gate}{_REAL}{real}\n{_fidelities(lines)}"


def _table(
    histories: dict[str, Floats],
    seconds: dict[str, list[float]],
    *,
    ceiling: float,
    goal: float,
) -> list[str]:
    evaluations = next(iter(histories.values())).shape[1]
    marks = [count for count in (25, 50, evaluations) if count <= evaluations]
    titles = " | ".join(f"after {mark}" for mark in marks)
    lines = [
        f"| method | seeds | {titles} | of best known | to {goal:.3f} | search (CPU s) |",
        "| :--- | ---: | " + " | ".join("---:" for _ in marks) + " | ---: | ---: | ---: |",
    ]
    for name, runs in sorted(histories.items(), key=lambda one: -one[1][:, -1].mean()):
        cells = [with_interval(runs[:, mark - 1]) for mark in marks]
        best = f"{100 * runs[:, -1].mean() / ceiling:.1f} %"
        reach = _reach(cost_to_reach(runs, goal), evaluations)
        spent = f"{np.mean(seconds[name]):.0f}"
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} | {best} | {reach} | {spent} |")
    return lines


def _gate_table(histories: dict[str, Floats]) -> list[str]:
    lines = []
    for name, runs in sorted(histories.items(), key=lambda one: -one[1][:, -1].mean()):
        middle = runs[:, runs.shape[1] // 4 - 1].mean()
        lines.append(f"| {name} | {len(runs)} | {middle:.3f} | {with_interval(runs[:, -1])} |")
    return lines


def _fidelities(lines: Sequence[dict[str, str]]) -> str:
    rows = []
    for title, cheap, dear in (
        ("`calibrate` with `short`", Scoring("calibrate"), SHORT),
        ("`short` with `full`", SHORT, FULL),
        ("`short`, two seeds, with `full`", Scoring("short", (0, 1)), FULL),
        ("`short` with `short` of another seed", SHORT, Scoring("short", (1,))),
        ("`full` of one seed with `full` of two others", Scoring("full"), Scoring("full", (1, 2))),
    ):
        tau = kendall(lines, cheap, dear)
        low, high = tau["interval"]
        rows.append(
            f"| {title} | {tau['candidates']} | {tau['value']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {100 * tau['cost_share']:.0f} % |"
        )
    candidates = kendall(lines)["candidates"]
    return _FIDELITIES.format(candidates=candidates, rows="\n".join(rows))


def _real_table(world: World, rows: Sequence[Row]) -> list[str]:
    """Hypervolumes of what was really trained, by source."""
    uniform = {world.space.uniform(ratio).kept(world.space.choices) for ratio in UNIFORM}
    baselines = [row for row in rows if row.kept in uniform]
    runs: dict[str, list[Row]] = {}
    for row in rows:
        if row.kept not in uniform:
            runs.setdefault(row.source, list(baselines) if row.source in OWN else []).append(row)
    count = min(len(runs[name]) for name in (*OWN, "plain tpe", "plain nsga2") if name in runs)
    shares = {
        name: share(world, [Point(row.peak_bytes, row.accuracy, 0.0) for row in run[:count]])
        for name, run in runs.items()
        if len(run) >= count
    }
    return [
        f"| source | after {count} evaluations |",
        "| :--- | ---: |",
        *(f"| {name} | {shares[name]:.3f} |" for name in sorted(shares, key=lambda n: -shares[n])),
    ]


def _reach(spent: Floats, evaluations: int) -> str:
    """Say after how many evaluations a goal was reached, on average."""
    never = int((spent > evaluations).sum())
    if never == len(spent):
        return "never"
    mean = float(np.minimum(spent, evaluations).mean())
    return f"over {mean:.0f} ({never} never)" if never else f"{mean:.0f}"
