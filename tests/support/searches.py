"""Searches over a small real network whose candidates are scored by a formula, not by training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dse.candidate import Candidate
from dse.config import (
    BaselinesConfig,
    DataConfig,
    NetworkConfig,
    ProxyConfig,
    ReferenceConfig,
    SearchConfig,
    SpaceConfig,
    Study,
    TrainingConfig,
)
from dse.data.summary import DataSummary, PartSummary
from dse.finetune.evaluation import Evaluation
from dse.finetune.rung import Rung
from dse.memory.model import MemoryModel
from dse.names import Fidelity
from dse.results.candidate_records import TrialRecord
from dse.results.records import RunRecords
from dse.sampling.search_space import SearchSpace
from dse.search.costs import Costs
from dse.search.progress import Observer, Phase, Progress, Silent
from dse.search.resolve import Resolve, Resolved
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder
from dse.search.study import carry_out
from dse.tasks.task import plain_task
from support.networks import Residual

CLASSES = 3
DATA = DataSummary(
    name="digits",
    labels=("1", "2", "3"),
    classes=CLASSES,
    parts=tuple(
        PartSummary(name=name, origin="made up", per_label=(count,) * CLASSES)
        for name, count in (("train", 60), ("selection", 20), ("validation", 40))
    ),
)
SIZE = 12
BATCH = 8
KIB = 1024
TRAINED = "trained.txt"  # in the run folder's parent: one line for each training that ended

_models: dict[str, MemoryModel] = {}


def memory_model(mode: str = "training") -> MemoryModel:
    """The memory model of the small network, compiled once."""
    if mode not in _models:
        torch.manual_seed(0)
        network = Residual(width=16, classes=CLASSES)
        example = torch.zeros(2, 3, SIZE, SIZE)
        _models[mode] = MemoryModel.compile(network, example, mode=mode)  # type: ignore[arg-type]
    return _models[mode]


def tiny_study(**search: Any) -> Study:
    """A study of the small network: about half of all random draws fit the larger budget."""
    fixed = {
        "sampler": "tpe",
        "trials": 6,
        "budgets": (200 * KIB, 320 * KIB),
        "uniform_baselines": (0.5,),
        "repeats": 0,
        "full_baselines": False,
    }
    return Study(
        name="tiny",
        source_dir=Path("/nowhere"),
        network=NetworkConfig(name="support.networks:Residual"),
        data=DataConfig(name="digits", labels=("1", "2", "3")),
        space=SpaceConfig(ratio=(0.0, 0.9)),
        baselines=BaselinesConfig(methods=("uniform",)),
        proxy=ProxyConfig(short_epochs=1.0, full_epochs=2.0, full_seeds=2),
        reference=ReferenceConfig(tune=False),
        search=SearchConfig(**{**fixed, "finalists": 2, **search}),
    )


class Formula:
    """An evaluator whose accuracy follows from the channels kept; it writes down what it trains."""

    def __init__(self, log: Path, *, before: Callable[[int], None] = lambda _count: None) -> None:
        self.log = log
        self.before = before
        self.count = 0

    def evaluate(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        on_progress: Callable[[float], None] | None = None,
        rung: Rung | None = None,
    ) -> Evaluation:
        self.count += 1
        self.before(self.count)
        if on_progress is not None:
            on_progress(0.5)
        at_rung = None if rung is None else formula(candidate) / 2
        if rung is not None and at_rung is not None and not rung.judge(at_rung):
            return self._stopped(candidate, at_rung)
        accuracy = formula(candidate) + (0.02 if fidelity == "full" else 0.0) - 0.001 * seed_index
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{candidate.digest}:{fidelity}:{seed_index}\n")
        return Evaluation(
            candidate_digest=candidate.digest,
            fidelity=fidelity,
            seed=1000 + seed_index,
            accuracy=accuracy,
            validation_accuracy=accuracy - 0.01 if read_validation else None,
            loss=1 - accuracy,
            wall_seconds=2.0,
            step_seconds=0.01,
            images_trained=100,
            images_forward=50,
            rung_accuracy=at_rung,
        )

    def under(self, _study: Study) -> "Formula":
        return self

    def _stopped(self, candidate: Candidate, at_rung: float) -> Evaluation:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{candidate.digest}:stopped:0\n")
        return Evaluation(
            candidate_digest=candidate.digest,
            fidelity="short",
            seed=1000,
            accuracy=at_rung,
            validation_accuracy=None,
            loss=1.0,
            wall_seconds=1.0,
            step_seconds=0.01,
            images_trained=50,
            images_forward=25,
            rung_accuracy=at_rung,
            stopped=True,
        )


def formula(candidate: Candidate) -> float:
    groups = memory_model().groups
    kept = candidate.kept(groups)
    share = sum(k / g.channels for k, g in zip(kept, groups, strict=True)) / len(groups)
    return 0.95 - 0.5 * (1 - share) ** 2


def resolver(evaluator: Callable[[], Any]) -> Resolve:
    """Parts of the tiny study, with an evaluator in place of real training."""

    def resolve(study: Study, _folder: RunFolder, _file: RunFile) -> Resolved:
        model = memory_model()
        objectives = study.search.objectives
        inference = memory_model("inference") if "inference_peak_bytes" in objectives else None
        return Resolved(
            classes=CLASSES,
            task=plain_task(CLASSES),
            data=DATA,
            network=Residual(width=16, classes=CLASSES),
            space=SearchSpace.resolve(study.space, model.groups),
            costs=Costs(
                training=model, inference=inference, batch_size=BATCH, objectives=objectives
            ),
            build_evaluator=lambda _on_progress: evaluator(),
            fingerprint={"network": "residual"},
            model_key="key",
        )

    return resolve


def search(
    out: Path,
    study: Study | None = None,
    *,
    before: Callable[[int], None] = lambda _count: None,
    observer: Observer | None = None,
    storage: str | None = None,
) -> RunRecords:
    """Run the tiny study with the formula for an evaluator."""
    evaluator = Formula(out.parent / TRAINED, before=before)
    return carry_out(
        study or tiny_study(),
        out=out,
        storage=storage,
        observer=observer or Silent(),
        resolve=resolver(lambda: evaluator),
    )


def trained(out: Path) -> list[str]:
    """What was trained so far, in any process, in order."""
    log = out.parent / TRAINED
    return log.read_text(encoding="utf-8").split() if log.exists() else []


class Recorder(Silent):
    """Keeps all that a run reports."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []
        self.trials: list[TrialRecord] = []
        self.progress: list[Progress] = []
        self.evaluations: list[str] = []
        self.shares: list[float] = []
        self.messages: list[str] = []

    def on_phase(self, name: Phase, total: int) -> None:
        self.phases.append((name, total))

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        self.trials.append(record)
        self.progress.append(progress)

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        assert 0 <= accuracy <= 1
        self.evaluations.append(label)
        self.progress.append(progress)

    def on_progress(self, share: float) -> None:
        self.shares.append(share)

    def on_message(self, text: str) -> None:
        self.messages.append(text)


SMALL_WIDTH = 16


def small(num_classes: int) -> Residual:
    """A factory, as a study names it."""
    return Residual(width=SMALL_WIDTH, classes=num_classes)


def real_study(**search: Any) -> Study:
    """A study that really trains, in about a second: three digits, a small network."""
    study = tiny_study(**{"trials": 2, "budgets": (400 * KIB,), "finalists": 1, **search})
    return study.model_copy(
        update={
            "name": "real",
            "network": NetworkConfig(name="support.searches:small"),
            "data": DataConfig(name="digits", labels=("1", "2", "3"), image_size=SIZE),
            "training": TrainingConfig(batch_size=BATCH, threads=1),
        }
    )


def trained_images(records: RunRecords) -> int:
    """Images of the training part, as the run counted them."""
    text = (records.folder / "run.json").read_text(encoding="utf-8")
    count: int = json.loads(text)["fingerprint"]["data images"][0]
    return count
