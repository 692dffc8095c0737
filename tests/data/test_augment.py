import pytest
import torch

from dse.data.augment import augmented
from dse.names import Augmentation

SIZE = 16


def noise(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("how", ["flip", "crop-flip"])
def test_augmented_images_keep_shape_type_and_values(how: Augmentation) -> None:
    images = noise(64)
    varied = augmented(images, how=how, generator=torch.Generator().manual_seed(0))
    assert varied.shape == images.shape
    assert varied.dtype == images.dtype
    for before, after in zip(images, varied, strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())


def test_flips_mirror_about_half_of_the_images() -> None:
    images = noise(200)
    varied = augmented(images, how="flip", generator=torch.Generator().manual_seed(0))
    mirrored = (varied == images.flip(3)).flatten(1).all(1)
    assert torch.equal(varied[~mirrored], images[~mirrored])
    assert 60 < int(mirrored.sum()) < 140


def test_crops_are_cut_from_the_image_padded_by_reflection() -> None:
    images = noise(50)
    varied = augmented(images, how="crop-flip", generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    for before, after in zip(padded, varied, strict=True):
        crops = [
            mirrored[:, top : top + SIZE, left : left + SIZE]
            for mirrored in (before, before.flip(2))
            for top in range(5)
            for left in range(5)
        ]
        assert any(torch.equal(after, crop) for crop in crops)
