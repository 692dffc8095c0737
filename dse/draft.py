"""A study drafted for a folder of images and a network, with what was found about both.

Everything that a run needs is looked up or tried: the image size, the labels, batch and budgets.
The text that comes out is a study file; whatever decided a value stands in a comment beside it.
"""

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch
import torchvision
from PIL import Image

from dse.config import IMAGENET_MEAN, IMAGENET_STD, DataConfig, Study, load_study
from dse.data import DataSummary, check_data
from dse.data.summary import printable
from dse.errors import ConfigError, DataError, InfeasibleError, NetworkError
from dse.networks.build import TORCHVISION, build_network, example_input
from dse.networks.forward import evaluating
from dse.search.plan import Plan, dry_run
from dse.units import format_size

COMMON_SIZES = (224, 192, 160, 128, 96, 64, 48, 32, 28, 16, 12, 8, 256, 299, 384)
"""Sides of images that networks are made for; tried in this order where nothing else is known."""

MOST_LABELS = 20
"""So many are listed; of more, the file says how to narrow them."""

_SAMPLE = 200  # images whose headers are read, to learn how large they are
_LARGEST_BATCH = 32
_SMALL = 3000  # training images, below which short fine-tunings see each of them twice
_SHARES = (25, 50)  # percent of the unpruned peak
_STEP = 5  # percent, to which other shares are rounded
_MULTIPLE = 8  # of kept channels, in the search space "auto"
_TOO_WIDE = 0.4  # share of the peak that the smallest network may hold under that multiple


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A study's text, and what a run of it would do."""

    text: str
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """All that the text says; paths as they are written in it."""

    file: Path
    root: str
    name: str
    network: "_Network"
    data: DataSummary
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class _Network:
    """What is known of the network before the study is written.

    Attributes:
        weights: as the study will name them.
        image_size: side of the images, in pixels.
        why: the image size was chosen.
        mean: of each colour.
        std: of each colour.
        normalisation: where the two come from.
    """

    weights: str
    image_size: int
    why: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalisation: str


def draft_study(
    file: Path, *, images: Path, network: str, weights: str | None, image_size: int | None
) -> Draft:
    """Write a study for a folder of images and a network.

    Args:
        file: where the study will lie; modules of a factory are looked for beside it, and paths
            below its folder are written relative to it. It is not written here.
        images: a folder with a subfolder of images for each label.
        network: `torchvision:NAME` or `package.module:factory`.
        weights: a file, a name of torchvision's weights or `none`; torchvision's best where None.
        image_size: side of the images in pixels; found out where None.

    Returns:
        The text of the study, which was read back and checked as `dse run --dry-run` does.

    Raises:
        DseError: the images, the network or the weights can't be used; one line says why.
    """
    folder = file.absolute().parent
    data = check_data(
        DataConfig(name="folder", root=images.absolute(), validation_share=0.25)
    )  # the shares are those of the text
    labels = data.labels or ()
    _check_writable(labels)
    known = _network(
        network,
        weights=weights,
        classes=len(labels),
        image_size=image_size,
        images=images,
        folder=folder,
    )
    facts = _Facts(
        file=file,
        root=_path(images, folder),
        name=network,
        network=known,
        data=data,
        batch_size=_batch_size(data),
    )
    unknown = (99, 100)  # percent; nothing is refused for them
    multiple = _MULTIPLE
    plan = None
    with suppress(ConfigError):  # layers may be too narrow for it; all else is raised again below
        plan = dry_run(
            _read(_text(facts, shares=unknown, multiple=multiple, plan=None), file), data=data
        )
    if plan is None or _smallest(plan) > _TOO_WIDE:  # let single channels go
        multiple = 1
        plan = dry_run(
            _read(_text(facts, shares=unknown, multiple=multiple, plan=None), file), data=data
        )
    text = _text(facts, shares=_shares(_smallest(plan)), multiple=multiple, plan=plan)
    return Draft(text=text, plan=dry_run(_read(text, file), data=data))


def _smallest(plan: Plan) -> float:
    """Peak of the smallest network of the space, as a share of the unpruned one's."""
    return (plan.smallest_peak_bytes or 0) / (plan.unpruned_peak_bytes or 1)


def _read(text: str, file: Path) -> Study:
    """Read a study from its text as if it lay at a place."""
    return load_study(file, text=text)


def _check_writable(labels: tuple[str, ...]) -> None:
    for label in labels:
        if printable(label) != label:
            raise DataError(
                f"the subfolder {printable(label)!r} has a name that no study can hold: rename it"
            )


def _shares(smallest: float) -> tuple[int, int]:
    """Choose two budgets, in percent, that the search space can meet.

    Args:
        smallest: peak of the smallest network of the space, as a share of the unpruned one's.

    Raises:
        InfeasibleError: hardly anything can be pruned away.
    """
    low, high = _SHARES
    floor = 100 * smallest
    if floor > 100 - 2 * _STEP:
        raise InfeasibleError(
            f"pruning saves at most {100 - floor:.1f} % of the training step's memory under this "
            "network and batch size: dse memory NETWORK --explain shows what holds it"
        )
    if floor <= low - _STEP:
        return low, high
    room = 100 - floor
    first, second = (
        min(95, _STEP * math.ceil((floor + share * room) / _STEP)) for share in (0.25, 0.5)
    )
    return first, max(second, first + 1)


def _batch_size(data: DataSummary) -> int:
    """The largest power of two up to 32 that leaves four batches to an epoch, at least 2."""
    images = data.train or 0
    quarter = max(2, min(_LARGEST_BATCH, images // 4))
    size = 2 ** int(math.log2(quarter))
    if images < size:
        raise DataError(
            f"{data.place}: {images} images are left to train on, too few for a batch of {size}"
        )
    return int(size)


def _network(
    name: str,
    *,
    weights: str | None,
    classes: int,
    image_size: int | None,
    images: Path,
    folder: Path,
) -> _Network:
    """Find the weights, image size and normalisation of a network.

    Raises:
        NetworkError: it can't be built, or runs on images of no common size.
    """
    known = _torchvision_weights(name, weights)
    chosen, transforms = known if known is not None else (_file_or_none(weights, folder), None)
    if transforms is not None:
        (size,) = transforms.crop_size
        mean, std = tuple(transforms.mean), tuple(transforms.std)
        normalisation = f"the weights {chosen} were trained with these"
    else:
        size, mean, std = None, IMAGENET_MEAN, IMAGENET_STD
        normalisation = "ImageNet's; change them to what your weights were trained with"
    built = build_network(name, classes=classes, search_path=folder)
    short_side = _short_side(images)
    own = f"your images' short sides are {short_side} px in the median"
    if image_size is not None:
        tried: tuple[int, ...] = (image_size,)
        why = f"as --image-size says; {own}"
    elif size is not None:
        tried = (size,)
        why = f"what {chosen} was trained on; {own}"
    else:
        fitting = sorted((one for one in COMMON_SIZES if one <= short_side), reverse=True)
        tried = (*(one for one in fitting if one <= COMMON_SIZES[0]), *COMMON_SIZES)
        why = f"the network runs on it; {own}"
    troubles: dict[int, str] = {}
    for side in dict.fromkeys(tried):
        trouble = _trouble(built, side, classes)
        if trouble is None:
            return _Network(
                weights=chosen,
                image_size=side,
                why=why,
                mean=mean,
                std=std,
                normalisation=normalisation,
            )
        troubles[side] = trouble
    first = next(iter(troubles.items()))
    raise NetworkError(
        f"network {name!r} runs on images of none of {', '.join(map(str, troubles))} pixels "
        f"(with {first[0]}: {first[1]}); give --image-size"
    )


def _torchvision_weights(name: str, weights: str | None) -> tuple[str, Any] | None:
    """The name and the transforms of torchvision's weights; None where it isn't about those."""
    model = name.removeprefix(TORCHVISION)
    if model == name or weights == "none" or Path(weights or "").suffix:
        return None
    if model not in torchvision.models.list_models(module=torchvision.models):
        return None  # building the network says so, with the nearest name
    members = torchvision.models.get_model_weights(model).__members__
    if weights is None and not members:
        return None
    chosen = weights or "DEFAULT"
    if chosen not in members:
        raise NetworkError(
            f"--weights {chosen}: {name} has none of that name; use none, a file or one of "
            f"{', '.join(members)}"
        )
    return chosen, members[chosen].transforms()


def _file_or_none(weights: str | None, folder: Path) -> str:
    if weights is None or not Path(weights).suffix:
        return weights or "none"
    return _path(Path(weights), folder)


def _trouble(network: torch.nn.Module, side: int, classes: int) -> str | None:
    """Say why a network doesn't classify images of a size; None if it does."""
    try:
        with evaluating(network), torch.no_grad():
            logits = network(example_input(2, side))
    except Exception as error:  # noqa: BLE001  # a network's own code may raise anything
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if isinstance(logits, torch.Tensor) and tuple(logits.shape) != (2, classes):
        return f"its output has shape {tuple(logits.shape)}, not (2, {classes})"
    return None


def _short_side(images: Path) -> int:
    """Median of the shorter sides of some images, in pixels, from their headers alone."""
    sides = []
    for path in sorted(images.rglob("*.*"))[:: max(1, _count(images) // _SAMPLE)]:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # no image; the data's own check says what it passes over
    return sorted(sides)[len(sides) // 2] if sides else COMMON_SIZES[0]


def _count(images: Path) -> int:
    return sum(1 for _ in images.rglob("*.*"))


def _path(path: Path, folder: Path) -> str:
    """Write a path relative to the study's folder where it lies below it, else in full."""
    full = path.absolute()
    return str(full.relative_to(folder) if full.is_relative_to(folder) else full)


def _text(facts: _Facts, *, shares: tuple[int, int], multiple: int, plan: Plan | None) -> str:
    """Write the study; the first texts, from which the plan is made, have none to tell of."""
    sections = (
        _header(facts),
        _network_lines(facts),
        _data_lines(facts, facts.data if plan is None else plan.data),
        _space_lines(multiple),
        _training_lines(facts),
        _search_lines(shares, plan),
    )
    return "\n".join(line for section in sections for line in (*section, ""))


def _header(facts: _Facts) -> Iterator[str]:
    file = printable(str(facts.file))
    name = _study_name(facts.file)
    yield "# A study drafted by dse init for your images and network. Check it, then run it:"
    yield f"#     dse run {file} --dry-run"
    yield f"#     dse run {file} --trials 2     # a first look; run it again and it goes on"
    yield "# dse init OTHER.toml writes one with every key explained."
    yield ""
    yield _pair("name", name, f"results go to runs/{name}")
    yield "seed = 0"


def _network_lines(facts: _Facts) -> Iterator[str]:
    weights = facts.network.weights
    comment = "random; or a file of weights"
    if Path(weights).suffix:
        comment = "its output layer is replaced where it has another number of outputs"
    elif weights != "none":
        comment = "of torchvision, downloaded once"
    yield "[network]"
    yield _pair("name", facts.name)
    yield _pair("weights", weights, comment)


def _data_lines(facts: _Facts, data: DataSummary) -> Iterator[str]:
    known = facts.network
    yield "[data]"
    yield 'name = "folder"'
    yield _pair("root", facts.root, "a relative path starts at this file's folder")
    yield from _label_lines(data)
    yield f"# {known.why}"
    yield _pair("image_size", known.image_size, "pixels")
    for part in data.parts:
        yield f"# {part.name}: {part.images} images, {printable(part.origin)}"
    yield "validation_share = 0.25                 # where there is no validation folder"
    yield "selection_share = 0.25                  # of the rest; the search compares on it"
    yield 'augment = "flip"                        # or "none", "crop-flip"'
    yield f"# mean and std of each colour: {known.normalisation}"
    yield f"mean = {_numbers(known.mean)}"
    yield f"std = {_numbers(known.std)}"


def _space_lines(multiple: int) -> Iterator[str]:
    yield "[space]"
    yield 'name = "auto"                           # every channel group of the network'
    if multiple != _MULTIPLE:
        yield _pair("multiple", multiple, "the layers are narrow")
        yield _pair("floor", multiple)


def _training_lines(facts: _Facts) -> Iterator[str]:
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
        f"{label} {count}" for label, count in list(zip(labels, counts, strict=False))[:MOST_LABELS]
    )
    if len(labels) <= MOST_LABELS:
        yield _pair("labels", list(labels), "in the order of the outputs")
        yield f"# images of each: {found}"
    else:
        yield f"# {len(labels)} labels; the first are {found}"
        yield f"{_pair('# labels', list(labels[:2]))}  # a subset, where you want fewer"


def _pair(key: str, value: object, comment: str = "") -> str:
    """One line `key = value`, its comment in column 41."""
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
    """A name that fits a folder, from the file's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", file.stem).strip("._-")[:100]
    if not name:
        raise ConfigError(f"{file}: give the study file a name with a letter or digit in it")
    return name
