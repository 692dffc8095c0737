"""The plan of a candidate's lean step, without its run's data or weights."""

from torch import Tensor, nn

from dse.candidate import Candidate, with_recipe
from dse.config import Study
from dse.data import inputs_of
from dse.engines.engine import study_plan
from dse.engines.figures import pruned_plan_figures
from dse.engines.plan import LeanPlan
from dse.footprint.rebuild import rebuild
from dse.pruning.groups import find_groups
from dse.pruning.shorten import shortened
from dse.results.records import RunRecords
from dse.step.plan_figures import PlanFigures
from dse.step.settings import StepSettings
from dse.tasks.task import step_task
from dse.trust.studies import objection_to_study, untrusted


def candidate_plan(records: RunRecords, candidate: Candidate) -> PlanFigures | None:
    """Return what each block of a candidate's lean step does, holds and takes.

    The plan is that of the unpruned network without the blocks that the candidate lacks, which all
    candidates of a recipe share.

    Args:
        records: records of the candidate's run.
        candidate: the candidate.

    Returns:
        The figures; None if stock PyTorch runs the candidate's steps.

    Raises:
        DseError: if the network can't be built here or has changed since the run, or the run isn't
            trusted to build it.
    """
    study = with_recipe(records.study, candidate)
    settings = StepSettings.of(study.training)
    if not settings.lean:
        return None
    if not records.trusted and (objection := objection_to_study(study)) is not None:
        raise untrusted(records.folder, objection)
    inputs = inputs_of(study.data)
    whole = rebuild(
        study.network.name,
        classes=records.classes,
        inputs=inputs,
        candidate=Candidate(),
        options=study.network.options,
        search_path=study.source_dir,
        outputs=study.task.outputs,
    )
    example = inputs.example(2)
    network, groups = shortened(whole, example, find_groups(whole, example), candidate.drop)
    plan = shared_plan(records, study, network, example)
    if plan is None:
        return None
    return pruned_plan_figures(
        network,
        groups,
        candidate.kept(groups),
        plan=plan,
        example_input=example,
        settings=settings,
        batch_size=study.training.batch_size,
        loss=step_task(study, outputs=records.classes, inputs=inputs).loss,
    )


def shared_plan(
    records: RunRecords, study: Study, network: nn.Module, example: Tensor
) -> LeanPlan | None:
    """Return the plan that all candidates of one recipe share; None for stock PyTorch.

    Args:
        records: records of the run.
        study: its study, with the recipe filled in.
        network: the unpruned network.
        example: tensor (any batch, channels, height, width).
    """
    inputs = inputs_of(study.data)
    return study_plan(
        network,
        example,
        settings=StepSettings.of(study.training),
        batch_size=records.study.training.batch_size,
        loss=step_task(study, outputs=records.classes, inputs=inputs).loss,
    )
