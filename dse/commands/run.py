"""`dse run`: start or resume a search."""

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.commands import console
from dse.commands.options import Changes, Json, Storage, StudyName, duration_of
from dse.errors import DseError
from dse.results.varied import varied_text
from dse.units import format_size

if TYPE_CHECKING:
    from dse.candidate import Candidate
    from dse.config import Study
    from dse.measures import Measure
    from dse.results.records import RunRecords

SCHEMA_VERSION = 1


def run(
    study: StudyName,
    *,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of candidates to train, including those of earlier sessions.",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Start no new trial after this time, such as 10m."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder. [runs/<study>]")
    ] = None,
    storage: Storage = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Seed, in place of the study's.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes to run on this machine. Other machines join with the same command and "
            "--storage.",
        ),
    ] = 1,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Join a study in the storage that began with other settings or data.",
        ),
    ] = False,
    fork: Annotated[
        bool,
        typer.Option(
            "--fork",
            help="Begin a study of its own where one with other settings exists.",
        ),
    ] = False,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(
            "--warm-start",
            metavar="RUN",
            help="Learn from an earlier run of the same network, on these data or others "
            "(repeatable).",
        ),
    ] = None,
    overrides: Changes = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything that needs no download and no training."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a search, or resume one.

    No trial is trained twice: Ctrl-C or a crash loses at most the current one. At the end, the best
    of the front are fine-tuned in full, and the front is printed.

    \b
    Examples:
      dse run digits
      dse run study.toml --trials 12 --out runs/first
      dse run study.toml --set training.batch_size=16 --set search.sampler=nsga2
      dse run study.toml --warm-start runs/first
      dse run study.toml --workers 4 --storage postgresql://user@host/base
      dse run study.toml --dry-run
    """  # noqa: D301  # \b keeps the lines after it as they are
    from dse.config import load_study, with_flags
    from dse.networks.devices import check_device

    seconds = None if timeout is None else duration_of("--timeout", timeout)
    resolved = with_flags(
        load_study(study, overrides=overrides or ()), trials=trials, timeout=seconds, seed=seed
    )
    check_device(resolved.training.device)
    folder = out or Path("runs") / resolved.name
    if dry_run:
        _plan(resolved, as_json=as_json)
        return
    records = _search(
        resolved,
        folder=folder,
        storage=storage,
        workers=workers,
        allow_mismatch=allow_mismatch,
        fork=fork,
        warm_start=warm_start or (),
    )
    if as_json:
        console.print_json(_summary(records))
    else:
        _show(records)


def _plan(study: "Study", *, as_json: bool) -> None:
    from dse.config import describe_budgets
    from dse.search.plan import dry_run

    with console.stdout_reserved():
        plan = dry_run(study, on_message=console.note)
    if as_json:
        console.print_json({"version": SCHEMA_VERSION, "dry_run": True, **plan.to_json()})
        return
    images = [
        f"{count} to {use}"
        for use, count in (
            ("train", plan.data.train),
            ("select", plan.data.selection),
            ("validate", plan.data.validation),
        )
        if count is not None
    ]
    rows = [
        ("network", f"{study.network.name}, weights {study.network.weights}"),
        ("data", ", ".join([study.data.name, plan.data.outputs_text, *images])),
        ("channel groups", f"{plan.groups}, {plan.free_groups} of them searched over"),
        *((name, varied_text(one)) for name, one in plan.joint.items()),
        ("search", f"{study.search.trials} trials by {study.search.sampler}"),
        (
            "budgets",
            describe_budgets(study.search.budgets, plan.budgets)
            if plan.budgets is not None
            else ", ".join(map(str, study.search.budgets)),
        ),
    ]
    if plan.unpruned_peak_bytes is not None and plan.smallest_peak_bytes is not None:
        sizes = (plan.smallest_peak_bytes, plan.unpruned_peak_bytes)
        rows.append(("one step holds", " to ".join(map(format_size, sizes))))
    console.say(f"{study.name} can run:")
    console.show_table(("", ""), rows, left=2, wrapped=True)
    for line in plan.notes:
        console.say(line)


def _search(study: "Study", *, folder: Path, storage: str | None, **joining: Any) -> "RunRecords":
    from dse.commands.progress import RunDisplay
    from dse.search.study import run as search

    with console.stdout_reserved(), RunDisplay() as display:
        try:
            return search(study, out=folder, storage=storage, observer=display, **joining)
        except KeyboardInterrupt:
            display.on_message(f"stopped; results are in {folder}: run the same command to resume")
            raise


def _summary(records: "RunRecords") -> dict[str, Any]:
    """Return the object that `dse run --json` prints (docs/schemas/run-1.json)."""
    from dse.report.selection import front_trials, hypervolume_shares

    shares = hypervolume_shares(records)
    return {
        "version": SCHEMA_VERSION,
        "run": str(records.folder),
        "study": records.study.name,
        "metric": records.metric,
        "metric_range": [records.measure.worthless, records.measure.ideal],
        "trials": dict(records.trials_by_state),
        "budgets": list(records.study.search.budget_bytes),
        "front": [
            {
                "trial": trial.number,
                "recipe": trial.candidate.recipe_text,
                "accuracy": trial.accuracy,
                "peak_bytes": trial.peak_bytes,
                "share_of_unpruned": trial.peak_bytes / records.unpruned_peak_bytes,
                "final": _final(records, trial.candidate),
            }
            for trial in front_trials(records)
        ],
        "unpruned": {
            "accuracy": records.unpruned and records.unpruned.accuracy,
            "peak_bytes": records.unpruned_peak_bytes,
            "final": records.unpruned and _final(records, records.unpruned.candidate),
        },
        "baselines": [
            {
                "label": one.label,
                "accuracy": one.accuracy,
                "peak_bytes": one.peak_bytes,
                "share_of_unpruned": one.peak_bytes / records.unpruned_peak_bytes,
                "final": _final(records, one.candidate),
            }
            for one in records.baselines
            if one.kind != "unpruned"
        ],
        "failures": [
            {"what": one.what, "label": one.label, "reason": one.reason} for one in records.failures
        ],
        "smallest_peak_bytes": records.smallest_peak_bytes,
        "hypervolume": float(shares[-1]) if len(shares) else 0.0,
    }


def _final(records: "RunRecords", candidate: "Candidate") -> dict[str, Any] | None:
    final = records.final_of(candidate)
    if final is None:
        return None
    return {
        "selection_accuracy": final.accuracy,
        "validation_accuracy": final.validation_accuracy,
        "seeds": len(final.accuracies),
        "step_seconds": final.step_seconds,
    }


def _show(records: "RunRecords") -> None:
    from dse.report.budget_wording import budget_notes
    from dse.report.recalls_table import missed_warnings
    from dse.report.wording import short_and_full

    summary = _summary(records)
    counts = ", ".join(f"{count} {state}" for state, count in summary["trials"].items() if count)
    console.say(f"\nFront of {records.study.name} ({counts or 'no trials'}):\n")
    row = partial(_row, records.measure)
    rows = [row(_title(member), member) for member in summary["front"]]
    rows.append(("",) * 5)
    rows.append(row("unpruned", {**summary["unpruned"], "share_of_unpruned": 1.0}))
    rows += [row(baseline["label"], baseline) for baseline in summary["baselines"]]
    headings = ("", "short", "in full", "peak", "of unpruned")
    console.show_table(headings, rows)
    for one in records.failures:
        console.say(f"{one.what} {one.label} failed: {one.reason}")
    console.say(f"\n{short_and_full(records)}")
    for line in budget_notes(records):
        console.say(line)
    for line in missed_warnings(records):
        console.say(line)
    folder = shlex.quote(str(records.folder))
    console.say(f"\nNext:\n  dse report {folder}")
    if (flags := _suggested_flags(records)) is not None:
        console.say(f"  dse pick {folder} {flags}")


def _suggested_flags(records: "RunRecords") -> str | None:
    """Return flags of a `dse pick` that succeeds; one training step is measured for it."""
    from dse.deploy.pick import suggestion

    try:
        with console.stdout_reserved():
            return suggestion(records)
    except DseError as error:  # the run is complete even if the step can't be measured
        console.note(f"no dse pick is suggested: {error}")
        return None


def _title(member: dict[str, Any]) -> str:
    recipe = f" ({member['recipe']})" if member["recipe"] else ""
    return f"trial {member['trial']}{recipe}"


def _row(measure: "Measure", title: str, member: dict[str, Any]) -> tuple[str, ...]:
    final, accuracy = member["final"], member["accuracy"]
    return (
        title,
        "-" if accuracy is None else measure.text(accuracy),
        "-" if final is None else measure.text(final["validation_accuracy"]),
        format_size(member["peak_bytes"]),
        f"{100 * member['share_of_unpruned']:.1f} %",
    )
