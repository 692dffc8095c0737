"""Places in a training step."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True)
class Site:
    """A place in a training step.

    Attributes:
        phase: ``forward``, ``backward`` or ``optimizer``.
        operator: Operator, such as ``aten::convolution``. Empty for what lives before the step.
        module: Dotted name of the running module. In the backward pass, that of the module whose
            forward created the running autograd node.
    """

    phase: Phase
    operator: str
    module: str
