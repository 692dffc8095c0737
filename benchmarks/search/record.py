"""Evaluate candidates of a study, and keep what they scored.

    python benchmarks/search/record.py [--study digits] [--minutes 90] [--set data.root=...]

Appends one line an evaluation to the study's table (digits.csv or cifar4.csv beside this file), at
fidelity `short` with the study's own seeds, and goes on where it stopped: every source is drawn
anew from its seed and given the results in the table. Sources take turns, so that the table is
balanced whenever this ends. One thread, so that two runs of one candidate score the same to the
last bit.
The study cifar4 needs the paths of its images and weights (see cifar4.toml).
"""

import argparse
import time
from pathlib import Path

import torch
from recorded import STUDIES, Row, append, key_of, read, table_of
from sources import sources
from world import Evaluators, load_world


def main() -> None:
    """Record until the time is over or every source is exhausted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--study", choices=STUDIES, default="digits")
    parser.add_argument("--set", nargs="*", default=[], help="settings, as for dse run")
    parser.add_argument("--table", type=Path, help="another than the study's own")
    parser.add_argument("--only", nargs="*", help="names of sources; all if left out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = load_world(arguments.study, overrides=arguments.set)
    table = arguments.table or table_of(arguments.study)
    evaluators = Evaluators(world)
    known = {key_of(row.kept): row for row in read(table, world)}
    deadline = time.monotonic() + 60 * arguments.minutes
    left = [one for one in sources(world) if not arguments.only or one.name in arguments.only]
    turn = 0
    while left and time.monotonic() < deadline:
        for source in [one for one in left if one.count > turn]:
            kept = source.ask()
            row = known.get(key_of(kept))
            if row is None:
                started = time.process_time()
                evaluation = evaluators.proxy.evaluate(world.candidate(kept), fidelity="short")
                row = Row(
                    source=source.name,
                    kept=kept,
                    peak_bytes=world.peak_bytes(kept),
                    accuracy=evaluation.accuracy,
                    loss=evaluation.loss,
                    images_trained=evaluation.images_trained,
                    images_forward=evaluation.images_forward,
                    cpu_seconds=time.process_time() - started,
                )
                append(table, row, world)
                known[key_of(kept)] = row
            source.tell(row.accuracy, row.peak_bytes)
            if time.monotonic() >= deadline:
                break
        turn += 1
        left = [one for one in left if one.count > turn]
    print(f"{len(known)} candidates in {table}")


if __name__ == "__main__":
    main()
