"""Where in a training step something happens."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True)
class Site:
    """A place in the step.

    Attributes:
        phase: forward, backward or optimizer.
        operator: such as ``aten::convolution``; empty for what lives before the step.
        module: dotted name; in backward the module whose forward made the running node.
    """

    phase: Phase
    operator: str
    module: str
