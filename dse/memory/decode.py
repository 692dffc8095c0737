"""Derive polynomials from the dimensions of a traced step.

The network is traced once with large marker widths, distinct for each channel group. Each dimension
of each buffer is then an integer that only one simple expression explains: a constant, a form that
also occurs in some parameter's shape (a group's channels, or their sum after a concatenation) or
the sum of two such forms, times a small number, times the batch size. If an expression is not
unique, the caller falls back to probing each group.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, prod

LARGEST_MULTIPLE = 4096  # of a form, in a flattened or repeated dimension


@dataclass(frozen=True)
class Linear:
    """``constant + sum(slope * units[group])``. A unit is a group's ``multiple`` of channels."""

    constant: int
    slopes: tuple[tuple[int, int], ...]

    def at(self, units: Sequence[int]) -> int:
        """Return the value for one unit count per group."""
        return self.constant + sum(slope * units[group] for group, slope in self.slopes)

    def primitive(self) -> tuple[int, "Linear"]:
        """Split the form into an integer and a form whose coefficients have no common divisor."""
        divisor = gcd(self.constant, *(slope for _, slope in self.slopes))
        slopes = tuple((group, slope // divisor) for group, slope in self.slopes)
        return divisor, Linear(self.constant // divisor, slopes)


@dataclass(frozen=True)
class Monomial:
    """``coefficient * batch**batch_power * product(factors)``."""

    coefficient: int
    batch_power: int = 0
    factors: tuple[Linear, ...] = ()

    def at(self, units: Sequence[int], batch_size: int) -> int:
        """Return the value for one unit count per group and a batch size."""
        factors = prod(factor.at(units) for factor in self.factors)
        return int(self.coefficient * batch_size**self.batch_power * factors)

    def __mul__(self, other: "Monomial") -> "Monomial":
        factors = sorted(
            (*self.factors, *other.factors), key=lambda form: (form.slopes, form.constant)
        )
        return Monomial(
            self.coefficient * other.coefficient,
            self.batch_power + other.batch_power,
            tuple(factors),
        )


class UndecidedError(Exception):
    """A dimension that no expression, or more than one, explains."""


class MarkerDecoder:
    """Explains dimensions of a network traced at marker widths.

    Args:
        forms: Forms that occur in the parameters' shapes.
        units: The markers, one per group, all larger than any constant dimension.
        batch_size: The batch's marker, a prime.
        smallest: The smallest marker. If None, it is found among ``units``.
    """

    def __init__(
        self,
        forms: Iterable[Linear],
        *,
        units: Sequence[int],
        batch_size: int,
        smallest: int | None = None,
    ) -> None:
        self._batch_size = batch_size
        self._smallest = min(units, default=0) if smallest is None else smallest
        self._known: dict[int, Linear] = {}
        for form in forms:
            _, primitive = form.primitive()
            value = primitive.at(units)
            if self._known.setdefault(value, primitive) != primitive:
                raise UndecidedError(f"two forms have the value {value}")
        self._decoded: dict[int, Monomial] = {}

    def product(self, dims: Sequence[int]) -> Monomial:
        """Return the monomial of a buffer with these dimensions."""
        result = Monomial(1)
        for dim in dims:
            result = result * self.dimension(dim)
        return result

    def dimension(self, value: int) -> Monomial:
        """Return the monomial of one dimension. Raises UndecidedError if it is not unique."""
        if value not in self._decoded:
            self._decoded[value] = self._explain(value)
        return self._decoded[value]

    def _explain(self, value: int) -> Monomial:
        if value and value % self._batch_size == 0:
            return self.dimension(value // self._batch_size) * Monomial(1, batch_power=1)
        if value in self._known:
            return Monomial(1, factors=(self._known[value],))
        # No channel count is below the smallest marker, so smaller values are constants.
        if not self._known or value < self._smallest:
            return Monomial(value)
        explanations = {
            Monomial(value // known, factors=(form,))
            for known, form in self._known.items()
            if known and value % known == 0 and value // known <= LARGEST_MULTIPLE
        }
        explanations = explanations or self._sums(value)
        if len(explanations) != 1:
            raise UndecidedError(f"{len(explanations)} forms explain the dimension {value}")
        return explanations.pop()

    def _sums(self, value: int) -> set[Monomial]:
        """Explain a value as the sum of two known forms, as from nested concatenations."""
        return {
            Monomial(1, factors=(_added(form, self._known[value - known]),))
            for known, form in self._known.items()
            if value - known in self._known
        }


def _added(form: Linear, other: Linear) -> Linear:
    slopes = dict(form.slopes)
    for group, slope in other.slopes:
        slopes[group] = slopes.get(group, 0) + slope
    return Linear(form.constant + other.constant, tuple(sorted(slopes.items())))


def probed_dimension(
    base: int,
    *,
    shifted: Sequence[int],
    shifts: Sequence[int],
    units: Sequence[int],
    larger_batch: int,
    batch_size: int,
) -> Monomial:
    """Derive a dimension's monomial from traces that change one group, or the batch, at a time.

    Args:
        base: Value at ``units`` and ``batch_size``.
        shifted: For each group, the value when only this group is changed.
        shifts: For each group, the number of units that it was changed by.
        units: Unit counts of the base trace.
        larger_batch: Value with one more image in the batch.
        batch_size: Batch size of the base trace.

    Raises:
        UndecidedError: If the dimension is not linear in the groups, or neither constant in the
            batch nor proportional to it.
    """
    if larger_batch == base:
        divisor = 1
    elif (larger_batch - base) * batch_size == base:
        divisor = batch_size
    else:
        raise UndecidedError(f"a dimension of {base} is not proportional to the batch")
    slopes = tuple(
        (group, Fraction(value - base, shift * divisor))
        for group, (value, shift) in enumerate(zip(shifted, shifts, strict=True))
        if value != base
    )
    constant = Fraction(base, divisor) - sum(slope * units[group] for group, slope in slopes)
    if constant.denominator != 1 or any(slope.denominator != 1 for _, slope in slopes):
        raise UndecidedError(f"a dimension of {base} is not a whole multiple of a group's channels")
    form = Linear(int(constant), tuple((group, int(slope)) for group, slope in slopes))
    power = 0 if divisor == 1 else 1
    if not slopes:
        return Monomial(form.constant, batch_power=power)
    coefficient, primitive = form.primitive()
    return Monomial(coefficient, batch_power=power, factors=(primitive,))
