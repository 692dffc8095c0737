"""Random transforms of a data set's own."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

from dse.config import DataConfig
from dse.data.assignment import assign
from dse.data.datasets import dataset_source
from dse.data.load import _parts
from dse.data.parts import DataParts, LazyImages
from dse.data.reading import Reading
from dse.errors import DataError
from dse.tasks.task import PLAIN


class Noisy(Dataset[Any]):
    """Images of one grey each, which a transform may change; `reads` counts what is read."""

    def __init__(self, count: int, transform: Any = None) -> None:
        self.targets = [position % 2 for position in range(count)]
        self.transform = transform
        self.reads = [0] * count

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> Any:
        self.reads[position] += 1
        image = torch.full((3, 8, 8), position, dtype=torch.uint8)
        return (self.transform(image) if self.transform else image), self.targets[position]


def torch_noise(image: torch.Tensor) -> torch.Tensor:
    return image + 100 * torch.randint(0, 2, (1,), dtype=torch.uint8)


def python_noise(image: torch.Tensor) -> torch.Tensor:
    return image + 100 * random.randint(0, 1)  # noqa: S311


def numpy_noise(image: torch.Tensor) -> torch.Tensor:
    return image + 100 * int(np.random.randint(0, 2))  # noqa: NPY002


def parts(*sets: Dataset[Any], **changed: Any) -> DataParts:
    config = DataConfig(name="tests:sets", image_size=8, mean=(0, 0, 0), std=(1, 1, 1), **changed)
    train, validation, *plain = sets
    source = dataset_source(
        train, validation, plain=plain[0] if plain else None, name="mine", reading=Reading.square(8)
    )
    plan = assign(config, source, labels=source.labels, seed=0)
    return _parts(config, source, plan, None, PLAIN)


def epoch(data: DataParts, name: str = "train", seed: int | None = 0) -> torch.Tensor:
    return torch.cat([images for images, _ in getattr(data, name).batches(7, seed=seed)])


@pytest.mark.parametrize("noise", [torch_noise, python_noise, numpy_noise])
@pytest.mark.parametrize("limit", [1, 2**30])
def test_training_images_are_read_anew_each_epoch_the_same_way_for_a_seed(
    noise: Any, limit: int
) -> None:
    train = Noisy(40, noise)
    data = parts(train, Noisy(10), in_memory_limit=limit)
    assert data.train.varies
    before = sum(train.reads)
    random.seed(1)
    torch.manual_seed(1)
    state = torch.get_rng_state(), random.getstate()
    first = epoch(data)
    assert sum(train.reads) - before == len(data.train)
    assert torch.equal(first, epoch(data))
    assert not torch.equal(first, epoch(data, seed=1))
    assert torch.equal(epoch(data, seed=None), epoch(data, seed=None))
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == random.getstate()


def test_images_to_select_by_get_the_validation_sets_transform() -> None:
    data = parts(Noisy(40, torch_noise), Noisy(10))
    assert float(epoch(data, "selection", seed=None).max()) < 100 / 255
    assert data.summary is not None
    assert "read anew each epoch" in data.summary.augmentation
    assert (
        "selection images get the validation set's transform instead" in data.summary.augmentation
    )
    wrapped = parts(Subset(Noisy(40, torch_noise), range(40)), Subset(Noisy(10), range(10)))
    assert float(epoch(wrapped, "selection", seed=None).max()) < 100 / 255


def test_images_to_select_by_may_come_from_a_third_data_set() -> None:
    class Other(Noisy):
        pass

    data = parts(Noisy(40, torch_noise), Other(10), Noisy(40))
    assert float(epoch(data, "selection", seed=None).max()) < 100 / 255
    for plain, expected in (
        (Noisy(38), "it has 38 images, the first 40"),
        (Noisy(40, torch_noise), "its transforms are random too"),
    ):
        with pytest.raises(DataError, match=expected):
            parts(Noisy(40, torch_noise), Other(10), plain)


def test_images_to_select_by_keep_one_variation_where_nothing_else_can_be_had() -> None:
    class Other(Noisy):
        pass

    data = parts(Noisy(40, torch_noise), Other(10), in_memory_limit=1)
    assert data.summary is not None
    assert "return a third data set from the factory" in data.summary.augmentation
    assert torch.equal(epoch(data, "selection", seed=None), epoch(data, "selection", seed=None))


def test_a_generator_of_its_own_is_reported_as_not_repeatable() -> None:
    generator = np.random.default_rng(0)
    data = parts(Noisy(40, lambda image: image + int(generator.integers(0, 2)) * 100), Noisy(10))
    assert data.summary is not None
    assert "they use their own random generator" in data.summary.augmentation


def test_data_sets_without_random_transforms_are_held_in_memory() -> None:
    data = parts(Noisy(40), Noisy(10))
    assert not data.train.varies
    assert not isinstance(data.train.images, LazyImages)
    assert data.summary is not None
    assert data.summary.augmentation == "none"
