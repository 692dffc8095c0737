"""Reading polynomials off marker widths, and off probes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.memory.decode import Linear, MarkerDecoder, Monomial, UndecidedError, probed_dimension

UNITS = (131_101, 262_147, 524_309)
A, B, C = (Linear(0, ((group, 1),)) for group in range(3))
JOINED = Linear(7, ((0, 1), (2, 2)))
DECODER = MarkerDecoder([A, B, C, JOINED], units=UNITS, batch_size=10_007)
FORMS = st.sampled_from([A, B, C, JOINED])


@given(
    form=FORMS,
    coefficient=st.integers(1, 512),
    power=st.integers(0, 1),
    other=st.tuples(*[st.integers(1, 99)] * 3),
    batch_size=st.integers(1, 99),
)
def test_a_dimension_is_explained_for_every_width(
    form: Linear, coefficient: int, power: int, other: tuple[int, ...], batch_size: int
) -> None:
    seen = Monomial(coefficient, power, (form,)).at(UNITS, 10_007)
    read = DECODER.dimension(seen)
    assert read.at(other, batch_size) == coefficient * batch_size**power * form.at(other)


def test_constants_and_the_batch_alone() -> None:
    assert DECODER.dimension(112) == Monomial(112)
    assert DECODER.dimension(0) == Monomial(0)
    assert DECODER.dimension(3 * 10_007) == Monomial(3, batch_power=1)


def test_what_nothing_explains_is_left_undecided() -> None:
    with pytest.raises(UndecidedError, match="0 forms explain"):
        DECODER.dimension(sum(UNITS))


def test_two_forms_of_one_value_are_left_undecided() -> None:
    with pytest.raises(UndecidedError, match="two forms have the value"):
        MarkerDecoder([C, Linear(UNITS[2] - UNITS[1], ((1, 1),))], units=UNITS, batch_size=10_007)


@given(
    constant=st.integers(0, 50),
    slopes=st.tuples(*[st.integers(0, 9)] * 3),
    power=st.integers(0, 1),
    other=st.tuples(*[st.integers(1, 99)] * 3),
    batch_size=st.integers(1, 99),
)
def test_probing_reads_any_linear_dimension(
    constant: int,
    slopes: tuple[int, ...],
    power: int,
    other: tuple[int, ...],
    batch_size: int,
) -> None:
    form = Linear(constant, tuple(enumerate(slopes)))
    units, shifts = (8, 16, 5), (4, 8, 2)

    def seen(counts: tuple[int, ...], batch: int) -> int:
        return batch**power * form.at(counts)

    shifted = [
        seen(tuple(u + shifts[g] * (g == group) for g, u in enumerate(units)), 3)
        for group in range(3)
    ]
    read = probed_dimension(
        seen(units, 3),
        shifted=shifted,
        shifts=shifts,
        units=units,
        larger_batch=seen(units, 4),
        batch_size=3,
    )
    assert read.at(other, batch_size) == seen(other, batch_size)


def test_probing_refuses_what_is_not_proportional_to_the_batch() -> None:
    with pytest.raises(UndecidedError, match="not proportional to the batch"):
        probed_dimension(10, shifted=[10], shifts=[1], units=[4], larger_batch=12, batch_size=3)


def test_a_concatenation_within_another_is_the_sum_of_two_forms() -> None:
    units = (131_071, 150_001, 170_003)
    forms = [Linear(0, ((group, 1),)) for group in range(3)]
    decoder = MarkerDecoder(forms, units=units, batch_size=10_007)
    read = decoder.dimension(units[0] + units[2])
    assert read == Monomial(1, factors=(Linear(0, ((0, 1), (2, 1))),))
    assert decoder.dimension(2 * units[1]) == Monomial(2, factors=(forms[1],))
    with pytest.raises(UndecidedError, match="0 forms explain"):
        decoder.dimension(sum(units))
