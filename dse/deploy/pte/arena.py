"""Predicts ExecuTorch's arena for any channel counts, before anything is exported."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from dse.deploy.pte.file import export_errors
from dse.deploy.pte.planning import ALIGNMENT_BYTES, arena_offsets
from dse.deploy.pte.program_tape import ChunkedLives, program_tape
from dse.deploy.pte.programs import training_program
from dse.memory.channel_units import ChannelUnits, ModelGroup, checked_batch_size
from dse.memory.compile import compile_trace
from dse.memory.compiled import CompiledTape
from dse.memory.markers import Watch
from dse.memory.tape import Event, Tape
from dse.memory.trace import step_network
from dse.pruning.channel_group import ChannelGroup

Lives = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class ArenaModel:
    """Bytes of the arena of a network's training program in ExecuTorch.

    Attributes:
        tape: the buffers of the program, in channel units.
        units: converts channels to units.
        lives: lives of the buffers, also where a lean step has fewer chunks.
    """

    tape: CompiledTape
    units: ChannelUnits
    lives: ChunkedLives

    @classmethod
    def compile(
        cls,
        network: nn.Module,
        example_input: Tensor,
        *,
        groups: Sequence[ChannelGroup],
        scheme: str,
    ) -> "ArenaModel":
        """Export the program at two widths, and derive every buffer's size from them.

        Args:
            network: the unpruned network, stock or lean. It is not changed.
            example_input: tensor (any batch, channels, height, width).
            groups: channel groups whose counts may vary.
            scheme: which parameters train.

        Raises:
            ExportError: if the step can't be exported.
            MemoryModelError: if a buffer's size is not a polynomial in channels and batch size.
        """
        shape = tuple(example_input.shape[1:])
        multiples = [group.multiple for group in groups]
        lives: list[ChunkedLives] = []

        def trace(units: Sequence[int], batch_size: int, chunks: Watch | None) -> Tape:
            shell = step_network(
                network,
                groups,
                [unit * multiple for unit, multiple in zip(units, multiples, strict=True)],
                image_shape=shape,
                scheme=scheme,
                input_dtype=example_input.dtype,
            )
            # Exported programs of meta tensors have no gradients; fake ones are like real ones.
            with FakeTensorMode(allow_non_fake_inputs=True):
                shell = shell.to_empty(device="cpu")
                samples = torch.empty(batch_size, *shape, dtype=example_input.dtype)
            tape, own = step_tape(shell, samples, chunks=chunks)
            lives.append(own)
            return tape

        return cls(
            compile_trace(network, trace, groups=groups).tape,
            ChannelUnits([ModelGroup(g.name, g.channels, g.multiple, g.fewest) for g in groups]),
            lives[0],
        )

    def arena_bytes(self, channels: ArrayLike, *, batch_size: int) -> int:
        """Return the size of the arena for kept channels (groups,).

        Raises:
            MemoryModelError: if a count or the batch size is out of range.
        """
        tape = self.tape
        units = self.units.of_one(channels)
        sizes = tape.terms_at(units, checked_batch_size(batch_size))[tape.buffer_terms]
        found = sizes.tolist()
        return _placed(found, lives_of(self.lives.events(found), len(found)))


def step_tape(
    network: nn.Module, samples: Tensor, *, chunks: Watch | None = None
) -> tuple[Tape, ChunkedLives]:
    """Return the buffers of a network's training program.

    Args:
        network: the network in its training mode, on any device, with its scheme applied.
        samples: (batch, ...), of any values, on the same device.
        chunks: determines the sizes of a lean network's chunks; None for the engine's own.

    Returns:
        The tape, and the lives of its buffers, also where there are fewer chunks.

    Raises:
        ExportError: if the step can't be exported.
    """
    labels = torch.zeros(len(samples), dtype=torch.long, device=samples.device)
    with export_errors():
        return program_tape(training_program(network, samples, labels, chunks=chunks)[0])


def step_arena_bytes(network: nn.Module, samples: Tensor) -> int:
    """Return the size of the arena of a network's training program; see `step_tape`."""
    tape, _ = step_tape(network, samples)
    return _placed([prod(dims) for dims in tape.dims], lives_of(tape.events, len(tape.dims)))


def lives_of(events: Sequence[Sequence[int]], buffers: int) -> Lives:
    """Return the first and last moment of each buffer, in the order in which ExecuTorch counts.

    Args:
        events: rows of event, buffer and site.
        buffers: number of buffers.
    """
    first, last = [0] * buffers, [0] * buffers
    moment, ending = 0, -1
    for kind, buffer, site in events:
        if kind == Event.BIRTH:
            moment += site > 0  # all that lives from the start is born at once
            first[buffer] = moment
        else:
            moment += site != ending
            ending, last[buffer] = site, moment
    return list(zip(first, last, strict=True))


def _placed(sizes: Sequence[int], lives: Lives) -> int:
    aligned = [-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in sizes]
    kept = [number for number, size in enumerate(aligned) if size]
    return arena_offsets([lives[n] for n in kept], [aligned[n] for n in kept])[1]
