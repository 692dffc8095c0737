"""Unify factors, and divide them as reshapes and splits do.

Each may need the other: two products are the same if their parts are, which may have to be divided
first; and the parts of a divided sum must be unified.
"""

from collections.abc import Sequence
from math import lcm, prod

from dse.pruning.factors import (
    Factor,
    UnfollowedError,
    addends_of,
    factors_of,
    is_whole,
    keep_whole,
    leading_whole,
    product_of,
    reason_of,
    sum_of,
)


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
        slow = Factor(leading, whole="its parts are distinguished by their places")
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
