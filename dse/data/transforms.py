"""Augments images by transforms of torchvision.transforms.v2, as a study or a recipe names them.

This file needs torch and torchvision alone, because bundles hold a copy of it. A mask, the last
channel of a sample, is moved along with its image.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

Spec = Mapping[str, Any]

_IMAGE = 3  # dimensions
_TRIALS = 4  # of each transform, with other random numbers
_NESTED = "transforms"  # the option of transforms that are made of others
_WORDS = {"interpolation": InterpolationMode, "policy": AutoAugmentPolicy}
_NOT_NAMED = {
    "CutMix": "mixes the labels of several images",
    "MixUp": "mixes the labels of several images",
    "Lambda": "takes a function",
    "LinearTransformation": "takes a matrix",
    "ToTensor": "is deprecated, and images are tensors already",
    "Transform": "does nothing",
}


class Transforms:
    """Transforms that are applied to one sample after another.

    Attributes:
        shape: channels, height and width of an image.
        ignore: value of a mask's pixels that belong to no class, which fills the area that a
            transform leaves empty; None if samples have no masks.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        *,
        shape: Sequence[int],
        ignore: int | None = None,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        """Build the transforms, and try each of them.

        Args:
            specs: for each transform a table of its name and its options. An option `transforms`
                holds such tables. Without an option `size`, a transform that has one gets the
                images' own.
            shape: see the attributes.
            ignore: likewise.
            dtype: type of the samples.

        Raises:
            ValueError: if there is no such transform or option, or a transform fails, or changes
                the shape or type of an image.
        """
        if len(shape) != _IMAGE:
            raise ValueError(f"transforms are for images, and a sample has the shape {list(shape)}")
        self.shape, self.ignore = tuple(shape), ignore
        leaves = _leaves(specs)
        self._named = [(self._built(one), str(one["name"])) for one in specs]
        for spec in leaves:
            self._try(self._built({**spec, **_certain(spec)}), spec["name"], dtype)

    def __call__(self, samples: Tensor, *, seed: int) -> Tensor:
        """Transform each sample of a batch by itself, reproducibly for a seed.

        Args:
            samples: (n, channels, height, width); with masks a channel more.
            seed: seed of all randomness; torch's global generator is left as it was.

        Returns:
            Samples of the same shape and type.

        Raises:
            ValueError: if a transform fails, or changes the shape or type.
        """
        with _seeded(seed):
            return torch.stack([self._whole(one) for one in samples])

    def _whole(self, sample: Tensor) -> Tensor:
        for transform, name in self._named:
            sample = self._applied(transform, name, sample)
        return sample

    def _applied(self, transform: nn.Module, name: str, sample: Tensor) -> Tensor:
        masked = self.ignore is not None
        image = tv_tensors.Image(sample[:-1] if masked else sample)
        given = [image, tv_tensors.Mask(sample[-1:].to(torch.uint8))] if masked else [image]
        try:
            made = transform(*given)
        except Exception as error:  # a transform may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{name} fails on {self._text}: {reason}") from error
        found = list(made) if masked and isinstance(made, tuple | list) else [made]
        for before, after in zip(given, [*found, None], strict=False):
            if not torch.is_tensor(after):
                raise ValueError(f"{name} returns a {type(after).__name__}, not an image")
            if after.shape != before.shape or after.dtype != before.dtype:
                raise ValueError(
                    f"{name} makes {_described(after)} of {_described(before)}: it must leave "
                    "shape and type as they are"
                )
        return torch.cat([one.as_subclass(Tensor).to(sample.dtype) for one in found])

    @property
    def _text(self) -> str:
        kind = "an image with its mask" if self.ignore is not None else "an image"
        return f"{kind} of shape {'x'.join(map(str, self.shape))}"

    def _try(self, transform: nn.Module, name: str, dtype: torch.dtype) -> None:
        """Apply a transform to noise several times."""
        channels, height, width = self.shape
        with _seeded(0):
            for _ in range(_TRIALS):
                image = torch.rand(self.shape)
                image = image if dtype.is_floating_point else (255 * image).to(dtype)
                mask = torch.randint(0, 2, (1, height, width)).to(dtype)
                sample = image if self.ignore is None else torch.cat([image, mask])
                after = self._applied(transform, name, sample)
                if self.ignore is not None and not _known(after[channels:], self.ignore):
                    raise ValueError(f"{name} gives masks other values than those of classes")

    def _built(self, spec: Spec) -> nn.Module:
        name = str(spec["name"])
        kind = _kinds().get(name)
        if kind is None:
            raise ValueError(f"{name!r} {_why_not(name)}")
        options = {key: value for key, value in spec.items() if key != "name"}
        known = _options(kind)
        _check_options(name, options, known)
        if "size" in known:
            options.setdefault("size", list(self.shape[1:]))
        if "fill" in known and self.ignore is not None:
            own = options.get("fill", known["fill"].default)
            options["fill"] = {tv_tensors.Mask: self.ignore, "others": own}
        if _NESTED in options:
            options[_NESTED] = [self._built(one) for one in options[_NESTED]]
        try:
            for key, words in _WORDS.items():
                if isinstance(options.get(key), str):
                    options[key] = words(options[key])
            made: nn.Module = kind(**options)
        except Exception as error:  # a constructor may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{name} can't be made of its options: {reason}") from error
        return made


def _check_options(
    name: str, options: Mapping[str, Any], known: Mapping[str, inspect.Parameter]
) -> None:
    """Check that a transform has all options that are given, and is given those that it needs.

    Raises:
        ValueError: otherwise.
    """
    for key in options:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{name} has no option {key!r}: {_meant(key, known) or has}")
    for key, one in known.items():
        if one.default is one.empty and key not in options and key != "size":
            raise ValueError(f"{name} needs the option {key!r}: give it")


def _kinds() -> dict[str, type[nn.Module]]:
    """Return the transforms that may be named."""
    found: dict[str, Any] = {name: vars(v2)[name] for name in dir(v2) if name not in _NOT_NAMED}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, v2.Transform)
    }


def _options(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind).parameters)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which transforms draw from, and restore it on exit."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # A transform of colours warns that it leaves masks as they are, which is right.
        warnings.filterwarnings("ignore", message=".*passing through inputs of type")
        torch.default_generator.manual_seed(seed)
        yield


def _leaves(specs: object) -> list[Spec]:
    """Return the transforms that aren't made of others."""
    if not isinstance(specs, list | tuple) or not specs:
        raise ValueError("transforms must be a list of tables, each with a name")
    found: list[Spec] = []
    for spec in specs:
        named = isinstance(spec, Mapping) and isinstance(spec.get("name"), str)
        if not named:
            raise ValueError(f"{spec!r} is no transform: write a table with its name")
        inner = spec.get(_NESTED)
        found += [spec] if inner is None else _leaves(inner)
    return found


def _certain(spec: Spec) -> dict[str, float]:
    """Return options by which a transform is applied always."""
    kind = _kinds().get(spec["name"])
    return {"p": 1.0} if kind is not None and "p" in _options(kind) else {}


def _known(mask: Tensor, ignore: int) -> bool:
    return bool(((mask <= 1) | (mask == ignore)).all())


def _why_not(name: str) -> str:
    if name in _NOT_NAMED:
        return f"can't be named: it {_NOT_NAMED[name]}"
    hint = _meant(name, _kinds()) or "see the classes of torchvision.transforms.v2"
    return f"is no transform of torchvision.transforms.v2: {hint}"


def _meant(word: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _described(image: Tensor) -> str:
    return f"{'x'.join(map(str, image.shape))} {str(image.dtype).removeprefix('torch.')}"
