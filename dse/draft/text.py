"""The text of a drafted study; a comment beside each value gives its reason."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from dse.config.data import DEFAULT_TOKENS
from dse.data import DataSummary
from dse.data.summary import counted, printable
from dse.errors import ConfigError
from dse.names import TASK_METRICS, library_of
from dse.search.plan import Plan
from dse.units import format_size
from dse.weight_files import is_weights_file

VALIDATION_SHARE = SELECTION_SHARE = 0.25

_MOST_LABELS = 20  # more labels are not listed; a comment shows how to choose some
_SMALL = 3000  # training images; with fewer, short fine-tunings last two epochs


@dataclass(frozen=True, kw_only=True)
class KnownNetwork:
    """The properties of the network that the study states.

    Attributes:
        weights: the weights as the study names them.
        image_size: side of the images, in pixels; None for samples that are no images.
        why: the reason for that size.
        mean: mean of each colour.
        std: standard deviation of each colour.
        normalisation: origin of both.
        interpolation: how images are resized.
        crop: share of the short side that is kept.
    """

    weights: str
    image_size: int | None = None
    why: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    normalisation: str = ""
    interpolation: str = "bilinear"
    crop: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the text states.

    Attributes:
        file: future file of the study.
        root: folder of the data, as written.
        table: table of the targets, as written; None if there is none.
        name: name of the network.
        network: its other properties.
        data: summary of the data.
        batch_size: images per step.
    """

    file: Path
    root: str
    table: str | None = None
    name: str
    network: KnownNetwork
    data: DataSummary
    batch_size: int


def written_path(path: Path, folder: Path) -> str:
    """Return a path relative to the study's folder if it lies below it, else the full path."""
    full = path.absolute()
    return str(full.relative_to(folder) if full.is_relative_to(folder) else full)


def study_text(facts: Facts, *, shares: tuple[int, int], fine: bool, plan: Plan | None) -> str:
    """Return the text of the study.

    Args:
        facts: what the text states.
        shares: budgets in percent of the unpruned peak.
        fine: whether channels are removed one by one, not by the multiple of the space "auto".
        plan: a dry run of an earlier text, whose peaks become a comment; None if there is none.
    """
    sections = (
        _header(facts),
        _network_lines(facts),
        *([] if facts.data.task == "classification" else [_task_lines(facts)]),
        _data_lines(facts),
        _space_lines(fine=fine),
        _training_lines(facts),
        _search_lines(shares, plan),
    )
    return "\n".join(line for section in sections for line in (*section, ""))


def _header(facts: Facts) -> Iterator[str]:
    file = printable(str(facts.file))
    name = _study_name(facts.file)
    yield "# A study drafted by dse init for your data and network. Check it, then run it:"
    yield f"#     dse run {file} --dry-run"
    yield f"#     dse run {file} --trials 2     # a first look; the next run continues it"
    yield "# dse init OTHER.toml writes one with every key explained."
    yield ""
    yield _pair("name", name, f"results go to runs/{name}")
    yield "seed = 0"


def _network_lines(facts: Facts) -> Iterator[str]:
    weights = facts.network.weights
    comment = "random; or a file of weights"
    if is_weights_file(weights):
        comment = "the output layer is new if its number of outputs differs"
    elif weights != "none":
        library = library_of(facts.name)
        comment = "those in the file" if library == "export" else f"of {library}, downloaded once"
    yield "[network]"
    yield _pair("name", facts.name)
    yield _pair("weights", weights, comment)


def _task_lines(facts: Facts) -> Iterator[str]:
    kind = facts.data.task
    yield "[task]"
    yield _pair("kind", kind, f"scored by {TASK_METRICS[kind][0]}; docs/tasks.md has more")
    if kind == "multi-label":
        yield '# positive_weights = "balanced"         # rare labels count as much as others'
    if kind == "segmentation":
        yield '# class_weights = "balanced"            # rare classes count as much as others'
        yield _pair("ignore", 255, "pixels of this value count nowhere")
    if kind == "regression":
        yield _pair("standardise", value=True, comment="train on columns of mean 0, deviation 1")


def _data_lines(facts: Facts) -> Iterator[str]:
    known, data = facts.network, facts.data
    yield "[data]"
    yield _pair("name", data.name)
    yield _pair("root", facts.root, "a relative path starts at this file's folder")
    if facts.table is not None:
        yield _pair("table", facts.table, "the files' names, then a column for each output")
    yield from _label_lines(data)
    for part in data.parts:
        yield f"# {part.name}: {counted(part.images, 'image')}, {printable(part.origin)}"
    if data.name == "hf":
        yield from (f"# {printable(note)}" for note in data.notes)
    yield _pair("validation_share", VALIDATION_SHARE, "if there is no validation part")
    yield _pair("selection_share", SELECTION_SHARE, "of the rest; candidates are compared on it")
    if known.image_size is None:
        if "input_ids" in data.pixel_values:
            yield _pair("tokens", DEFAULT_TOKENS, "of each text, cut or filled up")
        return
    yield f"# {known.why}"
    yield _pair("image_size", known.image_size, "pixels")
    yield 'augment = "flip"                        # or "none", "crop-flip"; or name transforms'
    if known.interpolation != "bilinear" or known.crop != 1:
        yield _pair("interpolation", known.interpolation, "how images are resized")
        yield _pair("crop", known.crop, "share of the short side that is kept")
    yield f"# mean and std of each colour: {known.normalisation}"
    yield f"mean = {_numbers(known.mean)}"
    yield f"std = {_numbers(known.std)}"


def _space_lines(*, fine: bool) -> Iterator[str]:
    yield "[space]"
    yield 'name = "auto"                           # every channel group of the network'
    if fine:
        yield _pair("multiple", 1, "the layers are narrow")
        yield _pair("floor", 1)


def _training_lines(facts: Facts) -> Iterator[str]:
    train = facts.data.train or 0
    pretrained = facts.network.weights != "none"
    short, full = (2.0, 10.0) if train < _SMALL else (1.0, 5.0)
    yield "[training]"
    yield 'scheme = "full"                         # or "last", "norm", "bias", "from:MODULE"'
    yield _pair("batch_size", facts.batch_size, f"of {train} images to train on")
    yield 'optimizer = "adamw"'
    yield _pair("learning_rate", 0.0005 if pretrained else 0.003)
    yield ""
    yield "[proxy]"
    yield _pair("calibrate_batches", max(1, min(8, train // facts.batch_size)))
    yield _pair("short_epochs", short, "for every candidate")
    yield _pair("full_epochs", full, "for finalists and exports")
    yield ""
    yield "[baselines]"
    yield 'methods = ["uniform", "peak-greedy", "last", "checkpointing"]'


def _search_lines(shares: tuple[int, int], plan: Plan | None) -> Iterator[str]:
    yield "[search]"
    yield "trials = 20"
    if plan is not None:
        unpruned, smallest = plan.unpruned_peak_bytes or 0, plan.smallest_peak_bytes or 0
        yield f"# A training step of the unpruned network holds {format_size(unpruned)},"
        yield f"# the smallest network of the space {format_size(smallest)}. Budgets are shares of"
        yield '# the first, or sizes such as "64 MiB".'
    yield _pair("budgets", [f"{share} %" for share in shares])
    yield "uniform_baselines = [0.25, 0.5]"
    yield "finalists = 2"


def _label_lines(data: DataSummary) -> Iterator[str]:
    labels = data.labels or ()
    counts = [sum(each) for each in zip(*(part.per_label for part in data.parts), strict=True)]
    found = ", ".join(
        f"{label} {count}"
        for label, count in list(zip(labels, counts, strict=False))[:_MOST_LABELS]
    )
    if len(labels) <= _MOST_LABELS:
        yield _pair("labels", list(labels), "in the order of the outputs")
        if found:
            yield f"# images of each: {found}"
    else:
        yield f"# {len(labels)} labels; the first are {found or ', '.join(labels[:_MOST_LABELS])}"
        yield f"{_pair('# labels', list(labels[:2]))}  # a subset, if you want fewer"


def _pair(key: str, value: object, comment: str = "") -> str:
    """Return the line `key = value`, with a comment from column 41."""
    written = tomli_w.dumps({"x": value}, multiline_strings=False).strip()
    if "\n" in written:  # an array
        written = "x = " + _flat(value)
    line = key + written[1:]
    return f"{line:<39} # {comment}" if comment else line


def _flat(values: Any) -> str:
    return f"[{', '.join(tomli_w.dumps({'x': one}).strip()[4:] for one in values)}]"


def _numbers(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _study_name(file: Path) -> str:
    """Return a name that fits a folder, from the file's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", file.stem).strip("._-")[:100]
    if not name:
        raise ConfigError(f"{file}: give the study file a name with a letter or digit in it")
    return name
