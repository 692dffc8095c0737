import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dse.candidate import Candidate, kept_channels
from dse.errors import CandidateError
from dse.pruning.groups import ChannelGroup

GROUPS = (
    ChannelGroup("stem", 16, 1, ()),
    ChannelGroup("block", 24, 4, ()),
    ChannelGroup("last", 10, 1, ()),
)

candidates = st.builds(
    Candidate,
    channels=st.dictionaries(st.text(max_size=8), st.integers(1, 2000), max_size=4),
    scheme=st.none() | st.sampled_from(["full", "last"]),
    batch_size=st.none() | st.integers(1, 512),
    image_size=st.none() | st.integers(8, 4096),
    optimizer=st.none() | st.sampled_from(["sgd", "adam"]),
)


@given(candidates)
def test_json_comes_back(candidate: Candidate) -> None:
    again = Candidate.from_json(candidate.canonical_json())
    assert again == candidate
    assert again.digest == candidate.digest
    assert hash(again) == hash(candidate)
    assert copy.deepcopy(candidate) == candidate == pickle.loads(pickle.dumps(candidate))  # noqa: S301


def test_the_json_is_canonical_and_stays_what_it_is() -> None:
    candidate = Candidate(channels={"b": 3, "a": 2}, batch_size=4)
    assert candidate.canonical_json() == '{"batch_size":4,"channels":{"a":2,"b":3},"version":1}'
    # Written into studies on disk: it must never change.
    assert candidate.digest == "8037fe85bee70f76"
    assert Candidate().canonical_json() == '{"version":1}'
    assert candidate == Candidate(batch_size=4, channels={"a": 2, "b": 3})
    assert candidate.digest != Candidate(channels={"b": 3, "a": 2}).digest


def test_nothing_of_it_can_be_changed() -> None:
    given_channels = {"a": 2}
    candidate = Candidate(channels=given_channels)
    given_channels["a"] = 3
    assert candidate.channels == {"a": 2}
    with pytest.raises(TypeError):
        candidate.channels["a"] = 3  # type: ignore[index]
    with pytest.raises(ValidationError):
        candidate.scheme = "last"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"^mine\.json, line 1: not JSON"),
        ("[]", r"the whole is \[\]"),
        ('{"version": 2}', "version is 2: input should be 1"),
        ('{"chanels": {}}', "unknown key 'chanels'; known keys are version, channels"),
        ('{"channels": {"a": 0}}', r"channels\.a is 0: input should be greater than or equal"),
        ('{"channels": {"a": 1.5}}', r"channels\.a is 1\.5: input should be a valid integer"),
        ('{"channels": {"a": true}}', r"channels\.a is true"),
        ('{"batch_size": "4"}', 'batch_size is "4"'),
        ('{"image_size": NaN}', "image_size is NaN"),
        ('{"image_size": 4}', "image_size is 4: input should be greater than or equal to 8"),
        ('{"learning_rate": Infinity}', "learning_rate is Infinity: input should be less than"),
        ('{"importance": "foo"}', r'importance "foo" is not known: write "l1", "l2"'),
        ('{"scheme": "foo"}', r'scheme "foo" is not a scheme: write "full"'),
    ],
)
def test_wrong_text_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(CandidateError, match=message) as caught:
        Candidate.from_json(text, source="mine.json")
    assert str(caught.value).startswith("mine.json")
    assert "\n" not in str(caught.value)


def test_groups_not_named_keep_all() -> None:
    assert Candidate(channels={"block": 8}).kept(GROUPS) == (16, 8, 10)
    assert Candidate().kept(GROUPS) == (16, 24, 10)


def test_full_groups_are_left_out() -> None:
    candidate = Candidate.from_kept(GROUPS, [16, 8, 10], scheme="last")
    assert candidate == Candidate(channels={"block": 8}, scheme="last")


@given(st.tuples(st.integers(1, 16), st.sampled_from([4, 12, 24]), st.integers(1, 10)))
def test_kept_counts_come_back(kept: tuple[int, int, int]) -> None:
    assert Candidate.from_kept(GROUPS, kept).kept(GROUPS) == kept


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"stm": 3}, "keeps 3 channels of 'stm', but the network has no such channel group"),
        ({"stem": 17}, "keeps 17 channels of 'stem': it has 16"),
        ({"block": 6}, "keeps 6 channels of 'block': it has 24, and takes multiples of 4"),
    ],
)
def test_candidates_of_another_network_are_refused(channels: dict[str, int], message: str) -> None:
    with pytest.raises(CandidateError, match=message):
        Candidate(channels=channels).kept(GROUPS)


@pytest.mark.parametrize(
    ("full", "ratio", "options", "kept"),
    [
        (10, 0.9, {}, 1),  # 10 * (1 - 0.9) is a little less than 1
        (10, 0.1, {}, 9),
        (1000, 0.29, {}, 710),
        (64, 0.5, {"multiple": 8}, 32),
        (64, 0.51, {"multiple": 8}, 24),
        (64, 0.99, {"multiple": 8}, 8),
        (64, 0.99, {"multiple": 8, "floor": 16}, 16),
        (64, 0.99, {"floor": 100}, 64),
        (64, 1.0, {}, 1),
        (10, 0.0, {"multiple": 8}, 10),
    ],
)
def test_kept_channels(full: int, ratio: float, options: dict[str, int], kept: int) -> None:
    assert kept_channels(full, ratio, **options) == kept


@given(
    blocks=st.integers(1, 100),
    multiple=st.integers(1, 16),
    percent=st.integers(0, 100),
    floor=st.integers(1, 64),
)
def test_kept_channels_are_allowed_and_fall_with_the_ratio(
    blocks: int, multiple: int, percent: int, floor: int
) -> None:
    full = blocks * multiple
    kept = kept_channels(full, percent / 100, multiple=multiple, floor=floor)
    assert 1 <= kept <= full
    assert kept % multiple == 0
    assert kept >= min(floor, full)
    assert kept <= kept_channels(full, max(percent - 1, 0) / 100, multiple=multiple, floor=floor)
    assert kept == max(
        min(full, -(-floor // multiple) * multiple),
        full * (100 - percent) // (100 * multiple) * multiple,
    )


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratios_outside_0_to_1_are_refused(ratio: float) -> None:
    with pytest.raises(CandidateError, match="between 0 and 1"):
        kept_channels(8, ratio)


def test_the_version_is_always_written() -> None:
    assert json.loads(Candidate().canonical_json())["version"] == 1
