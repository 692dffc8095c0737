"""Several workers on one study: every training once, and no more trials than it wants."""

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from dse.config import Study
from dse.results.records import RunRecords
from dse.search.joining import Joining
from dse.search.progress import Silent
from dse.search.study import carry_out
from dse.search.workers import Pace
from support.searches import TRAINED, Formula, resolver, tiny_study

FAST = Pace(beat_seconds=0.1, grace_seconds=2.0, poll_seconds=0.02)


def share(folder: Path, study: Study, *, workers: int, storage: str) -> list[RunRecords]:
    """Let several workers, each with a run folder of its own, work on one study."""
    found: list[RunRecords] = []

    def work(number: int) -> None:
        evaluator = Formula(folder / TRAINED, before=lambda _count: time.sleep(0.02))
        records = carry_out(
            study,
            out=folder / str(number),
            storage=storage,
            observer=Silent(),
            resolve=resolver(lambda: evaluator),
            joining=Joining(pace=FAST),
        )
        found.append(records)

    threads = [threading.Thread(target=work, args=(one,)) for one in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("url", ["sqlite:///{}/shared.db"])
def test_workers_train_each_candidate_once_and_end_with_equal_results(
    tmp_path: Path, url: str
) -> None:
    study = tiny_study(trials=8, finalists=2)
    found = share(tmp_path, study, workers=3, storage=url.format(tmp_path))
    assert len(found) == 3
    trained = Counter((tmp_path / TRAINED).read_text(encoding="utf-8").split())
    assert max(trained.values()) == 1, trained
    for records in found:
        assert len([one for one in records.complete if one.baseline is None]) == 8
        assert records.lost_trials == 0
        assert [one.label for one in records.baselines] == ["unpruned", "uniform 0.50"]
        assert len(records.finals) == 3
        assert [one.candidate for one in records.finals] == [
            one.candidate for one in found[0].finals
        ]
