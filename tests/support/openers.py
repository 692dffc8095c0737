"""A script: several processes open one fresh storage at the same moment, each with its study.

Usage: openers.py COUNT URL... ; prints one line for each process: "done", or what it raised.
"""

import multiprocessing
import sys
from typing import Any

import optuna

from dse.search.storage import close_storage, open_storage


def open_one(url: str, barrier: Any, ended: Any) -> None:
    barrier.wait()
    try:
        storage = open_storage(url)
        study = optuna.create_study(study_name="one", storage=storage, load_if_exists=True)
        study.set_user_attr("frame", {"groups": 3})
        study.ask()
        close_storage(storage)
    except Exception as error:  # noqa: BLE001
        ended.put(f"{type(error).__name__}: {error}".splitlines()[0])
    else:
        ended.put("done")


def main(count: int, urls: list[str]) -> None:
    forked = multiprocessing.get_context("fork")
    for url in urls:
        barrier, ended = forked.Barrier(count), forked.Queue()
        workers = [
            forked.Process(target=open_one, args=(url, barrier, ended)) for _ in range(count)
        ]
        for worker in workers:
            worker.start()
        for _ in workers:
            sys.stdout.write(f"{ended.get()}\n")
        for worker in workers:
            worker.join()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.load_study(study_name="one", storage=open_storage(url))
        numbers = [trial.number for trial in study.get_trials(deepcopy=False)]
        sys.stdout.write(f"{numbers == list(range(count))}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
