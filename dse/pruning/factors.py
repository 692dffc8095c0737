"""Sizes of tensor axes as products and sums of unknown factors, which are learned step by step.

An axis of 192 positions may be 3 heads of 64 channels each, which shows only where the network
reshapes it. So each axis of a parameter begins as one unknown factor. Where two axes meet, as in a
sum, their factors are *unified*: from then on they are the same. Where an axis is reshaped or
divided, its factor becomes a product or a sum of smaller ones, everywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

MOST_STARTS = 4096  # stretches of one factor's channels along one axis, beyond which it stays whole


class UnfollowedError(Exception):
    """An axis is divided in a way that products and sums of factors can't express."""


class Factor:
    """The size of an axis, or of a part of it.

    Compared by identity. `resolved` returns what a factor is known to be by now.

    Attributes:
        size: Number of positions.
        kind: ``leaf`` if nothing is known of its parts.
        parts: Parts of a product, the slowest first, or of a sum, in order.
        whole: For a leaf, the reason why its positions can't be removed. None if they may be.
    """

    __slots__ = ("_bound", "kind", "parts", "size", "whole")

    def __init__(
        self,
        size: int,
        *,
        kind: Literal["leaf", "product", "sum"] = "leaf",
        parts: Sequence["Factor"] = (),
        whole: str | None = None,
    ) -> None:
        self.size = size
        self.kind = kind
        self.parts = tuple(parts)
        self.whole = whole
        self._bound: Factor | None = None

    def resolved(self) -> "Factor":
        """Return what this factor has become."""
        found = self
        while found._bound is not None:
            found = found._bound
        return found

    def become(self, other: "Factor") -> None:
        """Be replaced by another factor of the same size, everywhere."""
        here, there = self.resolved(), other.resolved()
        if here is there:
            return
        if here.kind == "leaf" and here in leaves(there):  # the other parts have one position
            return
        if here.whole is not None:
            keep_whole(there, here.whole)
        here._bound = there  # noqa: SLF001  # of its own kind


def product_of(parts: Sequence[Factor]) -> Factor:
    """Return the product of factors, the slowest first."""
    found = [inner for part in parts for inner in factors_of(part)]
    return (
        found[0]
        if len(found) == 1
        else Factor(prod(part.size for part in found), kind="product", parts=found)
    )


def sum_of(parts: Sequence[Factor]) -> Factor:
    """Return the factor of a concatenation."""
    found = [part for part in parts if part.size]
    return (
        found[0]
        if len(found) == 1
        else Factor(sum(part.size for part in found), kind="sum", parts=found)
    )


def factors_of(factor: Factor) -> list[Factor]:
    """Return the parts of a product that have more than one position; else the factor itself."""
    here = factor.resolved()
    if here.kind != "product":
        return [here] if here.size != 1 else []
    return [inner for part in here.parts for inner in factors_of(part)]


def addends_of(factor: Factor) -> list[Factor]:
    """Return the parts of a sum; else the factor itself."""
    here = factor.resolved()
    if here.kind != "sum":
        return [here]
    return [inner for part in here.parts for inner in addends_of(part)]


def leaves(factor: Factor) -> Iterator[Factor]:
    """Yield the unknown factors that a factor consists of, once per occurrence."""
    here = factor.resolved()
    if here.kind == "leaf":
        yield here
    for part in here.parts:
        yield from leaves(part)


def keep_whole(factor: Factor, reason: str) -> None:
    """Note why the positions of a factor can't be removed. The first reason stays."""
    for leaf in leaves(factor):
        leaf.whole = leaf.whole or reason


def reason_of(factor: Factor) -> str | None:
    """Return why no position of a factor can be removed. None if some can."""
    reasons = [leaf.whole for leaf in leaves(factor) if leaf.size > 1]
    return reasons[0] if reasons and None not in reasons else None


def is_whole(factor: Factor) -> bool:
    """Whether no position of a factor can be removed."""
    return all(leaf.whole is not None or leaf.size == 1 for leaf in leaves(factor))


def leading_whole(product: Factor) -> int:
    """Return how many blocks the leading factors make that can't be removed."""
    blocks = 1
    for part in factors_of(product):
        if not is_whole(part):
            break
        blocks *= part.size
    return blocks


@dataclass(frozen=True)
class Occurrence:
    """Where the positions of a leaf lie along an axis.

    Attributes:
        leaf: The leaf.
        starts: Positions of the leaf's position 0.
        span: Number of consecutive positions for each position of the leaf.
    """

    leaf: Factor
    starts: tuple[int, ...]
    span: int


def occurrences(factor: Factor) -> list[Occurrence]:
    """List where each leaf of a factor lies along the factor's axis.

    Raises:
        UnfollowedError: If a leaf lies in too many places.
    """
    here = factor.resolved()
    if here.kind == "leaf":
        return [Occurrence(here, (0,), 1)]
    found = []
    if here.kind == "sum":
        offset = 0
        for part in here.parts:
            for each in occurrences(part):
                starts = tuple(offset + start for start in each.starts)
                found.append(Occurrence(each.leaf, starts, each.span))
            offset += part.size
        return found
    outer, inner = 1, here.size
    for part in here.parts:
        inner //= part.size
        for each in occurrences(part):
            if outer * len(each.starts) > MOST_STARTS:
                if each.leaf.whole is not None or each.leaf.size == 1:
                    continue
                raise UnfollowedError
            starts = tuple(
                (turn * part.size + start) * inner for turn in range(outer) for start in each.starts
            )
            found.append(Occurrence(each.leaf, starts, each.span * inner))
        outer *= part.size
    return found
