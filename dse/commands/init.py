"""`dse init`: write a commented study, or one drafted for a user's images and network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.options import Json
from dse.errors import ConfigError
from dse.names import NETWORKS, TASKS, either, nearest
from dse.shipped import starter_study
from dse.units import format_size

if TYPE_CHECKING:
    from dse.draft import Draft


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "study.toml"
    ),
    *,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your images: a folder with a subfolder for each label."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A CSV file of the images' names, then their labels or numbers."
        ),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A data set of Hugging Face's, saved on disk: images, or text."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help=f"{either(TASKS)}. [found from the data]"),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{either(NETWORKS)}. [a MobileNet of torchvision]",
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

    With --images or --dataset the study is made for your data and network, and runs as it is: task,
    labels, image size, batch size and budgets (25 and 50 % of the unpruned network's peak, or more
    if pruning can't reach that) are chosen for them, with a comment on how. Without, it is an
    example that explains every key.

    \b
    Examples:
      dse init
      dse init flowers.toml --images photos/flowers
      dse init my.toml --images photos --network my_package.nets:build --weights best.pth
      dse init tags.toml --images photos --table photos/labels.csv
      dse init street.toml --images street          (images/ and masks/)
      dse init reviews.toml --dataset reviews --network hf:my_bert
    """  # noqa: D301  # \b keeps the lines after it as they are
    if file.is_dir():
        raise ConfigError(f"{file} is a folder: name a file, as in {file / 'study.toml'}")
    if file.exists() and not force:
        raise ConfigError(f"{file} exists: give another name, or --force to overwrite it")
    draft = None
    if images is None and dataset is None:
        _check_unused(
            table=table, task=task, network=network, weights=weights, image_size=image_size
        )
        text = starter_study()
    else:
        from dse.draft import Given, draft_study

        _check_data(images=images, dataset=dataset, table=table, task=task)
        with console.stdout_reserved():
            given = Given(
                images=images,
                table=table,
                dataset=dataset,
                task=task,
                network=network,
                folder=file.absolute().parent,
            )
            draft = draft_study(file, given=given, weights=weights, image_size=image_size)
        text = draft.text
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from error
    if as_json:
        console.print_json({"version": 1, "study": str(file)})
        return
    if draft is not None:
        _show(draft)
    change = "" if draft else " Change its network, data and budgets, then:"
    console.say(
        f"Wrote {file}.{change}\n"
        f"  dse run {file} --dry-run    check it\n"
        f"  dse run {file}{' --trials 2' if draft else ''}"
    )


def _check_unused(**given: object) -> None:
    """Check that nothing is named that belongs to a user's data.

    Raises:
        ConfigError: otherwise; the message names the flag.
    """
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')} needs --images DIR or --dataset DIR: give your data "
                "too, or leave it out"
            )


def _check_data(
    *, images: Path | None, dataset: Path | None, table: Path | None, task: str | None
) -> None:
    """Check that data and task go together, as far as their flags tell.

    Raises:
        ConfigError: otherwise.
    """
    if images is not None and dataset is not None:
        raise ConfigError("--images and --dataset are both given: leave one of them out")
    if table is not None and images is None:
        raise ConfigError("--table belongs to --images: leave it out")
    if task is not None and task not in TASKS:
        near = nearest(task, TASKS)
        hint = f"did you mean {near}?" if near else f"write {either(TASKS)}"
        raise ConfigError(f"--task {task} is not known: {hint}")


def _show(draft: "Draft") -> None:
    plan = draft.plan
    for line in plan.data.lines():
        console.say(line)
    unpruned, smallest = plan.unpruned_peak_bytes or 0, plan.smallest_peak_bytes or 0
    console.say(
        f"network {plan.study.network.name}, weights {plan.study.network.weights}, "
        f"{draft.samples}: one training step of {plan.study.training.batch_size} holds "
        f"{format_size(unpruned)}, of the smallest pruned network {format_size(smallest)}"
    )
    for note in plan.notes:
        console.note(note)
