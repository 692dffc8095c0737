"""Fine-tunes a run's candidate in full and writes it as a bundle."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.candidate import Candidate, with_recipe
from dse.data import DataParts, inputs_of
from dse.deploy.bundle import write
from dse.deploy.definition import output_layer
from dse.deploy.formats import FORMATS, Exported, check_format
from dse.deploy.layer_source import NoSourceError
from dse.deploy.measure import measure_of
from dse.deploy.recipe import Recipe
from dse.deploy.recipe_parts import Expected
from dse.digests import derived_seed
from dse.engines.plan_json import plan_to_json
from dse.finetune.loop import FORWARD_BATCH, evaluate
from dse.finetune.proxy import Proxy
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.networks.cores import threads_chosen
from dse.results.records import RunRecords
from dse.search.data_files import unreadable_noted
from dse.search.resolve import resolve
from dse.search.run_folder import RunFolder
from dse.step.checkpointing import block_names
from dse.step.lora import inside_adapters
from dse.step.schemes import training_mode
from dse.tasks.task import Figures
from dse.trust.studies import objection_to_study, untrusted


def export_candidate(
    records: RunRecords,
    candidate: Candidate,
    *,
    trial: int | None,
    out: Path,
    formats: Sequence[str] = ("pytorch",),
    fine_tuned: bool = True,
    ram_bytes: int | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_message: Callable[[str], None] = lambda _text: None,
) -> Recipe:
    """Fine-tune a candidate in full with the first of the study's seeds, and write its bundle.

    Args:
        records: records of the candidate's run.
        candidate: the candidate to train.
        trial: its trial number, stored in the recipe; None for a baseline.
        out: folder of the bundle.
        formats: export formats; see `dse.names.EXPORTS`.
        fine_tuned: whether to fine-tune it; otherwise the weights are those where that begins.
        ram_bytes: bytes that a step may hold, stored in the recipe; None without a limit.
        on_progress: called with the share of the training that is done, from 0 to 1.
        on_message: called with lines about the data and about files that are left out.

    Returns:
        The recipe as written; its accuracy is that of the reloaded bundle on the validation part.

    Raises:
        ConfigError: if a format is unknown, or its packages aren't installed.
        ExportError: if the bundle can't be written.
        RunError: if the network or the data changed since the run, or the run isn't trusted to
            load them.
        DseError: if the study's network or data can't be loaded here, or the training diverged.
    """
    study = records.study
    for word in formats:
        check_format(word)
        FORMATS[word].check_study(with_recipe(study, candidate))
    if not records.trusted and (objection := objection_to_study(study)) is not None:
        raise untrusted(records.folder, objection)
    with unreadable_noted(records.folder):
        folder = RunFolder(records.folder)
        parts = resolve(study, folder, folder.read(), on_message=on_message)
        proxy = parts.build_evaluator(lambda _share: None)
        prepared = _prepared(records, candidate, proxy, formats, on_message)
        seed = derived_seed(study.seed, candidate.digest, "full", 0)
        training = study.training
        with threads_chosen(training.threads, device=training.device, on_message=on_message):
            network = (
                proxy.train(candidate, fidelity="full", seed_index=0, on_progress=on_progress)[0]
                if fine_tuned
                else proxy.prepared(candidate)
            ).cpu()
        data = proxy.parts(with_recipe(study, candidate).data)
        costs, plan = parts.costs, proxy.plan(candidate)
        recipe = Recipe.of(
            study,
            candidate,
            groups=proxy.pruner.groups,
            data=data,
            seed=seed,
            peak_bytes=costs.peak_bytes(candidate),
            convention=records.convention,
            memory_model=costs.model(candidate).digest,
            trial=trial,
            more={
                **_roles(network, data),
                "plan": None if plan is None else json.loads(plan_to_json(plan)),
                "fine_tuned": fine_tuned,
                "ram_bytes": ram_bytes,
                "expected": _expected(records, candidate),
                "measured_peak_bytes": measure_of(records)(candidate).peak_bytes,
                "unpruned_peak_bytes": costs.peak_bytes(Candidate()),
            },
        )
        if recipe.checkpointing == "blocks":
            recipe = recipe.model_copy(update={"checkpointed": block_names(network)})

        def score(reloaded: nn.Module) -> Figures:
            found = evaluate(reloaded, data.validation, batch_size=FORWARD_BATCH, task=data.task)
            return found.figures

        def add(folder: Path, scored: Recipe) -> None:
            exported = Exported(
                network=network, recipe=scored, images=_noise(data.input_spec), plan=plan
            )
            for word, result in prepared.items():
                for line in FORMATS[word].write(exported, result, folder):
                    on_message(line)

        return write(
            out,
            network=network,
            recipe=recipe,
            score=score,
            search_path=study.source_dir,
            add=add,
        )


def _prepared(
    records: RunRecords,
    candidate: Candidate,
    proxy: Proxy,
    formats: Sequence[str],
    on_message: Callable[[str], None],
) -> dict[str, Any]:
    """Return what each format needs, before anything is trained; by format."""
    study = with_recipe(records.study, candidate)
    inputs = inputs_of(study.data)
    network = rebuild(
        study.network.name,
        classes=proxy.pruner.data.classes,
        inputs=inputs,
        candidate=candidate.model_copy(update={"scheme": study.training.scheme}),
        options=study.network.options,
        search_path=study.source_dir,
        outputs=study.task.outputs,
    )
    found = {}
    for word in formats:
        try:
            found[word] = FORMATS[word].prepare(network, _noise(inputs), proxy.plan(candidate))
        except NoSourceError as error:
            left = ", ".join(FORMATS[word].files)
            on_message(f"{left} are left out, so that only dse.load can read the bundle: {error}")
    return found


def _roles(network: nn.Module, data: DataParts) -> dict[str, Any]:
    """Return the recipe's fields on which parameters train and which modules do what."""
    images = data.input_spec.example(2)
    training_mode(network, images)
    evaluating = [
        name
        for name, module in network.named_modules()
        if not module.training and not inside_adapters(name)
    ]
    network.eval()
    return {
        "trained": tuple(name for name, p in network.named_parameters() if p.requires_grad),
        "evaluating": tuple(evaluating),
        "head": output_layer(network, images),
    }


def _expected(records: RunRecords, candidate: Candidate) -> Expected | None:
    final = records.final_of(candidate)
    return (
        None
        if final is None
        else Expected.of(
            final.validation_accuracies, least=0.0 if records.measure.percent else -math.inf
        )
    )


def _noise(inputs: InputSpec) -> torch.Tensor:
    samples = inputs.example(2)
    if samples.is_floating_point():
        samples.normal_(generator=torch.Generator().manual_seed(0))
    return samples
