from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dse.digests import (
    bytes_digest,
    canonical_json,
    derived_bytes,
    derived_seed,
    file_digest,
    json_digest,
    parts_digest,
    raw_digest,
    text_digest,
)

# SHA-256 of "abc", from FIPS 180-2, appendix B.1.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digests_never_change() -> None:
    assert text_digest("dse") == "9fc78162dd905b77"
    assert json_digest({"b": [1, 2], "a": None}) == "ee743f2fa2570a1b"
    assert canonical_json({"b": [1, 2], "a": None}) == '{"a":null,"b":[1,2]}'
    assert derived_seed(7, "epoch", 1) == 3082268391
    assert derived_seed(7, "order", bits=56) == 41870518307669625


def test_bytes_parts_and_files_of_the_same_content_have_the_same_digest(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        assert file_digest(file) == ABC
    assert bytes_digest(b"abc") == parts_digest(iter([b"a", b"", b"bc"])) == ABC
    assert raw_digest(b"abc").hex() == ABC
    assert text_digest("abc") == bytes_digest(b"abc", length=16) == ABC[:16]


def test_a_seed_is_the_start_of_the_derived_bytes() -> None:
    whole = int.from_bytes(derived_bytes(7, "epoch", 1), "big")
    for bits in (32, 56, 64):
        assert derived_seed(7, "epoch", 1, bits=bits) == whole >> (256 - bits)


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_keys_does_not_matter(content: dict[str, int]) -> None:
    backwards = dict(reversed(content.items()))
    assert json_digest(content) == json_digest(backwards)


@given(st.lists(st.integers() | st.text(), min_size=1))
def test_seeds_are_below_2_to_the_32(parts: list[int | str]) -> None:
    assert 0 <= derived_seed(*parts) < 2**32
