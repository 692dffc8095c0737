"""Random choices of a lean step: drawn once in the program, and held for the backward pass.

The lean engine draws them again from the saved state of PyTorch's generator. A program has no such
state, so the drawn numbers are held, which are few: stochastic depth draws one for each sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from dse.engines.chunks import Chunked
from dse.engines.network import LeanNetwork
from dse.engines.op import Call, Grads, Modules, Op, present
from dse.engines.opaque import Opaque
from dse.engines.program import Stage
from dse.errors import ExportError

_aten = torch.ops.aten
_RANDOM = (
    _aten.bernoulli.default,
    _aten.bernoulli.p,
    _aten.bernoulli_.float,
    _aten.rand.default,
    _aten.rand_like.default,
)
"""Operators whose result is what they draw, and that ExecuTorch has or that are decomposed."""


def hold_draws(network: LeanNetwork, samples: Tensor) -> LeanNetwork:
    """Return a lean network that holds what it draws.

    Blocks that aren't recognised and draw run as stock PyTorch, which holds what it needs.

    Args:
        network: the network. It is not changed.
        samples: (batch, ...), fake, to find out which blocks draw.
    """
    own = network.on(network.stock)
    programs = own.programs().values()
    watched = [_Watched(stage) for program in programs for stage in program.stages]
    if any(one.stage.recomputes for one in watched):
        rest = iter(watched)
        for program in programs:
            program.stages = [next(rest) for _ in program.stages]  # type: ignore[misc]
        buffers = {name: held.clone() for name, held in own.named_buffers()}
        with torch.enable_grad():
            functional_call(own, buffers, (samples,))
    rest = iter(watched)
    for program in programs:
        program.stages = [next(rest).without_draws() for _ in program.stages]
    return own


class _Watched:
    """A stage that notes whether it draws.

    Attributes:
        stage: the stage.
        title: its title.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage, self.title = stage, stage.title
        self._draws = False

    def __call__(self, value: Any, modules: Modules) -> Any:
        """Run the stage."""
        with _Noted() as noted:
            found = self.stage(value, modules)
        self._draws |= bool(noted.drawn)
        return found

    def without_draws(self) -> Stage:
        """Return the stage so that nothing is drawn twice."""
        region = self.stage.region
        if region is not None:
            held = replace(region, ops=tuple(map(_held, region.ops)))
            return replace(self.stage, region=held)
        return replace(self.stage, recomputes=self.stage.recomputes and not self._draws)


def _held(op: Op) -> Op:
    if isinstance(op, Chunked):
        return replace(op, ops=tuple(map(_held, op.ops)))
    if isinstance(op, Opaque) and op.random:
        return _HeldDraws(op.inputs, op.tensors, name=op.name, run=op.run)
    return op


@dataclass(frozen=True)
class _HeldDraws(Opaque):
    """A function that keeps what it draws in place of the generator's state."""

    def forward(
        self,
        inputs: Sequence[Tensor],
        parameters: Grads,  # noqa: ARG002  # it has none
        state: Modules,
        *,
        in_place: bool,  # noqa: ARG002
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the function and keep what it draws."""
        with _Noted() as noted:
            return self._run(inputs[0], state), tuple(noted.drawn)

    def again(
        self,
        inputs: Sequence[Tensor],
        parameters: Grads,  # noqa: ARG002
        state: Modules,
        kept: Sequence[Tensor],
        *,
        in_place: bool,  # noqa: ARG002
    ) -> Tensor:
        """Run the function with what was drawn."""
        with _Replayed(kept):
            return self._run(inputs[0], state)

    def backward(
        self,
        grad: Tensor,
        inputs: Sequence[Tensor | None],
        output: Tensor | None,  # noqa: ARG002
        call: Call,
    ) -> tuple[Grads, Grads]:
        """Run the function again and let autograd differentiate it."""
        value = present(inputs[0]).detach().requires_grad_()
        with torch.enable_grad(), _Replayed(call.kept):
            result = self.run(call.state, value)
        return list(torch.autograd.grad(result, value, grad)), []


class _Noted(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Notes what is drawn.

    Attributes:
        drawn: results of random operators, in order.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if _draws(func):
            self.drawn.append(found.detach().clone())  # which may be changed in place later on
        return found


class _Replayed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives random operators what was drawn before."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._drawn = iter(drawn)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not _draws(func):
            return func(*args, **(kwargs or {}))
        drawn = next(self._drawn)
        return args[0].copy_(drawn) if func._schema.is_mutable else drawn.clone()  # noqa: SLF001


def _draws(func: Any) -> bool:
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    if func not in _RANDOM:
        raise ExportError(
            f"a lean program for ExecuTorch can't draw by {func._schema.name}: "  # noqa: SLF001
            "export a candidate of the engine 'stock'"
        )
    return True
