from hypothesis import given
from hypothesis import strategies as st

from dse.digests import derived_seed, json_digest, text_digest


def test_digests_never_change() -> None:
    assert text_digest("dse") == "9fc78162dd905b77"
    assert json_digest({"b": [1, 2], "a": None}) == "ee743f2fa2570a1b"
    assert derived_seed(7, "epoch", 1) == 3082268391


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_keys_does_not_matter(content: dict[str, int]) -> None:
    backwards = dict(reversed(content.items()))
    assert json_digest(content) == json_digest(backwards)


@given(st.lists(st.integers() | st.text(), min_size=1))
def test_seeds_are_below_2_to_the_32(parts: list[int | str]) -> None:
    assert 0 <= derived_seed(*parts) < 2**32
