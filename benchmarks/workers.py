"""Many workers on one study: how much faster than one, and whether a trial is lost or repeated.

    PYTHONPATH=tests python benchmarks/workers.py --workers 16 --through postgresql
    PYTHONPATH=tests python benchmarks/workers.py --workers 64 --through grpc

The workers are processes on this machine that do all that `dse run` does but train: each training
is a sleep of 3 s, so that more workers than cores can be watched. They meet in a PostgreSQL server
of their own on the loopback interface (which must be installed), or in Optuna's gRPC proxy in front
of it. Prints a row of the table in docs/distributed.md.
"""

import argparse
import math
import multiprocessing
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optuna.storages import get_storage, run_grpc_proxy_server

from dse.candidate import Candidate
from dse.errors import DseError
from dse.finetune.evaluation import Evaluation
from dse.search.joining import Joining
from dse.search.load import load_run
from dse.search.progress import Silent
from dse.search.storage import open_storage
from dse.search.study import carry_out
from support.postgres import free_port, running_server
from support.searches import TRAINED, Formula, memory_model, resolver, tiny_study

SECONDS = 3.0
FORKED = multiprocessing.get_context("fork")  # what is imported is shared by all workers


class Asleep(Formula):
    """Sleeps in place of training, and notes when."""

    def __init__(self, folder: Path) -> None:
        """Note in a file of this process."""
        super().__init__(folder / TRAINED)
        self.times = folder / f"times-{os.getpid()}"

    def evaluate(self, candidate: Candidate, **settings: object) -> Evaluation:
        """Sleep."""
        key = f"{candidate.digest}:{settings['fidelity']}:{settings.get('seed_index', 0)}"
        self.note("begins", key)
        time.sleep(SECONDS)
        found = super().evaluate(candidate, **settings)
        self.note("ends", key)
        return found

    def note(self, event: str, key: str) -> None:
        """Write a line."""
        with self.times.open("a", encoding="utf-8") as file:
            file.write(f"{time.monotonic():.3f} {event} {key}\n")


def main() -> None:
    """Measure one number of workers, and one worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--trials", type=int, help="[6 for each worker]")
    parser.add_argument("--alone", type=int, default=8, help="trials of one worker, 0 for none")
    parser.add_argument("--through", choices=("postgresql", "grpc"), default="postgresql")
    arguments = parser.parse_args()
    memory_model()  # compiled once, for all
    with running_server() as server, tempfile.TemporaryDirectory() as name:
        place = Path(name)
        alone = math.nan
        if arguments.alone:
            alone = rate(place / "one", server.create("one"), workers=1, trials=arguments.alone)[0]
        trials = arguments.trials or 6 * arguments.workers
        with served(server.create("many"), through=arguments.through) as url:
            together, repeated, missing, failed = rate(
                place / "many", url, workers=arguments.workers, trials=trials
            )
    print(
        f"| {arguments.workers} | {arguments.through} | {trials} | {together:.2f} | "
        f"{together / alone:.1f} | {missing} | {repeated} | {failed} |"
    )


@contextmanager
def served(url: str, *, through: str) -> Iterator[str]:
    """Yield the URL that workers are given."""
    if through == "postgresql":
        yield url
        return
    open_storage(url)  # with its tables
    port = free_port()
    proxy = FORKED.Process(target=serve, args=(url, port), daemon=True)
    proxy.start()
    try:
        await_port(port)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.join()


def await_port(port: int) -> None:
    """Wait until somebody listens on a port."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)


def serve(url: str, port: int) -> None:
    """Run the proxy, as docs/distributed.md does."""
    run_grpc_proxy_server(get_storage(open_storage(url)), host="127.0.0.1", port=port)


def rate(folder: Path, url: str, *, workers: int, trials: int) -> tuple[float, int, int, int]:
    """Run a study; return trials per second, repeated and missing trainings, and failed workers.

    The seconds run from the start of the search's first training to the end of its last.
    """
    folder.mkdir()
    processes = [
        FORKED.Process(target=work, args=(folder, number, url, trials)) for number in range(workers)
    ]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    events = [
        line.split()
        for path in folder.glob("times-*")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    begun = Counter(key for _, event, key in events if event == "begins")
    records = load_run(folder / "0", storage=url)
    known = {one.candidate.digest for one in records.complete if one.baseline is None}
    # The search alone: what follows it, more seeds of a few candidates, is no trial.
    of_search = {f"{digest}:short:0" for digest in known}
    when = {
        event: [float(at) for at, what, key in events if what == event and key in of_search]
        for event in ("begins", "ends")
    }
    seconds = max(when["ends"]) - min(when["begins"])
    repeated = sum(begun.values()) - len(begun)
    failed = sum(one.exitcode != 0 for one in processes)
    return trials / seconds, repeated, trials - len(known), failed


def work(folder: Path, number: int, url: str, trials: int) -> None:
    """Run one worker."""
    try:
        carry_out(
            tiny_study(sampler="front", trials=trials, finalists=1),
            out=folder / str(number),
            storage=url,
            observer=Silent(),
            resolve=resolver(lambda: Asleep(folder)),
            joining=Joining(),
        )
    except DseError as error:
        print(f"worker {number}: {error}", flush=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
