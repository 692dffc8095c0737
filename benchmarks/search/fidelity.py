"""How well does `short` rank candidates, and how much does a seed matter?

    python benchmarks/search/fidelity.py [--study digits] [--minutes 30] [--count 32] [--set ...]

Takes candidates spread along the front of the study's recorded table, scores each at `short` (every
second one with two seeds) and at `full` with the study's three seeds, and appends to the study's
table of fidelities; goes on where it stopped. Candidates stay those of that table, so that a longer
recorded one does not change them. One thread.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from recorded import STUDIES, Row, fidelity_table_of, key_of, read, table_of
from world import Evaluators, load_world

_FIELDS = (
    "kept",
    "peak_bytes",
    "fidelity",
    "seed_index",
    "accuracy",
    "images_trained",
    "images_forward",
    "cpu_seconds",
)


def main() -> None:
    """Score until everything is or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--study", choices=STUDIES, default="digits")
    parser.add_argument("--set", nargs="*", default=[], help="settings, as for dse run")
    parser.add_argument("--only", nargs="*", help="fidelities such as short or full:2")
    parser.add_argument("--table", type=Path, help="another than the study's own")
    parser.add_argument("--recorded", type=Path, help="another than the study's own")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = load_world(arguments.study, overrides=arguments.set)
    table = arguments.table or fidelity_table_of(arguments.study)
    recorded = arguments.recorded or table_of(arguments.study)
    evaluators = Evaluators(world)
    deadline = time.monotonic() + 60 * arguments.minutes
    done = read_fidelity(table)
    names = list(dict.fromkeys(line["kept"] for line in done))
    for row in spread(read(recorded, world), arguments.count):
        if len(names) < arguments.count and key_of(row.kept) not in names:
            names.append(key_of(row.kept))
    known = {(line["kept"], line["fidelity"], int(line["seed_index"])) for line in done}
    plan = [
        ("calibrate", 0, names),
        ("short", 0, names),
        ("short", 1, names[::2]),
        *(("full", seed_index, names) for seed_index in range(world.study.proxy.full_seeds)),
    ]
    if arguments.only:
        plan = [one for one in plan if {one[0], f"{one[0]}:{one[1]}"} & set(arguments.only)]
    for fidelity, seed_index, some in plan:
        for name in some:
            if (name, fidelity, seed_index) in known:
                continue
            if time.monotonic() >= deadline:
                return
            kept = tuple(map(int, name.split()))
            started = time.process_time()
            evaluation = evaluators.proxy.evaluate(
                world.candidate(kept), fidelity=fidelity, seed_index=seed_index
            )
            _append(
                table,
                (
                    name,
                    world.peak_bytes(kept),
                    fidelity,
                    seed_index,
                    f"{evaluation.accuracy:.6f}",
                    evaluation.images_trained,
                    evaluation.images_forward,
                    f"{time.process_time() - started:.3f}",
                ),
            )


def read_fidelity(path: Path) -> list[dict[str, str]]:
    """Read what was scored."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def spread(rows: list[Row], count: int) -> list[Row]:
    """Choose candidates near the front, evenly over the logarithm of memory."""
    logs = np.log([row.peak_bytes for row in rows])
    chosen: list[Row] = []
    width = (logs.max() - logs.min()) / count
    for place in logs.min() + width * (np.arange(count) + 0.5):
        near = [row for row, log in zip(rows, logs, strict=True) if abs(log - place) <= width / 2]
        near = [row for row in near if row not in chosen]
        if near:
            chosen.append(max(near, key=lambda row: row.accuracy))
    return chosen


def _append(path: Path, line: tuple[object, ...]) -> None:
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(_FIELDS)
        writer.writerow(line)


if __name__ == "__main__":
    main()
