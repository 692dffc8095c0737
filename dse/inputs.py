"""What one sample of a network's input looks like."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dse.errors import ConfigError

Kind = Literal["float32", "int64"]
_DTYPES: dict[Kind, torch.dtype] = {"float32": torch.float32, "int64": torch.int64}
_IMAGE_DIMENSIONS = 3
_COLOURS = 3
_WRITTEN = re.compile(r"(\d{1,9}(?:x\d{1,9})*)(:int64|:float32)?")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Shape and type of one sample.

    Several inputs of one shape, such as tokens and their mask, are one tensor with an input in each
    position of its first dimension.

    Attributes:
        shape: without the batch, such as (3, 224, 224) for images or (2, 128) for 128 tokens with a
            mask.
        kind: type of the numbers.
        names: names of several inputs, as the network's `forward` calls them; numbers for inputs by
            position. Empty for a single input.
        kinds: type that each of several inputs has.
    """

    shape: tuple[int, ...]
    kind: Kind = "float32"
    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @classmethod
    def image(cls, size: int, *, channels: int = 3) -> "InputSpec":
        """Return the input of a network for square images."""
        return cls(shape=(channels, size, size))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the tensor."""
        return _DTYPES[self.kind]

    @property
    def is_image(self) -> bool:
        """Whether it is a single input with channels, height and width."""
        return self.kind == "float32" and len(self.shape) == _IMAGE_DIMENSIONS and not self.names

    @property
    def text(self) -> str:
        """The shape as text, such as "3x224x224" or "2x128 whole numbers"."""
        shape = "x".join(map(str, self.shape)) or "one number"
        kind = " whole numbers" if self.kind == "int64" else ""
        names = f" ({', '.join(self.names)})" if self.names else ""
        return f"{shape}{kind}{names}"

    @property
    def sample_text(self) -> str:
        """The shape as text, in pixels for images of three colours."""
        if self.is_image and self.shape[0] == _COLOURS:
            return f"{self.shape[1]}x{self.shape[2]} pixels"
        return self.text

    def example(self, batch_size: int, *, device: str | torch.device = "cpu") -> Tensor:
        """Return zeros for a batch; of a mask ones, so that something is left to compare."""
        found = torch.zeros((batch_size, *self.shape), dtype=self.dtype, device=device)
        for place, name in enumerate(self.names):
            if "mask" in name:
                found[:, place] = 1
        return found

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object, from which `from_json` restores it."""
        return {
            "shape": list(self.shape),
            "kind": self.kind,
            "names": list(self.names),
            "kinds": list(self.kinds),
        }

    @classmethod
    def parse(cls, text: str) -> "InputSpec":
        """Read a shape, such as "1x16000", "16x64x64" or, of tokens, "128:int64".

        Raises:
            ConfigError: if it has another form, or a size is 0.
        """
        found = _WRITTEN.fullmatch(text)
        shape = tuple(int(one) for one in found[1].split("x")) if found else ()
        if found is None or 0 in shape:
            raise ConfigError(
                f"--input is {text!r}: give the sizes of one sample, as in 1x16000, or 128:int64 "
                "for tokens"
            )
        return cls(shape=shape, kind="int64" if found[2] == ":int64" else "float32")

    @classmethod
    def from_json(cls, read: dict[str, Any]) -> "InputSpec":
        """Restore what `to_json` returned."""
        return cls(
            shape=tuple(read["shape"]),
            kind=read["kind"],
            names=tuple(read["names"]),
            kinds=tuple(read["kinds"]),
        )
