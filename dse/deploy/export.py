"""Fine-tunes a run's candidate in full and writes it as a bundle."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from dse.candidate import Candidate, with_recipe
from dse.deploy.bundle import write
from dse.deploy.recipe import Recipe
from dse.finetune.loop import FORWARD_BATCH, evaluate
from dse.metrics import Confusion
from dse.results.records import RunRecords
from dse.search.data_files import unreadable_noted
from dse.search.resolve import resolve
from dse.search.run_folder import RunFolder
from dse.trust.studies import objection_to_study, untrusted


def export_candidate(
    records: RunRecords,
    candidate: Candidate,
    *,
    trial: int | None,
    out: Path,
    on_progress: Callable[[float], None] | None = None,
    on_message: Callable[[str], None] = lambda _text: None,
) -> Recipe:
    """Fine-tune a candidate in full with the first of the study's seeds, and write its bundle.

    Args:
        records: records of the candidate's run.
        candidate: the candidate to train.
        trial: its trial number, stored in the recipe; None for a baseline.
        out: folder of the bundle.
        on_progress: called with the share of the training that is done, from 0 to 1.
        on_message: called with lines about the data.

    Returns:
        The recipe as written; its accuracy is that of the reloaded bundle on the validation part.

    Raises:
        ExportError: if the bundle can't be written.
        RunError: if the network or the data changed since the run, or the run isn't trusted to
            load them.
        DseError: if the study's network or data can't be loaded here, or the training diverged.
    """
    with unreadable_noted(records.folder):
        return _export(
            records, candidate, trial=trial, out=out, on_progress=on_progress, on_message=on_message
        )


def _export(
    records: RunRecords,
    candidate: Candidate,
    *,
    trial: int | None,
    out: Path,
    on_progress: Callable[[float], None] | None,
    on_message: Callable[[str], None],
) -> Recipe:
    study = records.study
    if not records.trusted and (objection := objection_to_study(study)) is not None:
        raise untrusted(records.folder, objection)
    folder = RunFolder(records.folder)
    parts = resolve(study, folder, folder.read(), on_message=on_message)
    proxy = parts.build_evaluator(lambda _share: None)
    network, evaluation = proxy.train(
        candidate, fidelity="full", seed_index=0, on_progress=on_progress
    )
    data = proxy.parts(with_recipe(study, candidate).data)
    recipe = Recipe.of(
        study,
        candidate,
        groups=proxy.pruner.groups,
        data=data,
        evaluation=evaluation,
        peak_bytes=parts.costs.peak_bytes(candidate),
        convention=records.convention,
        memory_model=parts.costs.model(candidate).digest,
        trial=trial,
    )

    def score(reloaded: nn.Module) -> Confusion:
        return evaluate(reloaded, data.validation, batch_size=FORWARD_BATCH).confusion

    return write(out, network=network, recipe=recipe, score=score, search_path=study.source_dir)
