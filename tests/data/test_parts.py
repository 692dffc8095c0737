from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dse.data import LazyImages, Part
from dse.errors import DataError
from dse.names import Augmentation

SIZE = 16


class Stored:
    """Images in memory behind the lazy interface; `read` lists the requested positions in order."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, positions: torch.Tensor) -> torch.Tensor:
        self.read += positions.tolist()
        return self.images[positions]


def part(count: int = 20, *, augment: Augmentation = "none") -> Part:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return Part(
        name="train",
        images=images,
        labels=torch.arange(count),
        mean=(0.5, 0.4, 0.3),
        std=(0.1, 0.2, 0.3),
        augment=augment,
    )


def test_batches_without_a_seed_keep_the_order_and_normalise() -> None:
    whole = part(augment="crop-flip")
    batches = list(whole.batches(8))
    assert [len(y) for _, y in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([y for _, y in batches]), torch.arange(20))
    assert isinstance(whole.images, torch.Tensor)
    x = torch.cat([x for x, _ in batches])
    assert x.dtype == torch.float32
    expected = (whole.images / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.1, 0.2, 0.3]
    ).view(3, 1, 1)
    torch.testing.assert_close(x, expected)


@given(seed=st.integers(0, 2**63), batch_size=st.integers(1, 25), drop_last=st.booleans())
def test_a_seed_shuffles_and_loses_nothing(seed: int, batch_size: int, drop_last: bool) -> None:  # noqa: FBT001
    whole = part()
    if drop_last and batch_size > len(whole):
        return
    labels = [y for _, y in whole.batches(batch_size, seed=seed, drop_last=drop_last)]
    seen = torch.cat(labels).tolist()
    assert len(seen) == len(set(seen)) == (20 // batch_size * batch_size if drop_last else 20)
    assert all(len(y) == batch_size for y in labels[:-1])


@pytest.mark.parametrize("augment", ["none", "flip", "crop-flip"])
def test_the_same_seed_gives_the_same_batches_and_another_does_not(augment: Augmentation) -> None:
    whole = part(augment=augment)

    def images(seed: int) -> torch.Tensor:
        return torch.cat([x for x, _ in whole.batches(8, seed=seed)])

    torch.manual_seed(1)
    first = images(3)
    torch.manual_seed(2)
    assert torch.equal(first, images(3))
    assert not torch.equal(first, images(4))


def test_batches_leave_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(part(augment="crop-flip").batches(8, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_lazy_images_give_the_same_batches_and_are_read_once_an_epoch() -> None:
    held = part(augment="crop-flip")
    assert isinstance(held.images, torch.Tensor)
    stored = Stored(held.images.flip(0))
    lazy = replace(held, images=LazyImages(stored, torch.arange(19, -1, -1)))
    pairs = zip(held.batches(8, seed=5), lazy.batches(8, seed=5), strict=True)
    for (x, y), (lazy_x, lazy_y) in pairs:
        assert torch.equal(x, lazy_x)
        assert torch.equal(y, lazy_y)
    assert sorted(stored.read) == list(range(20))


@pytest.mark.parametrize("held", [True, False])
def test_a_subset_has_the_images_at_its_positions_and_copies_none(held: bool) -> None:  # noqa: FBT001
    whole = part(augment="flip")
    assert isinstance(whole.images, torch.Tensor)
    positions = torch.tensor([17, 2, 5, 11, 3])
    copied = replace(whole, images=whole.images[positions], labels=whole.labels[positions])
    if not held:
        whole = replace(whole, images=LazyImages(Stored(whole.images), torch.arange(20)))
    subset = whole.subset(positions)
    assert isinstance(subset.images, LazyImages)
    for (x, y), (own_x, own_y) in zip(
        copied.batches(2, seed=5), subset.batches(2, seed=5), strict=True
    ):
        assert torch.equal(x, own_x)
        assert torch.equal(y, own_y)
    if isinstance(whole.images, torch.Tensor):  # the subset reads the very same images
        whole.images[17] = 0
        assert not subset.images.fetch(torch.tensor([0])).any()


def test_a_lazy_epoch_may_be_left_in_the_middle() -> None:
    lazy = replace(part(), images=LazyImages(Stored(torch.zeros(20, 3, 8, 8)), torch.arange(20)))
    batches = lazy.batches(4)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert list(replace(lazy, labels=torch.arange(0)).batches(4)) == []


def test_layout_and_device() -> None:
    x, _ = next(part().batches(8, memory_format="channels-last", device=torch.device("cpu")))
    assert x.is_contiguous(memory_format=torch.channels_last)
    x, _ = next(part().batches(8))
    assert x.is_contiguous()


def test_too_few_images_for_one_full_batch_are_refused_at_once() -> None:
    with pytest.raises(
        DataError, match="the train part has 20 images, too few for one batch of 21"
    ):
        part().batches(21, drop_last=True)
