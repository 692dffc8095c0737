"""The candidate: a pruned network with its recipe, as canonical, versioned JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from dse.config import DataConfig, ProxyConfig, Study, TrainingConfig
from dse.config.fields import (
    Blocks,
    Count,
    Criterion,
    Engine,
    ImageSize,
    Optimizer,
    Rate,
    Scheme,
)
from dse.config.space import NamedGroup
from dse.digests import canonical_json, text_digest
from dse.errors import CandidateError
from dse.names import Checkpointing, dropped

# The tables of a study whose keys a recipe may change.
_TABLES: dict[str, type[BaseModel]] = {
    "training": TrainingConfig,
    "data": DataConfig,
    "proxy": ProxyConfig,
}
_SPELLED = 2  # blocks that are left out by name
_ROUNDING = 1e-9  # 10 * (1 - 0.9) is 0.9999999999999998 and must round to one channel


def _unchangeable(channels: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(channels))


class Candidate(BaseModel):
    """A pruned network and its fine-tuning recipe; fields that are None are the study's own.

    `drop` is a part of the recipe because, like an image size, it has a memory model of its own.

    Instances are immutable, mappings included, so that the digest stays valid.

    Attributes:
        version: version of this format.
        channels: kept channels by group name, for groups that keep fewer than all.
        drop: residual blocks that are left out, as in "features.3,features.5"; None for none.
        scheme: which parameters train.
        batch_size: images per micro-batch.
        accumulate: number of micro-batches whose gradients are added up.
        image_size: side of the images in pixels.
        checkpointing: which activations are recomputed in the backward pass; belongs to the stock
            engine.
        engine: what runs the training step, in its canonical form, as in "lean:128 MiB".
        optimizer: name of the optimizer.
        learning_rate: peak learning rate.
        length: length of the training, as a multiple of the study's.
        importance: criterion by which channels are ranked.
        reconstruct: whether layers that read pruned channels are refitted by least squares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    channels: Annotated[
        Mapping[str, Count],
        AfterValidator(_unchangeable),
        PlainSerializer(dict),
    ] = Field(default_factory=lambda: _unchangeable({}))
    drop: Blocks | None = None
    scheme: Scheme | None = None
    batch_size: Count | None = None
    accumulate: Count | None = None
    image_size: ImageSize | None = None
    checkpointing: Checkpointing | None = None
    engine: Engine | None = None
    optimizer: Optimizer | None = None
    learning_rate: Rate | None = None
    length: Rate | None = None
    importance: Criterion | None = None
    reconstruct: bool | None = None

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.checkpointing == "blocks" and self.engine not in (None, "stock"):
            raise ValueError(
                f'engine "{self.engine}" doesn\'t go with checkpointing "blocks", which belongs to '
                "stock PyTorch: leave one of them out"
            )
        return self

    def __hash__(self) -> int:
        return hash(self.canonical_json())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_json, (self.canonical_json(),)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def canonical_json(self) -> str:
        """Return JSON that is equal for equal candidates: sorted, compact, without defaults."""
        content = self.model_dump(exclude_none=True)
        if not content["channels"]:
            del content["channels"]
        return canonical_json(content)

    @property
    def recipe(self) -> Self:
        """The candidate without its channels: how it is fine-tuned, and without which blocks."""
        return self.model_copy(update={"channels": _unchangeable({})})

    def with_channels(self, channels: Mapping[str, int]) -> Self:
        """Return a candidate with the same recipe and other channels.

        If nothing is pruned, importance and reconstruct have no effect and are removed, so that
        equal trainings have equal digests.

        Args:
            channels: kept channels by group name, for groups that keep fewer than all.
        """
        idle = {} if channels else {"importance": None, "reconstruct": None}
        return self.model_copy(update={"channels": _unchangeable(channels), **idle})

    @property
    def recipe_text(self) -> str:
        """Differences from the study's recipe as text, such as "last, 24x24 px"; may be empty."""
        batch, size = self.batch_size, self.image_size
        added = f"{self.accumulate} batches added up" if self.accumulate else None
        phrases = (
            depth_text(self.drop),
            self.scheme,
            None if batch is None else f"batch {batch}",
            added,
            None if size is None else f"{size}\N{MULTIPLICATION SIGN}{size} px",
            {"blocks": "checkpointed", "none": "not checkpointed"}.get(self.checkpointing or ""),
            None if self.engine is None else engine_text(self.engine),
            self.optimizer,
            None if self.learning_rate is None else f"rate {self.learning_rate:g}",
            None if self.length is None else f"{self.length:g} \N{MULTIPLICATION SIGN} as long",
            None if self.importance is None else f"ranked by {self.importance}",
            {True: "least squares", False: "no least squares", None: None}[self.reconstruct],
        )
        return ", ".join(phrase for phrase in phrases if phrase)

    @property
    def digest(self) -> str:
        """A short digest that equal candidates share."""
        return text_digest(self.canonical_json())

    @classmethod
    def from_json(cls, text: str, *, source: str = "candidate") -> Self:
        """Parse a candidate; `source` names it in errors.

        Raises:
            CandidateError: if it isn't JSON, has an unknown key or version, or an invalid value.
        """
        try:
            content = json.loads(text, object_pairs_hook=_distinct)
        except _TwiceError as error:
            raise CandidateError(f"{source}: {error} occurs twice: remove one") from error
        except RecursionError as error:
            raise CandidateError(
                f"{source}: is nested too deeply; a candidate looks like "
                '{"version": 1, "channels": {"GROUP": 8}}'
            ) from error
        except json.JSONDecodeError as error:
            raise CandidateError(
                f"{source}, line {error.lineno}: not JSON ({error.msg}); "
                'a candidate looks like {"version": 1, "channels": {"GROUP": 8}}'
            ) from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the whole"
            value = json.dumps(first["input"], default=str)[:60]
            reason = first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                known = ", ".join(cls.model_fields)
                problem = f"unknown key {place!r}; known keys are {known}"
            elif first["type"] == "value_error":
                problem = f"{place} {value} {reason}"
            else:
                problem = f"{place} is {value}: {reason[0].lower()}{reason[1:]}"
            raise CandidateError(f"{source}: {problem}") from error

    @classmethod
    def from_kept(cls, groups: Sequence[NamedGroup], kept: Sequence[int], **others: Any) -> Self:
        """Create a candidate from the channels that each group keeps.

        Args:
            groups: channel groups in order.
            kept: kept channels, (groups,); groups that keep all are left out.
            others: further fields.
        """
        channels = {
            group.name: int(count)
            for group, count in zip(groups, kept, strict=True)
            if count != group.channels
        }
        return cls(channels=channels, **others)

    def kept(self, groups: Sequence[NamedGroup]) -> tuple[int, ...]:
        """Return the channels that each group keeps; groups that aren't listed keep all.

        Args:
            groups: channel groups of the candidate's network.

        Raises:
            CandidateError: if a group is unknown, or its count is out of range or not a multiple.
        """
        known = {group.name: group for group in groups}
        for name, count in self.channels.items():
            if name not in known:
                raise CandidateError(
                    f"the candidate keeps {count} channels of {name!r}, but the network has no "
                    f"such channel group; it has {', '.join(list(known)[:5]) or 'none'}"
                    f"{', ...' if len(known) > 5 else ''}"  # noqa: PLR2004
                )
            group = known[name]
            if count > group.channels or count % group.multiple:
                raise CandidateError(
                    f"the candidate keeps {count} channels of {name!r}: it has {group.channels}, "
                    f"and takes multiples of {group.multiple}"
                )
        return tuple(self.channels.get(group.name, group.channels) for group in groups)


class _TwiceError(ValueError):
    """Raised if a key occurs twice in a JSON object."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(repr(key))
        found[key] = value
    return found


def kept_channels(full: int, ratio: float, *, multiple: int = 1, floor: int = 1) -> int:
    """Return the channels that remain of `full` at a pruning ratio.

    This is `max(floor, multiple * floor(full * (1 - ratio) / multiple))`, and at most `full`. At
    ratio 0 nothing is removed, even if the full count is not a multiple.

    Args:
        full: channels of the unpruned group.
        ratio: share to remove, from 0 to 1.
        multiple: the count must be a multiple of this.
        floor: minimum count, rounded up to a multiple.

    Raises:
        CandidateError: if the ratio isn't between 0 and 1.
    """
    if not 0 <= ratio <= 1:
        raise CandidateError(f"a pruning ratio must lie between 0 and 1, not be {ratio}")
    if ratio == 0:
        return full
    wanted = multiple * math.floor(full * (1 - ratio) / multiple + _ROUNDING)
    fewest = multiple * math.ceil(max(floor, 1) / multiple)
    return min(full, max(fewest, wanted))


def depth_text(drop: str | None) -> str | None:
    """Return the blocks that are left out in words: "without layer1.1" or "without 5 blocks"."""
    names = dropped(drop)
    if not names:
        return None
    if len(names) <= _SPELLED:
        return f"without {' and '.join(names)}"
    return f"without {len(names)} blocks ({names[0]} to {names[-1]})"


def engine_text(engine: str) -> str:
    """Return an engine in words: "stock engine", "lean", "lean least" or "lean 128 MiB"."""
    return "stock engine" if engine == "stock" else engine.replace(":", " ")


def with_recipe(study: Study, candidate: Candidate) -> Study:
    """Return the study with a candidate's recipe applied; its channels and blocks are ignored."""
    changes = candidate.recipe.model_dump(exclude_none=True)
    changes.pop("drop", None)  # of the network that the study names
    if changes.get("optimizer", study.training.optimizer) != study.training.optimizer:
        changes["nesterov"] = False  # a setting of the study's own optimizer
    if changes.get("accumulate", 1) > 1:
        changes["optimizer_in_backward"] = False  # gradients are added up first
    if changes.get("engine", "stock") != "stock":
        changes["checkpointing"] = "none"  # lean plans compute blocks again themselves
    elif changes.get("checkpointing", "none") != "none":
        changes["engine"] = "stock"
    if (length := changes.pop("length", None)) is not None:
        proxy = study.proxy
        changes["short_epochs"] = proxy.short_epochs * length
        changes["full_epochs"] = proxy.full_epochs * length
    changed: dict[str, BaseModel] = {}
    for table, kind in _TABLES.items():
        if own := {key: value for key, value in changes.items() if key in kind.model_fields}:
            size = own.get("image_size")
            if size is not None and study.data.input is not None:
                own["input"] = (study.data.input[0], size, size)
            changed[table] = kind.model_validate(getattr(study, table).model_dump() | own)
    return study.model_copy(update=changed) if changed else study
