"""`dse verify`: check a bundle's files, and run its training steps under a memory cap."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.options import Json, size_of
from dse.errors import ExportError, InfeasibleError
from dse.units import format_size

if TYPE_CHECKING:
    from dse.deploy.pte.process import PteSteps
    from dse.deploy.verify import Verified


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A bundle, as dse export writes it.")
    ],
    *,
    ram: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Bytes that a step may hold. [the recipe's, or 1 % above what a step holds here]",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run the code that the recipe names; not needed for torchvision's."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a bundle's files and the memory of its training step.

    Real training steps, on noise, run in processes of their own. On Linux the kernel caps them, so
    that the bundle completes where the unpruned network runs out of memory. The cap is what the
    step's tensors may hold: the interpreter, its libraries, and what tensors leave unused of the
    kernel's pages come on top. No Python file of the bundle is imported.

    \b
    Examples:
      dse verify bundle
      dse verify bundle --ram 48MiB
    """  # noqa: D301  # \b keeps the lines after it as they are
    ram_bytes = None if ram is None else size_of("--ram", ram)

    from dse.deploy.verify import SCHEMA_VERSION
    from dse.deploy.verify import verify as verify_bundle

    with console.stdout_reserved():
        found = verify_bundle(folder, ram_bytes=ram_bytes, trust=trust, search_path=Path.cwd())
    if as_json:
        console.print_json(
            {
                "version": SCHEMA_VERSION,
                "bundle": str(folder),
                "files": list(found.files),
                "predicted_peak_bytes": found.recipe.peak_bytes,
                "convention": found.recipe.convention,
                "measured_peak_bytes": found.measured_peak_bytes,
                "ram_bytes": found.ram_bytes,
                "completed": found.completed,
                "unpruned_completed": found.unpruned_completed,
                "beyond_bytes": found.beyond_bytes,
                "pruned": found.pruned,
                "fits": found.fits,
                "lean_as_written": found.lean_as_written,
                "lean_gradient_difference": found.lean_gradient_difference,
                "executorch": None if found.pte is None else asdict(found.pte),
            }
        )
    else:
        console.say("\n".join(_lines(found)))
    if not found.same_gradients:
        raise ExportError(
            f"{folder}: the gradients of its lean.py differ from stock PyTorch's by "
            f"{found.lean_gradient_difference:.1g} of their size; export again"
        )
    if found.pte is not None and found.pte.differs:
        raise ExportError(f"{folder}: its network.pte {_pte(found.pte)}; export again")
    if not found.fits:
        raise InfeasibleError(
            f"{folder}: its training step doesn't fit {format_size(found.ram_bytes or 0)}; a real "
            f"step holds {format_size(found.measured_peak_bytes)} here"
        )


def _lines(found: "Verified") -> list[str]:
    recipe = found.recipe
    above = found.measured_peak_bytes / recipe.peak_bytes - 1 if recipe.peak_bytes else 0.0
    lines = [
        f"files      {', '.join(found.files)}: as in the recipe",
        (
            f"peak       predicted {format_size(recipe.peak_bytes)} ({recipe.convention}), "
            f"measured {format_size(found.measured_peak_bytes)} ({100 * above:+.1f} %)"
        ),
    ]
    if found.lean_as_written is not None:
        lines.append(f"lean       {_lean(found)}")
    if found.pte is not None:
        lines.append(f"executorch network.pte {_pte(found.pte)}")
    elif "network.pte" in found.files:
        lines.append(
            "executorch network.pte was not run: ExecuTorch isn't installed here "
            "(pip install 'dse[executorch]')"
        )
    if found.completed is None:
        return [*lines, "cap        none: this platform can't cap a process"]
    words = {True: "completes", False: "runs out of memory"}
    beside = format_size(found.beyond_bytes or 0)
    lines.append(
        f"cap        at {format_size(found.ram_bytes or 0)} (and {beside} for pages and the "
        f"interpreter) the bundle {words[found.completed]}; {_unpruned(found, words)}"
    )
    return lines


def _unpruned(found: "Verified", words: dict[bool, str]) -> str:
    """Describe what the unpruned network did under the cap."""
    if not found.pruned:
        return "it has all parameters, so that the unpruned network with its recipe is the same"
    return f"the unpruned network with its recipe {words[bool(found.unpruned_completed)]}"


def _pte(steps: "PteSteps") -> str:
    """Describe what was found about a bundle's network.pte."""
    unclear = (
        "; float32 rounds too much here to tell whether the gradients agree"
        if steps.is_unclear
        else ""
    )
    return (
        f"ran {len(steps.losses)} steps in ExecuTorch's runtime: loss within "
        f"{steps.loss_difference:.1g} of PyTorch's in float64, gradients within "
        f"{steps.gradient_difference:.1g} of the largest (PyTorch's own float32: "
        f"{steps.own_difference:.1g}); arena {format_size(steps.arena_bytes)}, predicted "
        f"{format_size(steps.predicted_arena_bytes)}{unclear}"
    )


def _lean(found: "Verified") -> str:
    """Describe what was found about a bundle's lean.py."""
    difference = found.lean_gradient_difference
    if difference is None:
        return (
            "lean.py or lean.json isn't what this release writes for the recipe's plan: it was not "
            "run, and the peak is that of dse.load(folder, lean=True)"
        )
    if difference == 0:
        return "lean.py computes the gradients of stock PyTorch, bit by bit"
    return f"lean.py computes the gradients of stock PyTorch, within {difference:.1g} in float64"
