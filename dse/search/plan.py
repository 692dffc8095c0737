"""A dry run: every check of a study that needs neither a download nor training."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dse.candidate import Candidate
from dse.config import Study, budget_bytes
from dse.data import DataSummary, inputs_of, survey_data
from dse.errors import ConfigError, DataError
from dse.methods.workbench import Workbench
from dse.networks.checks import network_notes
from dse.networks.study_network import network_without_weights
from dse.pruning.shares import whole_line
from dse.results.balance import ClassImages, imbalance_warning
from dse.results.varied import Varied, varied_to_json
from dse.sampling.front_sampler import unsteered
from dse.search.costs import Costs
from dse.search.device_memory import beyond_tensors, device_peaks
from dse.search.gate import Gate, hopeless
from dse.search.weights import ANY_CLASSES, check_weights


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run of a study would do.

    Attributes:
        study: the resolved study.
        data: summary of the data.
        groups: number of channel groups of the network.
        free_groups: number of groups whose ratio is searched over.
        joint: values of each part of the recipe that varies, by name.
        unpruned_peak_bytes: predicted peak of the unpruned network; None if the number of classes
            is unknown.
        smallest_peak_bytes: predicted peak of the smallest network of the space; None likewise.
        budgets: bytes, ascending; None if some are shares of a peak that is unknown.
        notes: what the run will do or check first, one line each.
    """

    study: Study
    data: DataSummary
    groups: int
    free_groups: int
    joint: Mapping[str, Varied]
    unpruned_peak_bytes: int | None
    smallest_peak_bytes: int | None
    budgets: tuple[int, ...] | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        study, search = self.study, self.study.search
        return {
            "study": study.name,
            "network": study.network.name,
            "weights": study.network.weights,
            "data": study.data.name,
            "classes": self.data.classes,
            "images": {
                "train": self.data.train,
                "selection": self.data.selection,
                "validation": self.data.validation,
            },
            "scheme": study.training.scheme,
            "groups": self.groups,
            "free_groups": self.free_groups,
            "joint": {name: varied_to_json(one) for name, one in self.joint.items()},
            "sampler": search.sampler,
            "trials": search.trials,
            "objectives": list(search.objectives),
            "budgets": None if self.budgets is None else list(self.budgets),
            "unpruned_peak_bytes": self.unpruned_peak_bytes,
            "smallest_peak_bytes": self.smallest_peak_bytes,
            "notes": list(self.notes),
        }


def dry_run(
    study: Study,
    *,
    data: DataSummary | None = None,
    on_message: Callable[[str], None] = lambda _text: None,
) -> Plan:
    """Check a study without downloading, training or writing anything.

    Args:
        study: the study, as loaded from its file.
        data: summary of its data, if that is known already.
        on_message: called with lines about the data and about the progress of reading them.

    Returns:
        What a run would do.

    Raises:
        InfeasibleError: if no network of the search space fits the largest budget.
        DseError: if anything else is wrong with the study, its network or its data.
    """
    if data is None:
        data = survey_data(
            study.data,
            seed=study.seed,
            pretrain=study.network.pretrain,
            task=study.task,
            on_message=on_message,
        )
    if data.train is not None and data.train < study.training.batch_size:
        raise DataError(
            f"data {study.data.name!r} has {data.train} images to train on, too few for one batch "
            f"of {study.training.batch_size}: lower training.batch_size or give more images"
        )
    notes = [*_data_notes(data), *check_weights(study, data.classes)]
    # Groups and search space don't depend on the number of classes, which may not be known yet.
    network = network_without_weights(
        study, classes=data.classes or ANY_CLASSES, inputs=inputs_of(study.data)
    )
    bench = Workbench(study=study, network=network, classes=data.classes or ANY_CLASSES)
    notes += network_notes(network, bench.example)
    space = bench.space
    if (unprunable := whole_line(network, bench.survey)) is not None:
        notes.append(unprunable)
    costs = Costs(
        training=bench.model(),  # even if the number of classes is a guess: this checks the scheme
        inference=None,
        batch_size=study.training.batch_size,
        objectives=("peak_bytes",),
        variant=bench.model,
    )
    images = ClassImages.of_summary(data)
    if (hidden := imbalance_warning(images, metric=study.metric)) is not None:
        notes.append(hidden)
    if (unseen := unsteered(study.search)) is not None:
        notes.append(unseen)
    if data.classes is not None:
        costs, counted = _on_device(bench, costs)
        notes += counted
    unpruned = smallest = budgets = None
    if data.classes is not None:
        unpruned = costs.peak_bytes(Candidate(channels={}))
        budgets = budget_bytes(study.search.budgets, unpruned_peak_bytes=unpruned)
        smallest = Gate(max(budgets)).check_possible(space, costs)
        if (missed := hopeless(budgets, smallest)) is not None:
            notes.append(missed)
    return Plan(
        study=study,
        data=data,
        groups=len(bench.groups),
        free_groups=len(space.free),
        joint=space.varied,
        unpruned_peak_bytes=unpruned,
        smallest_peak_bytes=smallest,
        budgets=budgets,
        notes=tuple(notes),
    )


def _on_device(bench: Workbench, costs: Costs) -> tuple[Costs, list[str]]:
    """Add what the study's device holds beyond tensors, if the study counts it."""
    study = bench.study
    on_device = device_peaks(
        study, bench.network, classes=bench.classes, groups=lambda: bench.groups
    )
    try:
        beyond = beyond_tensors(
            study, peak_bytes=on_device, model=costs.training, space=bench.space
        )
    except ConfigError as error:  # planned for a device that another machine has
        return costs, [f"{error}; what it holds beyond tensors isn't counted here"]
    counted = replace(costs, beyond_tensors_bytes=beyond.added_bytes, on_device=on_device)
    return counted, [beyond.text] if beyond.text else []


def _data_notes(data: DataSummary) -> Iterator[str]:
    if data.to_download:
        yield f"data {data.name!r} will be downloaded to {data.place}"
    if data.classes is None:
        yield "memory is predicted once the data are read, which determine the number of classes"
