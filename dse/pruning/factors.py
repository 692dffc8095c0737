"""Sizes of tensor axes as products and sums of unknown factors, which are learned step by step.

An axis of 192 positions may be 3 heads of 64 channels each, which shows only where the network
reshapes it. So each axis of a parameter begins as one unknown factor. Where two axes meet, as in a
sum, their factors are *unified*: from then on they are the same. Where an axis is reshaped or
divided, its factor becomes a product or a sum of smaller ones, everywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm, prod
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


def unify(first: Factor, second: Factor, *, otherwise: str) -> None:
    """Make two factors of the same size the same.

    Args:
        first: One factor.
        second: The other one.
        otherwise: Reason why both stay whole if they can't be the same.
    """
    try:
        _unify(first, second, otherwise)
    except UnfollowedError:
        keep_whole(first, otherwise)
        keep_whole(second, otherwise)


def _unify(first: Factor, second: Factor, otherwise: str) -> None:
    one, two = first.resolved(), second.resolved()
    if one is two:
        return
    if one.size != two.size:
        raise UnfollowedError
    if one.kind == "leaf" or two.kind == "leaf":
        leaf, other = (one, two) if one.kind == "leaf" else (two, one)
        leaf.become(other)
    elif is_whole(one) or is_whole(two):
        reason = reason_of(one) or reason_of(two) or otherwise
        keep_whole(one, reason)
        keep_whole(two, reason)
    elif "sum" in (one.kind, two.kind):
        other, total = (one, two) if two.kind == "sum" else (two, one)
        parts = addends_of(total)
        for part, own in zip(parts, divided(other, [part.size for part in parts]), strict=True):
            _unify(part, own, otherwise)
    else:
        _unify_products(one, two, otherwise)


def _unify_products(one: Factor, two: Factor, otherwise: str) -> None:
    first, second = leading_whole(one), leading_whole(two)
    blocks = lcm(first, second)
    if first == second or blocks in (first, second) or one.size % blocks:
        sizes = [part.size for part in factors_of(one)]
        for part, own in zip(factors_of(one), factored(two, sizes), strict=True):
            _unify(part, own, otherwise)
        return
    # Channels in 3 blocks meet channels in 2 blocks: they are in 6, whatever their order.
    pairs = [factored(each, [blocks, one.size // blocks]) for each in (one, two)]
    for block, _ in pairs:
        keep_whole(block, otherwise)
    _unify(pairs[0][1], pairs[1][1], otherwise)


def leading_whole(product: Factor) -> int:
    """Return how many blocks the leading factors make that can't be removed."""
    blocks = 1
    for part in factors_of(product):
        if not is_whole(part):
            break
        blocks *= part.size
    return blocks


def factored(factor: Factor, sizes: Sequence[int]) -> list[Factor]:
    """Divide the positions of a factor as a reshape does, and learn its factors from that.

    Args:
        factor: The factor.
        sizes: Size of each new axis, the slowest first.

    Returns:
        One factor per size.

    Raises:
        UnfollowedError: If that isn't a product of the factor's own parts.
    """
    if is_whole(factor):
        return [Factor(size, whole=reason_of(factor) or "") for size in sizes]
    return grouped([factor], sizes)


def grouped(factors: Sequence[Factor], sizes: Sequence[int]) -> list[Factor]:
    """Divide the axes of a tensor into other axes, as a reshape does.

    Args:
        factors: The tensor's axes, the slowest first.
        sizes: Size of each new axis.

    Raises:
        UnfollowedError: If the new axes aren't products of the old axes' parts.
    """
    waiting = [inner for factor in factors for inner in factors_of(factor)][::-1]
    result = []
    for size in sizes:
        own: list[Factor] = []
        left = size
        while left > 1:
            if not waiting:
                raise UnfollowedError
            part = waiting.pop()
            if left % part.size == 0:
                own.append(part)
                left //= part.size
            elif part.size % left == 0:
                leading, rest = _split(part, left)
                own.append(leading)
                waiting.append(rest)
                left = 1
            elif is_whole(part) and own == [] and waiting and is_whole(waiting[-1]):
                # Positions that are never removed can be divided in any way.
                following = waiting.pop()
                reason = reason_of(part) or ""
                waiting.append(Factor(part.size * following.size, whole=reason))
            else:
                raise UnfollowedError
        result.append(product_of(own) if own else Factor(1, whole=""))
    return result


def _split(part: Factor, leading: int) -> tuple[Factor, Factor]:
    """Divide one leaf or sum into a product of two factors, the first of this size."""
    rest = part.size // leading
    if part.kind == "leaf":
        slow, fast = Factor(leading, whole=part.whole), Factor(rest, whole=part.whole)
        part.whole = None
        part.become(product_of([slow, fast]))
        return slow, fast
    addends = addends_of(part)
    if any(each.size % rest for each in addends):
        raise UnfollowedError
    pairs = [grouped([each], [each.size // rest, rest]) for each in addends]
    for _, fast in pairs[1:]:
        _unify(pairs[0][1], fast, "")
    if all(slow.size == 1 for slow, _ in pairs):
        slow = Factor(leading, whole="its parts are told apart by their places")
    else:
        slow = sum_of([each for each, _ in pairs])
    part.become(product_of([slow, pairs[0][1]]))
    return slow, pairs[0][1]


def divided(factor: Factor, sizes: Sequence[int]) -> list[Factor]:
    """Divide the positions of a factor into consecutive parts, and learn its parts from that.

    Args:
        factor: The factor.
        sizes: Number of positions of each part.

    Raises:
        UnfollowedError: If that isn't a sum of the factor's own parts.
    """
    if is_whole(factor):
        return [Factor(size, whole=reason_of(factor) or "") for size in sizes]
    waiting = addends_of(factor)[::-1]
    result = []
    for size in sizes:
        own: list[Factor] = []
        left = size
        while left:
            if not waiting:
                raise UnfollowedError
            part = waiting.pop()
            if part.size > left:
                first, rest = _cut(part, left)
                waiting.append(rest)
                part = first
            own.append(part)
            left -= part.size
        result.append(sum_of(own) if own else Factor(0, whole=""))
    return result


def _cut(part: Factor, first: int) -> tuple[Factor, Factor]:
    """Divide one leaf or product into a sum of two factors, the first of this size."""
    part = part.resolved()
    if part.kind == "leaf":
        one = Factor(first, whole=part.whole)
        two = Factor(part.size - first, whole=part.whole)
        part.whole = None
        part.become(sum_of([one, two]))
        return one, two
    slowest, *others = factors_of(part)
    rest = prod(each.size for each in others)
    if first % rest:
        raise UnfollowedError
    pieces = divided(slowest, [first // rest, slowest.size - first // rest])
    one, two = (product_of([piece, *others]) for piece in pieces)
    part.become(sum_of([one, two]))
    return one, two


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
