"""Types of single values: validated from TOML, and converted to the type in use."""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator

from dse import names
from dse.config.lora import canonical_scheme
from dse.errors import ConfigError
from dse.names import (
    ENGINES,
    SCHEMES,
    either,
    library_of,
    nearest,
    scheme_kind,
    scheme_parts,
)
from dse.units import PeakShare, exact_size, exact_text, parse_budget, parse_duration, parse_size

Value = TypeVar("Value")
Key = TypeVar("Key", bound=Hashable)

_WITHIN = "lean:SIZE"  # the table's placeholder for lean engines within a size
FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_MOST_TRANSFORMS = 32
_DEEPEST_TRANSFORMS = 4
_LARGEST_OPTION = 4096  # like images' sides: no memory for larger ones
_OF_LIBRARY = {
    "torchvision": re.compile(r"\w+"),
    "timm": re.compile(r"\w+(\.[\w-]+)?"),
    "lite": re.compile(r"[\w-]+"),
    "export": re.compile(r"[^\x00-\x1f]*\S"),
    "hf": re.compile(r"[^\x00-\x1f]*\S"),  # a folder may be called anything
}


def first_duplicate(values: Iterable[Key]) -> Key | None:
    """Return the first value that occurs twice; None if there is none."""
    seen: set[Key] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def is_network_name(name: str) -> bool:
    """Return whether a text has the form of a network's name."""
    library = library_of(name)
    if library is None:
        return FACTORY.fullmatch(name) is not None
    return _OF_LIBRARY[library].fullmatch(name.partition(":")[2]) is not None


def _read(parse: Callable[[object], Value]) -> Callable[[object], Value]:
    """Convert a parser's ConfigError to the ValueError that pydantic expects, to add the key."""

    def read(value: object) -> Value:
        try:
            return parse(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    return read


def _tuple(value: object) -> object:
    """Convert TOML's arrays to tuples; leave other types to the type check."""
    return tuple(value) if isinstance(value, list) else value


def _path(value: object) -> object:
    if value == "":
        raise ValueError('must not be empty: write "." for the present folder')
    return Path(value) if isinstance(value, str) else value


def _label(value: object) -> object:
    """Accept whole numbers as names, since labels are often numbers."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else value


def _distinct(values: tuple[Key, ...]) -> tuple[Key, ...]:
    if (twice := first_duplicate(values)) is not None:
        raise ValueError(f"holds {twice!r} twice: take one out")
    return values


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(values))


def _shares_first(budgets: tuple[int | PeakShare, ...]) -> tuple[int | PeakShare, ...]:
    """Sort shares before sizes, because they can't be compared before the peak is known."""
    shares = sorted(one for one in budgets if isinstance(one, PeakShare))
    return (*shares, *sorted(one for one in budgets if isinstance(one, int)))


def _written_budget(budget: int | PeakShare) -> int | str:
    return str(budget) if isinstance(budget, PeakShare) else exact_size(budget)


def _not_falling(ratio: tuple[float, float]) -> tuple[float, float]:
    if ratio[0] > ratio[1]:
        raise ValueError(f"must not fall: write [{ratio[1]:g}, {ratio[0]:g}]")
    return ratio


def _data_name(name: str) -> str:
    if name not in names.DATA_SETS and not FACTORY.fullmatch(name):
        raise ValueError(
            'is not a data set: write "digits", "folder" or "hf" (and their root), '
            '"torchvision:NAME" (as in "torchvision:CIFAR10") or "package.module:factory"'
        )
    return name


def _transforms(given: object, depth: int = 1) -> object:
    """Check the form of transforms; whether there are such is known by `dse.data`.

    Raises:
        ValueError: if one has no name, or an option is no number, word, switch or list.
    """
    if not isinstance(given, list | tuple) or not 0 < len(given) <= _MOST_TRANSFORMS:
        raise ValueError(f"must be a list of 1 to {_MOST_TRANSFORMS} tables, each with a name")
    if depth > _DEEPEST_TRANSFORMS:
        raise ValueError(f"must not be nested more than {_DEEPEST_TRANSFORMS} deep")
    for one in given:
        table = one if isinstance(one, Mapping) else {}
        if not (name := table.get("name")) or not isinstance(name, str):
            raise ValueError(
                'must hold tables with a name, as in {name = "RandomHorizontalFlip", p = 0.5}'
            )
        for key, value in table.items():
            if key == "transforms":
                _transforms(value, depth + 1)
            elif not all(map(_is_option, value if isinstance(value, list | tuple) else [value])):
                raise ValueError(
                    f"holds {name!r} with {key} = {value!r}: give a word, a switch, a number up to "
                    f"{_LARGEST_OPTION}, or a list of numbers"
                )
    return tuple(dict(one) for one in given)


def _is_option(value: object) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) <= _LARGEST_OPTION  # not NaN either
    return isinstance(value, str | bool)


def _columns(given: object) -> object:
    """Bring columns to lists of names."""
    if not isinstance(given, Mapping) or not given or not set(given) <= {"input", "target"}:
        raise ValueError('must be a table of input and target, as in {input = "image"}')
    for key, names_given in given.items():
        listed = [names_given] if isinstance(names_given, str) else names_given
        sound = isinstance(listed, list | tuple) and all(isinstance(one, str) for one in listed)
        if not sound or not listed:
            raise ValueError(f"has {key} = {names_given!r}: give the name of a column, or a list")
        _distinct(tuple(listed))
    return {key: (one,) if isinstance(one, str) else tuple(one) for key, one in given.items()}


def canonical_blocks(drop: str) -> str:
    """Sort names of blocks, so that equal sets have equal texts; numbers in them count."""
    found = [name.strip() for name in drop.split(",")]
    if not all(found):
        raise ValueError("names no block: write names of modules, as in features.3,features.5")
    if (twice := first_duplicate(found)) is not None:
        raise ValueError(f"names {twice!r} twice: take one out")
    return ",".join(sorted(found, key=_in_order))


def _in_order(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _scheme(scheme: str) -> str:
    scheme = canonical_scheme(scheme)
    parts = scheme_parts(scheme)
    if any(scheme_kind(one) not in SCHEMES for one in parts) or re.search(r"\s", scheme):
        near = nearest(scheme, (entry for entry in SCHEMES if ":" not in entry))
        hint = f'; did you mean "{near}"?' if near else ' (as in "from:features.14")'
        raise ValueError(f"is not a scheme: write {either(SCHEMES, quoted=True)}{hint}")
    if len(set(parts)) < len(parts):
        raise ValueError(f'joins "{first_duplicate(parts)}" twice: take one out')
    return scheme


def engine_word(engine: str) -> str:
    """Return the canonical word of an engine: sizes are written as in "lean:128 MiB".

    Raises:
        ValueError: If there is no such engine, or its size is none.
    """
    if engine in ENGINES and engine != _WITHIN:
        return engine
    start, colon, size = engine.partition(":")
    if colon and start == "lean" and size.strip():
        try:
            size_bytes = parse_size(size)
        except ConfigError as error:
            raise ValueError(
                f"is not an engine: after lean: comes least or a size; {error}"
            ) from error
        if not size_bytes:
            raise ValueError("is not an engine: give a size of more than 0 bytes")
        return lean_within(size_bytes)
    near = nearest(engine, (word for word in ENGINES if word != _WITHIN))
    hint = f'; did you mean "{near}"?' if near else ' (as in "lean:128 MiB")'
    raise ValueError(f"is not an engine: write {either(ENGINES, quoted=True)}{hint}")


def lean_within(size_bytes: int) -> str:
    """Return the word of the lean engine whose plan fits a size."""
    return f"lean:{exact_text(size_bytes)}"


def _one_of(table: Mapping[str, str]) -> AfterValidator:
    """Accept a word of a table in `dse.names`, including words that extensions have added."""

    def check(word: str) -> str:
        if word not in table:
            near = nearest(word, table)
            hint = f'; did you mean "{near}"?' if near else ""
            raise ValueError(f"is not known: write {either(table, quoted=True)}{hint}")
        return word

    return AfterValidator(check)


def _loss(name: str) -> str:
    if name not in names.LOSSES and not FACTORY.fullmatch(name):
        near = nearest(name, names.LOSSES)
        hint = f'; did you mean "{near}"?' if near else ""
        raise ValueError(
            f"is not a loss: write {either(names.LOSSES, quoted=True)}, or "
            f"package.module:factory{hint}"
        )
    return name


AsTuple = BeforeValidator(_tuple)
Distinct = AfterValidator(_distinct)

DataName = Annotated[str, AfterValidator(_data_name)]
Scheme = Annotated[str, AfterValidator(_scheme)]
Blocks = Annotated[str, AfterValidator(canonical_blocks)]
Engine = Annotated[str, AfterValidator(engine_word)]
Optimizer = Annotated[str, _one_of(names.OPTIMIZERS)]
Task = Annotated[str, _one_of(names.TASKS)]
Loss = Annotated[str, AfterValidator(_loss)]
ClassMetric = Annotated[
    str, _one_of({one: names.METRICS[one] for one in names.TASK_METRICS["classification"]})
]
Criterion = Annotated[str, _one_of(names.CRITERIA)]
Sampler = Annotated[str, _one_of(names.SAMPLERS)]
Objective = Annotated[str, _one_of(names.OBJECTIVES)]
BaselineMethod = Annotated[str, _one_of(names.BASELINE_METHODS)]

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
ImageSize = Annotated[int, Field(ge=8, le=4096)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1e6)]  # larger rates overflow float32 within one step
Share = Annotated[float, Field(gt=0, lt=1)]
Ratio = Annotated[float, Field(ge=0, lt=1)]
RatioRange = Annotated[tuple[Ratio, Ratio], AsTuple, AfterValidator(_not_falling)]
Ratios = Annotated[tuple[Ratio, ...], AsTuple, Distinct, AfterValidator(_ascending)]
Factors = Annotated[
    tuple[Positive, ...], AsTuple, Field(min_length=1), Distinct, AfterValidator(_ascending)
]
Size = Annotated[int, BeforeValidator(_read(parse_size)), PlainSerializer(exact_size), Field(gt=0)]
Budgets = Annotated[
    tuple[
        Annotated[
            int | PeakShare,
            PlainValidator(_read(parse_budget)),
            PlainSerializer(_written_budget, return_type=int | str),
        ],
        ...,
    ],
    AsTuple,
    Field(min_length=1),
    Distinct,
    AfterValidator(_shares_first),
]
Duration = Annotated[float, BeforeValidator(_read(parse_duration)), Field(gt=0)]
FolderPath = Annotated[Path, BeforeValidator(_path)]
Label = Annotated[str, BeforeValidator(_label), Field(min_length=1)]
Labels = Annotated[tuple[Label, ...], AsTuple, Field(min_length=1), Distinct]
Tokens = Annotated[int, Field(ge=2, le=2**16)]
Columns = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_columns)]
Transforms = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_transforms)]
Colours = Annotated[tuple[float, ...], AsTuple, Field(min_length=1)]
Shape = Annotated[tuple[Count, ...], AsTuple, Field(min_length=1, max_length=6)]
