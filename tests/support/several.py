"""Made-up runs of several methods and seeds, to compare."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dse.results.records import RunRecords
from support.runs import make_records, make_study


def made_run(
    *, seed: int = 0, luck: int = 0, folder: str | None = None, finals: int = 5, **search: Any
) -> RunRecords:
    """A made-up run of a study seed; `luck` draws other candidates, `search` changes its table."""
    study = make_study()
    study = study.model_copy(
        update={"seed": seed, "search": study.search.model_copy(update=search)}
    )
    records = make_records(study=study, seed=seed + luck, trials=study.search.trials, finals=finals)
    name = folder or f"{study.search.sampler}-{seed}"
    print_of = {"network": "0123", "data.labels": ["5", "6"], "data images": [60, 20, 40]}
    return replace(records, folder=Path("runs") / name, fingerprint=print_of)


def two_methods(*, seeds: int = 4) -> list[RunRecords]:
    """Runs of two samplers that know nothing of each other's candidates."""
    ours = [made_run(seed=seed, sampler="front") for seed in range(seeds)]
    return ours + [made_run(seed=seed, luck=100, sampler="tpe") for seed in range(seeds)]
