"""Functions of one value that are differentiated by running them again under autograd."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dse.engines.op import Call, Grads, Modules, Op, Wanted, present
from dse.errors import NetworkError
from dse.step.checkpointing import drawn_from, random_state


@dataclass(frozen=True)
class Opaque(Op):
    """A cheap function without parameters: dropout, stochastic depth, an unknown activation.

    What it draws at random is drawn again from the saved state of the random generator.

    Attributes:
        name: What to call it in a message.
        run: The function, of the network's modules and the value.
        random: Whether it may draw random numbers.
    """

    name: str = ""
    run: Callable[[Modules, Tensor], Tensor] = lambda _modules, value: value
    random: bool = True

    views: ClassVar[bool] = True  # it may return its input
    fresh: ClassVar[bool] = False

    def state(self, modules: Modules, *, first: bool) -> Modules:
        """Return the modules, which the function may be one of."""
        return modules

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Modules, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the function and keep the random state from before."""
        kept: tuple[Tensor, ...] = ()
        if self.random:
            kept = tuple(each for each in random_state(inputs[0].device) if each is not None)
        return self._run(inputs[0], state), kept

    def again(
        self,
        inputs: Sequence[Tensor],
        parameters: Grads,
        state: Modules,
        kept: Sequence[Tensor],
        *,
        in_place: bool,
    ) -> Tensor:
        """Run the function from the random state that was kept."""
        with drawn_from(_both(kept), inputs[0].device):
            return self._run(inputs[0], state)

    def _run(self, value: Tensor, modules: Modules) -> Tensor:
        version = value._version  # noqa: SLF001  # no public name
        output = self.run(modules, value)
        if value._version != version:  # noqa: SLF001
            raise NetworkError(
                f"{self.name} changes its input in place, so it can't be run again: build it with "
                "inplace=False"
            )
        return output

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input."""
        return frozenset([0])

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Run the function again and let autograd differentiate it."""
        value = present(inputs[0]).detach().requires_grad_()
        with torch.enable_grad(), drawn_from(_both(call.kept), value.device):
            result = self.run(call.state, value)
        return list(torch.autograd.grad(result, value, grad)), []


def _both(kept: Sequence[Tensor]) -> tuple[Tensor, Tensor | None] | None:
    if not kept:
        return None
    return kept[0], kept[1] if len(kept) > 1 else None
