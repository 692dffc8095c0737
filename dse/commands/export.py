"""`dse export`: fine-tune a candidate in full and write it as a bundle."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.complete import words_of
from dse.commands.options import (
    DeviceName,
    DevicesFile,
    Json,
    MaxDrop,
    Reserve,
    RunFolder,
    Storage,
    Trust,
    check_runtime,
    limit_of,
)
from dse.deploy import DEFAULT_MAX_DROP
from dse.errors import ConfigError, InfeasibleError
from dse.names import EXPORTS, explained
from dse.units import format_size

if TYPE_CHECKING:
    from dse.deploy.recipe import Recipe
    from dse.results.records import RunRecords


def export(
    folder: RunFolder,
    *,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Number of the trial to export.")
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Export what dse pick gives for this RAM instead."),
    ] = None,
    device: DeviceName = None,
    devices: DevicesFile = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the bundle.")],
    untrained: Annotated[
        bool,
        typer.Option(
            "--untrained", help="Write the weights that the fine-tuning begins with, untrained."
        ),
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            autocompletion=words_of(EXPORTS.items()),
            help=f"What else to write; can be repeated. {explained(EXPORTS.items())}. "
            "[pytorch is always written]",
        ),
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", help="As --format onnx: network.onnx, checked with ONNX Runtime (extra onnx)."
        ),
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What trains on the device: pytorch, or executorch, which also writes network.pte "
            "(extra executorch).",
        ),
    ] = "pytorch",
    max_drop: MaxDrop = DEFAULT_MAX_DROP,
    reserve: Reserve = "0",
    storage: Storage = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a candidate and write a bundle.

    It is fine-tuned in full, unless --untrained leaves that to the device. The bundle holds the
    weights, the recipe, the pruned network's definition and finetune.py, which fine-tunes it on a
    folder of images with PyTorch and torchvision alone. dse.load(DIR) returns the network in eval
    mode.

    \b
    Examples:
      dse export runs/digits --ram 48MiB --out bundle
      dse export runs/digits --device raspberry-pi-zero-2-w --out bundle
      dse export runs/digits --trial 12 --out bundle --untrained
      dse export runs/digits --trial 12 --out bundle --format onnx
    """  # noqa: D301  # \b keeps the lines after it as they are
    if (trial is None) == (ram is None and device is None):
        raise ConfigError("give either --trial N, or --ram SIZE or --device NAME")
    check_runtime(runtime)
    limit = limit_of(ram=ram, device=device, file=devices, reserve=reserve, max_drop=max_drop)

    from dse.deploy.bundle import check_target
    from dse.deploy.export import export_candidate
    from dse.deploy.formats import check_formats
    from dse.deploy.pick import pick_for
    from dse.names import runs_code
    from dse.search.load import load_run

    with console.stdout_reserved():
        check_target(out)
        by_flag = {"pytorch": True, "onnx": onnx, "executorch": runtime == "executorch"}
        wanted = dict.fromkeys([word for word, given in by_flag.items() if given])
        wanted |= dict.fromkeys(formats or ())  # each once, in this order
        check_formats(wanted)
        records = load_run(folder, storage=storage, trust=trust)
        if limit is not None:
            choice = pick_for(records, limit, max_drop=max_drop, runtime=runtime)
            for line in choice.notes:
                console.note(line)
            if choice.chosen is None:
                raise InfeasibleError(choice.refusal)
            candidate, trial = choice.chosen.candidate, choice.chosen.trial
            # Otherwise the budget is of an arena, not of PyTorch's step.
            ram_bytes = choice.budget_bytes if choice.runtime == "pytorch" else None
        else:
            candidate, ram_bytes = records.trial(trial or 0).candidate, None
        with console.training("fine-tuning in full") as on_progress:
            recipe = export_candidate(
                records,
                candidate,
                trial=trial,
                out=out,
                formats=tuple(wanted),
                fine_tuned=not untrained,
                ram_bytes=ram_bytes,
                on_progress=on_progress,
                on_message=console.note,
            )
    for line in _hidden(records, recipe, imbalance_shown=limit is not None or untrained):
        console.note(line)
    if as_json:
        console.print_json(
            {
                "version": 2,
                "bundle": str(out),
                "recipe": recipe.model_dump(mode="json"),
            }
        )
        return
    own = ", trust=True" if runs_code(recipe.network) else ""
    measure = recipe.measure
    found = measure.score(recipe.scores[recipe.metric])
    score = f"{measure.title} {measure.text(found)}"
    state = "not fine-tuned" if untrained else f"{score} on the validation part"
    lines = [
        (
            f"Wrote {out}: {recipe.network}, {state}, one training step holds "
            f"{format_size(recipe.peak_bytes)} ({_measured(recipe)})."
        ),
        f'Load it with dse.load("{out}"{own}).',
    ]
    if "finetune.py" in recipe.digests:
        from dse.deploy.readme import arguments

        given = arguments(recipe)
        lines.append(f"Fine-tune it without dse: python {out / 'finetune.py'} {given}")
    console.say("\n".join(lines))


def _measured(recipe: "Recipe") -> str:
    held = recipe.measured_peak_bytes
    return "not measured" if held is None else f"measured {format_size(held)}"


def _hidden(records: "RunRecords", recipe: "Recipe", *, imbalance_shown: bool) -> Iterator[str]:
    """Yield what the figures hide: imbalance, and classes that are never classified correctly.

    Args:
        records: the run.
        recipe: of the bundle.
        imbalance_shown: whether the warning of imbalance has been shown already.
    """
    from dse.results.balance import imbalance_warning, missed_warning

    images = records.class_images
    line = imbalance_warning(images, metric=records.metric)
    if line is not None and not imbalance_shown:
        yield line
    if images is not None and recipe.fine_tuned:
        line = missed_warning("the bundle", recipe.recalls, images, part="validation")
        if line is not None:
            yield line
