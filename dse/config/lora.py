"""The text of LoRA schemes: `lora:8`, `lora:8,alpha=16` or `lora:8,alpha=16,targets=qkv,proj`.

One text holds all settings, so that a scheme stays one value wherever schemes are stored, compared
and varied. `lora` alone is short for the default rank.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dse.names import LORA, scheme_parts

DEFAULT_RANK = 8
MOST_RANK = 4096
_TARGET = re.compile(r"[\w-]+(\.[\w-]+)*")


@dataclass(frozen=True)
class LoraSettings:
    """Settings of low-rank adapters.

    Attributes:
        rank: Rank of each adapter.
        alpha: What an adapter adds is scaled by alpha / rank; None for the rank, so for 1.
        targets: Names of the linear layers that get adapters, or ends of their names, as in `qkv`;
            empty for all linear layers but the output layer.
    """

    rank: int = DEFAULT_RANK
    alpha: float | None = None
    targets: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """What an adapter's output is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def text(self) -> str:
        """The canonical text of the scheme; equal settings have equal texts."""
        text = f"{LORA}:{self.rank}"
        if self.alpha is not None and self.alpha != self.rank:
            text += f",alpha={self.alpha:.10g}"
        if self.targets:
            text += f",targets={','.join(sorted(self.targets))}"
        return text


def is_lora(part: str) -> bool:
    """Return whether a single scheme, without `+`, is one of adapters."""
    return part == LORA or part.startswith(f"{LORA}:")


def read_lora(part: str) -> LoraSettings:
    """Return the settings of a single scheme such as `lora:8,alpha=16`.

    Raises:
        ValueError: If the text can't be read; the message says what is wrong with it.
    """
    _, colon, argument = part.partition(":")
    if not colon:
        return LoraSettings()
    head, given, targets = argument.partition(",targets=")
    rank, comma, alpha = head.partition(",")
    word, equals, number = alpha.partition("=")
    if comma and (word != "alpha" or not equals):
        raise ValueError(f"has {alpha!r} where alpha=NUMBER or targets=NAME,NAME may stand")
    return LoraSettings(
        rank=_rank(rank),
        alpha=_alpha(number) if comma else None,
        targets=_targets(targets) if given else (),
    )


def canonical_scheme(scheme: str) -> str:
    """Return a scheme with the text of its adapters in canonical form; others as they are.

    Raises:
        ValueError: If the text of adapters can't be read, or two parts have adapters.
    """
    parts = scheme_parts(scheme)
    if sum(map(is_lora, parts)) > 1:
        raise ValueError(f'joins "{LORA}" twice: a network has one set of adapters')
    return "+".join(read_lora(one).text if is_lora(one) else one for one in parts)


def with_lora(
    scheme: str,
    *,
    rank: int | None = None,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
) -> str:
    """Return a scheme with other settings of its adapters; None keeps a setting.

    Raises:
        ValueError: If the scheme has no adapters, or a setting is out of range.
    """
    parts = scheme_parts(scheme)
    if not has_lora(scheme):
        raise ValueError(f'needs the scheme "{LORA}", not "{scheme}"')
    changes = {
        "rank": None if rank is None else _rank(str(rank)),
        "alpha": None if alpha is None else _alpha(str(alpha)),
        "targets": None if targets is None else _targets(",".join(targets)),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    changed = (
        replace(read_lora(one), **given).text if is_lora(one) else one  # type: ignore[arg-type]
        for one in parts
    )
    return canonical_scheme("+".join(changed))


def with_ranks(schemes: Sequence[str], ranks: Sequence[int]) -> tuple[str, ...]:
    """Return schemes with each one that has adapters at each rank; "lora" if none has adapters.

    Raises:
        ValueError: If a rank is out of range.
    """
    if not any(map(has_lora, schemes)):
        schemes = (*schemes, LORA)
    found = (
        scheme if rank is None else with_lora(scheme, rank=rank)
        for scheme in schemes
        for rank in (ranks if has_lora(scheme) else (None,))
    )
    return tuple(dict.fromkeys(found))


def has_lora(scheme: str) -> bool:
    """Return whether a scheme, perhaps of several parts, has adapters."""
    return any(map(is_lora, scheme_parts(scheme)))


def _rank(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or not 0 < int(text[:9]) <= MOST_RANK:
        raise ValueError(
            f"has the rank {text!r}: give a whole number from 1 to {MOST_RANK}, as in "
            f'"{LORA}:{DEFAULT_RANK}"'
        )
    return int(text)


def _alpha(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"has the alpha {text!r}: give a number above 0")
    return alpha


def _targets(text: str) -> tuple[str, ...]:
    targets = tuple(text.split(","))
    for target in targets:
        if not _TARGET.fullmatch(target):
            raise ValueError(
                f"has the target {target!r}: give names of linear layers, or their ends, as in qkv"
            )
    if len(set(targets)) < len(targets):
        raise ValueError("has a target twice: take one out")
    return targets
