"""`dse baseline`: evaluate a baseline method, which needs no search, on a study."""

from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.complete import words_of
from dse.commands.options import Changes, Json, StudyName
from dse.names import BASELINE_METHODS, FIDELITIES, either, explained
from dse.units import format_size

if TYPE_CHECKING:
    from dse.methods.baseline import Comparison, Outcome


def baseline(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            autocompletion=words_of(BASELINE_METHODS.items()),
            help=f"{explained(BASELINE_METHODS.items())}.",
        ),
    ],
    study: StudyName,
    *,
    fidelity: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=words_of(FIDELITIES.items()),
            help=f"Also train each alternative: {either(FIDELITIES)}. [only predict memory]",
        ),
    ] = None,
    overrides: Changes = None,
    as_json: Json = False,
) -> None:
    """Evaluate a baseline method, without a search, on a study.

    peak-greedy is the rule of Yoosefi et al. (2023): find the moment of the peak, remove
    unimportant channels from the groups alive there, repeat. Predicting memory takes seconds. With
    --fidelity each alternative is trained as well, at full with all seeds.

    \b
    Examples:
      dse baseline peak-greedy digits
      dse baseline freeze study.toml --fidelity short
      dse baseline image-size digits --json
    """  # noqa: D301  # \b keeps the lines after it as they are
    from dse.config import load_study
    from dse.methods.baseline import check_fidelity, compare

    depth = check_fidelity(fidelity)
    resolved = load_study(study, overrides=overrides or ())

    def show(outcome: "Outcome") -> None:
        if outcome.accuracy is not None:
            text = outcome.measure.text(outcome.accuracy)
            console.note(f"{outcome.alternative.label}: {text}")

    with console.stdout_reserved():
        found = compare(method, resolved, fidelity=depth, on_outcome=show, on_message=console.note)
    if as_json:
        console.print_json(found.to_json())
    else:
        _show(found)


def _show(found: "Comparison") -> None:
    study = found.study
    console.say(
        f"{found.method} on {study.name}: scheme {study.training.scheme}, batch "
        f"{study.training.batch_size}, {study.data.image_size}x{study.data.image_size} pixels "
        "unless the row changes them; convention tensors\n"
    )
    rows = []
    for one in (found.unpruned, *found.outcomes):
        activation, total = found.reductions(one)
        changes = [f"{-100 * share:+z.1f} %" for share in (total, activation)]
        rows.append(
            (
                one.alternative.label,
                "-" if one.accuracy is None else one.measure.text(one.accuracy),
                format_size(one.breakdown.peak_bytes),
                *(("", "") if one is found.unpruned else changes),
            )
        )
    title = found.unpruned.measure.title
    console.show_table(("", title, "peak", "against unpruned", "activation"), rows)
    if found.fidelity is not None:
        part = "validation" if found.fidelity == "full" else "selection"
        recovered = "" if study.recovery is None else "; pruned networks were recovered first"
        console.say(
            f"\n{title[0].upper()}{title[1:]} at fidelity {found.fidelity}, on the {part} "
            f"part{recovered}."
        )
