"""Finds which columns of a Hugging Face data set are inputs, and which the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dse.data.collating import TARGET_KEYS
from dse.data.targets import Form
from dse.errors import DataError
from dse.names import nearest

Kind = Literal["image", "text", "number", "class", "classes", "array", "unread"]

_TARGETS = (*TARGET_KEYS, "class", "annotation")
_TOKENS = ("input_ids", "token_type_ids", "attention_mask")
_MASKS = ("mask", "masks", "segmentation", "segmentation_mask", "annotation", *_TARGETS)
_FITTING: dict[Form, tuple[Kind, ...]] = {
    "class": ("class", "number", "text"),
    "labels": ("classes", "array"),
    "values": ("number", "array"),
    "mask": ("image", "array"),
}
_WANTED: dict[Form, str] = {
    "class": "a class label, a whole number or a word",
    "labels": "a list of class labels, or a list of zeros and ones",
    "values": "a number, or a list of numbers",
    "mask": "an image or an array of whole numbers",
}
_PAIR = 2  # texts that a tokenizer takes together


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that are read.

    Attributes:
        inputs: names of the columns that the network is given.
        target: names of the columns of the target; several make one vector.
        kind: kind of the inputs.
    """

    inputs: tuple[str, ...]
    target: tuple[str, ...]
    kind: Kind


def kind_of_feature(feature: Any) -> Kind:
    """Return what a column holds, by the feature that describes it."""
    name = type(feature).__name__
    if name == "Value":
        return _kind_of_value(str(feature.dtype))
    if name.startswith("Array"):
        return "array"
    inner = feature[0] if isinstance(feature, list) and feature else None
    inner = getattr(feature, "feature", inner)
    if inner is None:
        known: dict[str, Kind] = {"Image": "image", "ClassLabel": "class"}
        return known.get(name, "unread")
    return _OF_LISTS.get(kind_of_feature(inner), "unread")


_OF_LISTS: dict[Kind, Kind] = {"class": "classes", "number": "array", "array": "array"}


def _kind_of_value(dtype: str) -> Kind:
    if "string" in dtype:
        return "text"
    return "number" if dtype.startswith(("int", "uint", "float", "bool")) else "unread"


def find_inputs(
    features: Mapping[str, Any],
    named: Mapping[str, Sequence[str]],
    *,
    place: str,
) -> tuple[tuple[str, ...], Kind]:
    """Return the columns of inputs, and their kind.

    They are those that the study names; otherwise the only image that is no mask, tokens, the only
    text, or the only array that isn't called like a target.

    Args:
        features: the columns and what they hold.
        named: the study's `data.columns`.
        place: of the data, for messages.

    Raises:
        DataError: if a column is missing, of no use, or can't be told from others.
    """
    kinds = {name: kind_of_feature(feature) for name, feature in features.items()}
    given = tuple(named.get("input", ()))
    if given:
        _check_there(given, kinds, key="input", place=place)
        found = {kinds[name] for name in given}
        if len(found) > 1 or not found <= {"image", "text", "array"}:
            raise DataError(
                f"{place}: data.columns.input is {_listed(given)}, which hold "
                f"{_listed(sorted(found))}: name an image, one text or two, or arrays"
            )
        (kind,) = found
        if len(given) > {"image": 1, "text": _PAIR}.get(kind, len(given)):
            raise DataError(
                f"{place}: data.columns.input names {len(given)} columns of {kind}: a network "
                f"takes {'two texts' if kind == 'text' else 'one image'} at most"
            )
        return given, kind
    taken = named.get("target") or _TARGETS
    if tokens := tuple(name for name in _TOKENS if kinds.get(name) == "array"):
        return tokens, "array"
    for kind in ("image", "text", "array"):
        fitting = [name for name in kinds if kinds[name] == kind and name not in taken]
        if kind == "image" and len(fitting) > 1:
            fitting = [name for name in fitting if name.lower() not in _MASKS]
        if len(fitting) == 1:
            return (fitting[0],), kind
        if fitting:
            raise DataError(
                f"{place} has several columns of {kind} ({_listed(fitting)}): name the inputs, as "
                f'in data.columns = {{input = "{fitting[0]}"}}'
            )
    raise DataError(
        f"{place} has no column of images, text or arrays (it has {_described(kinds)}): name one "
        "in data.columns = {input = ...}"
    )


def find_columns(
    features: Mapping[str, Any],
    named: Mapping[str, Sequence[str]],
    *,
    form: Form,
    place: str,
) -> Columns:
    """Return the columns of inputs and of the target.

    The target is what the study names; otherwise the only column that can be one, or the one that
    is called so.

    Args:
        features: the columns and what they hold.
        named: the study's `data.columns`.
        form: what the task's targets are.
        place: of the data, for messages.

    Raises:
        DataError: if a column is missing, of no use, or can't be told from others.
    """
    kinds = {name: kind_of_feature(feature) for name, feature in features.items()}
    given = tuple(named.get("target", ()))
    _check_there(given, kinds, key="target", place=place)
    inputs, kind = find_inputs(features, named, place=place)
    if given:
        _check_target(given, kinds, inputs, form=form, place=place)
        return Columns(inputs=inputs, target=given, kind=kind)
    rest = {name: one for name, one in kinds.items() if name not in inputs}
    fitting = [name for name, one in rest.items() if one in _FITTING[form]]
    called = [name for name in fitting if name.lower() in (*_TARGETS, *_MASKS)]
    best = [name for name in fitting if rest[name] == _FITTING[form][0]]
    for choice in (called, best, fitting):
        if len(choice) == 1:
            return Columns(inputs=inputs, target=(choice[0],), kind=kind)
    if not fitting:
        raise DataError(
            f"{place} has no column for the target (it has {_described(kinds)}): the task needs "
            f"{_WANTED[form]}"
        )
    raise DataError(
        f"{place} has several columns for the target ({_listed(called or fitting)}): name one, as "
        f'in data.columns = {{target = "{(called or fitting)[0]}"}}'
    )


def _check_target(
    given: tuple[str, ...],
    kinds: Mapping[str, Kind],
    inputs: tuple[str, ...],
    *,
    form: Form,
    place: str,
) -> None:
    for name in given:
        if name in inputs:
            raise DataError(f"{place}: data.columns names {name!r} as input and target: take one")
        several = len(given) > 1
        fitting = ("number", "class") if several else _FITTING[form]
        if kinds[name] not in fitting or (several and form not in ("labels", "values")):
            wanted = "a number in each of several columns" if several else _WANTED[form]
            raise DataError(
                f"{place}: data.columns.target names {name!r}, whose type is {_word(kinds[name])}: "
                f"the task needs {wanted}"
            )


def _check_there(given: Sequence[str], kinds: Mapping[str, Kind], *, key: str, place: str) -> None:
    for name in given:
        if name not in kinds:
            near = nearest(name, kinds)
            hint = f"did you mean {near!r}?" if near else f"it has {_described(kinds)}"
            raise DataError(f"{place}: data.columns.{key} names {name!r}, which is missing: {hint}")


def _described(kinds: Mapping[str, Kind]) -> str:
    return ", ".join(f"{name}: {_word(kind)}" for name, kind in kinds.items()) or "none"


def _word(kind: Kind) -> str:
    words = {"class": "class label", "classes": "list of class labels", "unread": "not read"}
    return words.get(kind, kind)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
