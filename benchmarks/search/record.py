"""Evaluate candidates of the digits study, and keep what they scored.

    python benchmarks/search/record.py [--minutes 90] [--table digits.csv]

Appends one line an evaluation to the table, at fidelity `short` with the study's own seeds, and
goes on where it stopped: every source is drawn anew from its seed and told what the table knows.
Sources take turns, so that the table is balanced whenever this ends. One thread, so that two runs
of one candidate score the same to the last bit.
"""

import argparse
import time
from pathlib import Path

import torch
from recorded import TABLE, Row, append, key_of, read
from sources import sources
from world import Evaluators, load_world


def main() -> None:
    """Record until the time is over or every source is exhausted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--only", nargs="*", help="names of sources; all if left out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = load_world()
    evaluators = Evaluators(world)
    known = {key_of(row.kept): row for row in read(arguments.table, world)}
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
                append(arguments.table, row, world)
                known[key_of(kept)] = row
            source.tell(row.accuracy, row.peak_bytes)
            if time.monotonic() >= deadline:
                break
        turn += 1
        left = [one for one in left if one.count > turn]
    print(f"{len(known)} candidates in {arguments.table}")


if __name__ == "__main__":
    main()
