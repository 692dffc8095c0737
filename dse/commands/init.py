"""`dse init`: write a commented study, or one drafted for a user's images and network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.options import Json
from dse.errors import ConfigError
from dse.names import NETWORKS, either
from dse.shipped import starter_study
from dse.units import format_size

if TYPE_CHECKING:
    from dse.search.plan import Plan

DEFAULT_NETWORK = "torchvision:mobilenet_v2"


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "study.toml"
    ),
    *,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your images: a folder with a subfolder for each label."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{either(NETWORKS)}. [{DEFAULT_NETWORK}]",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The network's weights: a file, default for the library's, a name of "
            "torchvision's, or none. [default; none for a factory]",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=4096,
            metavar="N",
            help="Side of the images in pixels. [chosen for images and network]",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a study to start from.

    With --images the study is made for your images and network, and runs as it is: labels, image
    size, batch size and budgets (25 and 50 % of the unpruned network's peak, or more if pruning
    can't reach that) are chosen for them, with a comment on how. Without --images it is an example
    that explains every key.

    \b
    Examples:
      dse init
      dse init flowers.toml --images photos/flowers
      dse init my.toml --images photos --network my_package.nets:build --weights best.pth
    """  # noqa: D301  # \b keeps the lines after it as they are
    if file.is_dir():
        raise ConfigError(f"{file} is a folder: name a file, as in {file / 'study.toml'}")
    if file.exists() and not force:
        raise ConfigError(f"{file} exists: give another name, or --force to overwrite it")
    plan = None
    if images is None:
        for flag, given in (
            ("--network", network),
            ("--weights", weights),
            ("--image-size", image_size),
        ):
            if given is not None:
                raise ConfigError(
                    f"{flag} needs --images DIR: give your images too, or leave it out"
                )
        text = starter_study()
    else:
        from dse.draft import draft_study

        with console.stdout_reserved():
            draft = draft_study(
                file,
                images=images,
                network=network or DEFAULT_NETWORK,
                weights=weights,
                image_size=image_size,
            )
        text, plan = draft.text, draft.plan
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from error
    if as_json:
        console.print_json({"version": 1, "study": str(file)})
        return
    if plan is not None:
        _show(plan)
    change = "" if plan else " Change its network, data and budgets, then:"
    console.say(
        f"Wrote {file}.{change}\n"
        f"  dse run {file} --dry-run    check it\n"
        f"  dse run {file}{' --trials 2' if plan else ''}"
    )


def _show(plan: "Plan") -> None:
    for line in plan.data.lines():
        console.say(line)
    unpruned, smallest = plan.unpruned_peak_bytes or 0, plan.smallest_peak_bytes or 0
    console.say(
        f"network {plan.study.network.name}, weights {plan.study.network.weights}, "
        f"{plan.study.data.image_size}x{plan.study.data.image_size} pixels: one training step of "
        f"{plan.study.training.batch_size} images holds {format_size(unpruned)}, of the smallest "
        f"pruned network {format_size(smallest)}"
    )
    for note in plan.notes:
        console.note(note)
