"""A tape compiled to arrays that evaluate many candidates at once, without the network.

Sizes are polynomials in variables: the units of the channel groups, and for steps that compute
tensors in chunks the sizes of the chunks, which follow from the units by a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dse.memory.decode import Linear, Monomial
from dse.memory.site import Site
from dse.memory.tape import CATEGORIES, Event

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Units = TypeVar("Units", Ints, Floats)

CHUNK = 1024  # candidates evaluated together, so that their monomials fit into the CPU's cache


@dataclass(frozen=True)
class CompiledTape:
    """Buffers as monomials in channel units and batch size, with their events.

    Attributes:
        slopes, constants: Linear forms ``slopes @ variables + constants``, of shape (forms,
            variables) and (forms,). Form 0 is the constant 1.
        coefficients, batch_powers, factors: Terms, of shape (terms,), (terms,) and (terms, degree).
            Each is ``coefficient * batch**power * product(forms[factors])``.
        buffer_terms, buffer_categories: Index of each buffer's term and category, shape (buffers,).
        buffer_float_bytes: Element size of floating-point buffers, 0 for others, shape (buffers,).
        events: Rows of event, buffer and site, shape (events, 3).
        sites: Sites that the last column of the events refers to.
        mac_terms, mac_counts: Multiply-adds of the forward pass, as ``sum(counts * terms)``.
        part_slopes, part_constants: Linear forms of what is divided into chunks, of shape (ways,
            groups) and (ways,).
        chunk_sizes: For each of these, the size of each chunk for any number of parts, shape (ways,
            parts + 1, chunks); 0 for a chunk that doesn't exist.
    """

    slopes: Ints
    constants: Ints
    coefficients: Ints
    batch_powers: Ints
    factors: Ints
    buffer_terms: Ints
    buffer_categories: Ints
    buffer_float_bytes: Ints
    events: Ints
    sites: tuple[Site, ...]
    mac_terms: Ints
    mac_counts: Ints
    part_slopes: Ints
    part_constants: Ints
    chunk_sizes: Ints

    @property
    def groups(self) -> int:
        """Number of channel groups."""
        return int(self.part_slopes.shape[1])

    def variables(self, units: Units) -> Units:
        """Return the variables of candidates: units, chunk sizes, and 1 for chunks that exist.

        Args:
            units: Units of shape (groups,) or (n, groups).

        Returns:
            Variables of shape (variables,) or (n, variables), of the type of ``units``.
        """
        ways = len(self.part_slopes)
        if not ways:
            return units
        parts = (units @ self.part_slopes.T + self.part_constants).astype(np.int64)
        sizes = self.chunk_sizes[np.arange(ways), parts]
        chunks = self.chunk_sizes[:, 0].size
        flat = sizes.reshape(*units.shape[:-1], chunks).astype(units.dtype)
        return np.concatenate([units, flat, np.minimum(flat, 1)], axis=-1)

    def by_units(self, slopes: Floats, units: Floats) -> Floats:
        """Return derivatives by units, (groups,), from those by variables, (variables,).

        Chunks grow in steps. In place of that, all chunks grow in proportion to what is divided.
        """
        groups, ways = self.groups, len(self.part_slopes)
        if not ways:
            return slopes
        parts = units @ self.part_slopes.T + self.part_constants
        sizes = self.variables(units)[groups : groups + self.chunk_sizes[:, 0].size]
        of_parts = (slopes[groups : groups + len(sizes)] * sizes).reshape(ways, -1).sum(axis=1)
        found: Floats = slopes[:groups] + (of_parts / parts) @ self.part_slopes
        return found

    def terms_at(self, units: Ints, batch_size: int) -> Ints:
        """Return the sizes of all terms, shape (terms,), for one candidate's units (groups,)."""
        forms = self.slopes @ self.variables(units) + self.constants
        scale = self.coefficients * np.int64(batch_size) ** self.batch_powers
        return np.asarray(scale * np.prod(forms[self.factors], axis=1), dtype=np.int64)

    @cached_property
    def moments(self) -> Ints:
        """Number of live buffers of each term at each local maximum: (moments, terms)."""
        kinds, buffers = self.events[:, 0], self.events[:, 1]
        changes = [
            (kind == Event.BIRTH, self.buffer_terms[buffer])
            for kind, buffer in zip(kinds, buffers, strict=True)
            if kind in (Event.BIRTH, Event.DEATH)
        ]
        live = np.zeros(len(self.coefficients), dtype=np.int64)
        rows = []
        for position, (born, term) in enumerate(changes):
            live[term] += 1 if born else -1
            # The bytes held can only be at a local maximum after the last birth before a death.
            last = position + 1 == len(changes)
            if born and (last or not changes[position + 1][0]):
                rows.append(live.copy())
        distinct: Ints = np.unique(np.array(rows, dtype=np.int64), axis=0)
        return distinct

    def evaluator(self, batch_size: int) -> "PeakEvaluator":
        """Return an evaluator of the peak as a function of units, for one batch size."""
        scale = self.coefficients * np.int64(batch_size) ** self.batch_powers
        monomials, column = np.unique(self.factors, axis=0, return_inverse=True)
        rows = np.zeros((len(self.moments), len(monomials)), dtype=np.int64)
        np.add.at(rows.T, column.ravel(), (self.moments * scale).T)
        held = rows.any(axis=0)  # drop monomials that only occur in multiply-adds
        rows, monomials = rows[:, held], monomials[held]
        return PeakEvaluator(
            tape=self,
            slopes=self.slopes.astype(np.float64),
            constants=self.constants.astype(np.float64),
            factors=np.ascontiguousarray(monomials.T),
            rows=undominated(rows).astype(np.float64),
        )

    def category_terms(self, category: str) -> Ints:
        """Return the terms of all buffers of a lifelong category, such as ``weights``."""
        terms: Ints = self.buffer_terms[self.buffer_categories == CATEGORIES.index(category)]
        return terms


@dataclass(frozen=True)
class PeakEvaluator:
    """Evaluates peaks as ``max(rows @ monomials)``, exactly for integers below 2**53.

    Attributes:
        tape: The tape.
        slopes, constants: Linear forms, of shape (forms, variables) and (forms,).
        factors: Indices of each monomial's forms, shape (degree, monomials).
        rows: Bytes per unit of each monomial, shape (moments, monomials).
    """

    tape: CompiledTape
    slopes: Floats
    constants: Floats
    factors: Ints
    rows: Floats

    def peaks(self, units: Floats) -> Ints:
        """Return peak bytes, shape (n,), for units (n, groups)."""
        if len(units) <= CHUNK:
            return self._peaks(self.tape.variables(units).T)
        out = np.empty(len(units), dtype=np.int64)
        for start in range(0, len(units), CHUNK):
            some = units[start : start + CHUNK]
            out[start : start + CHUNK] = self._peaks(self.tape.variables(some).T)
        return out

    def peak(self, units: Floats) -> int:
        """Return peak bytes for the units (groups,) of one candidate, with little overhead."""
        forms = self.slopes @ self.tape.variables(units) + self.constants
        return int((self.rows @ self._monomials(forms)).max())

    def _peaks(self, variables: Floats) -> Ints:
        forms = self.slopes @ variables
        forms += self.constants[:, None]
        peaks: Ints = (self.rows @ self._monomials(forms)).max(axis=0).astype(np.int64)
        return peaks

    def _monomials(self, forms: Floats) -> Floats:
        product: Floats = forms.take(self.factors[0], axis=0)
        for factor in self.factors[1:]:
            product *= forms.take(factor, axis=0)
        return product

    def peak_and_gradient(self, units: Floats) -> tuple[int, Floats]:
        """Return peak bytes and their derivative (groups,) by each unit, for one candidate's units.

        If several moments reach the peak, the derivative is that of one of them.
        """
        forms = self.slopes @ self.tape.variables(units) + self.constants
        values = self.rows @ self._monomials(forms)
        row = self.rows[int(values.argmax())]
        by_form = np.zeros(len(forms))
        # Product rule: the derivative by one factor of a monomial is the product of the others.
        for position, factor in enumerate(self.factors):
            others = row.copy()
            for other, factors in enumerate(self.factors):
                if other != position:
                    others *= forms[factors]
            by_form += np.bincount(factor, weights=others, minlength=len(forms))
        return int(values.max()), self.tape.by_units(by_form @ self.slopes, units)


def undominated(rows: Ints) -> Ints:
    """Return the rows that no other row reaches or exceeds in every column.

    Monomials are never negative, so a dominated moment can't be the peak of any candidate.
    """
    order = np.argsort(-rows.sum(axis=1), kind="stable")
    # By descending sum: a row can only be dominated by rows before it.
    kept = np.empty_like(rows)
    count = 0
    for row in rows[order]:
        if not (kept[:count] >= row).all(axis=1).any():
            kept[count] = row
            count += 1
    return kept[:count].copy()


def compile_arrays(
    *,
    buffers: Sequence[Monomial],
    float_bytes: Sequence[int],
    categories: Sequence[str],
    events: Sequence[tuple[Event, int, int]],
    sites: Sequence[Site],
    macs: Sequence[Monomial],
    groups: int,
    parts: Sequence[Linear] = (),
    chunk_sizes: Ints | None = None,
) -> CompiledTape:
    """Collect monomials into arrays that hold each distinct monomial and form once.

    Args:
        buffers: Size of each buffer.
        float_bytes: Element size of each floating-point buffer, 0 for others.
        categories: Category of each buffer.
        events: Rows of event, buffer and site.
        sites: Sites that the events refer to.
        macs: Multiply-adds of the forward pass.
        groups: Number of channel groups.
        parts: What is divided into chunks.
        chunk_sizes: See ``CompiledTape``; None if nothing is divided.
    """
    if chunk_sizes is None:
        chunk_sizes = np.zeros((0, 1, 0), dtype=np.int64)
    variables = groups + 2 * chunk_sizes[:, 0].size
    terms = list(dict.fromkeys((*buffers, *macs)))
    forms = list(dict.fromkeys(form for term in terms for form in term.factors))
    forms.insert(0, Linear(1, ()))  # the constant 1 pads products of fewer factors
    form_index = {form: index for index, form in enumerate(forms)}
    term_index = {term: index for index, term in enumerate(terms)}
    slopes, constants = _matrix(forms, columns=variables)
    part_slopes, part_constants = _matrix(parts, columns=groups)
    degree = max((len(term.factors) for term in terms), default=1) or 1
    factors = np.zeros((len(terms), degree), dtype=np.int64)
    for index, term in enumerate(terms):
        factors[index, : len(term.factors)] = [form_index[form] for form in term.factors]
    mac_terms, mac_counts = np.unique(
        np.array([term_index[term] for term in macs], dtype=np.int64), return_counts=True
    )
    return CompiledTape(
        slopes=slopes,
        constants=constants,
        coefficients=np.array([term.coefficient for term in terms], dtype=np.int64),
        batch_powers=np.array([term.batch_power for term in terms], dtype=np.int64),
        factors=factors,
        buffer_terms=np.array([term_index[term] for term in buffers], dtype=np.int64),
        buffer_categories=np.array([CATEGORIES.index(c) for c in categories], dtype=np.int64),
        buffer_float_bytes=np.array(float_bytes, dtype=np.int64),
        events=np.array(events, dtype=np.int64).reshape(-1, 3),
        sites=tuple(sites),
        mac_terms=mac_terms,
        mac_counts=mac_counts,
        part_slopes=part_slopes,
        part_constants=part_constants,
        chunk_sizes=chunk_sizes,
    )


def _matrix(forms: Sequence[Linear], *, columns: int) -> tuple[Ints, Ints]:
    """Return the slopes and the constants of linear forms."""
    slopes = np.zeros((len(forms), columns), dtype=np.int64)
    for index, form in enumerate(forms):
        for variable, slope in form.slopes:
            slopes[index, variable] = slope
    return slopes, np.array([form.constant for form in forms], dtype=np.int64)
