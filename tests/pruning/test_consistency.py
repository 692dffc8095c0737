"""Groups are selected that pass two checks as one set."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.consistency import passing_both
from dse.pruning.groups import find_groups
from support.networks import Residual


def test_a_group_that_needs_one_refused_later_is_refused_too() -> None:
    groups = [ChannelGroup(name, 4, 1, ()) for name in "abcd"]

    def first(tried: Sequence[ChannelGroup]) -> str | None:
        names = {group.name for group in tried}
        return "b needs a" if "b" in names and "a" not in names else None

    def second(tried: Sequence[ChannelGroup]) -> str | None:
        names = {group.name for group in tried}
        if "a" in names:
            return "a is wrong"
        return "c needs b" if "c" in names and "b" not in names else None

    kept, refused = passing_both(groups, first, second)
    assert [group.name for group in kept] == ["d"]
    assert refused == {"a": "a is wrong", "b": "b needs a", "c": "c needs b"}


def test_groups_that_pass_are_tried_once_together() -> None:
    groups = [ChannelGroup(name, 4, 1, ()) for name in "abcd"]
    tried: list[int] = []

    def check(several: Sequence[ChannelGroup]) -> str | None:
        tried.append(len(several))
        return None

    assert passing_both(groups, check, check) == (groups, {})
    assert tried == [4, 4]


def test_a_lack_of_memory_is_an_error_and_no_reason_to_leave_channels_whole() -> None:
    class Large(Residual):
        def forward(self, x: Tensor) -> Tensor:
            if not x.is_meta:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
            return super().forward(x)

    with pytest.raises(PruningError, match=r"^Large: this machine has too little free memory"):
        find_groups(Large(), torch.zeros(1, 3, 8, 8))
