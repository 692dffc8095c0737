"""The memory model: peak bytes of a training step for any channel counts and batch size."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from dse.errors import ConfigError, MemoryModelError
from dse.memory.channel_units import ChannelUnits, ModelGroup, checked_batch_size
from dse.memory.compile import compile_tape
from dse.memory.compiled import PeakEvaluator
from dse.memory.model_content import ModelContent
from dse.memory.site import Site
from dse.memory.timeline import (
    Breakdown,
    Timeline,
    buffers_at_peak,
    category_changes,
    make_timeline,
)
from dse.networks.engine import stock_of
from dse.networks.forward import check_network_and_example
from dse.pruning.groups import ChannelGroup, find_groups
from dse.step.canonical import Loss, classification_loss
from dse.step.settings import StepSettings


class MemoryModel:
    """Peak bytes of one canonical training step, exact for PyTorch's CPU operators (`tensors`).

    Pruning changes sizes, but never operators. The step is therefore traced once, and the size of
    every buffer becomes a polynomial in channel counts and batch size. Build a model with
    ``compile``. It does not need the network afterwards.

    Attributes:
        groups: Channel groups, one per column of ``channels``.
        settings: Settings of the step.
        method: How the channel groups were identified: by ``markers`` or by ``probes``.
        tape: Compiled arrays that the predictions are computed from.
    """

    def __init__(self, content: ModelContent) -> None:
        self._content = content
        self._units = ChannelUnits(content.groups)
        self.groups = self._units.groups
        self.settings = content.settings
        self.method = content.method
        self.tape = content.tape
        self._evaluators: dict[int, PeakEvaluator] = {}

    @classmethod
    def compile(
        cls,
        network: nn.Module,
        example_input: torch.Tensor,
        *,
        settings: StepSettings | None = None,
        loss: Loss | None = None,
        groups: Sequence[ChannelGroup] | None = None,
        **overrides: Any,
    ) -> "MemoryModel":
        """Trace a network's step and compile it.

        Args:
            network: The network, stock or lean. It is not changed.
            example_input: Tensor (any batch, channels, height, width). It fixes the image size.
            settings: Settings of the step. Defaults to ``StepSettings()``. If ``accumulate`` is
                above 1, batch sizes are those of one of the accumulated batches.
            loss: Loss of outputs and labels. Defaults to cross-entropy.
            groups: Channel groups. If None, they are found in the network. If empty, the network is
                modelled without pruning.
            **overrides: Fields of ``StepSettings`` to change, such as ``scheme="last"``.

        Returns:
            The memory model.

        Raises:
            PruningError: If the network can't be pruned. Pass ``groups=()`` to model it unpruned.
            MemoryModelError: If the step can't be expressed as polynomials.
            NetworkError: If the scheme or the checkpointing does not apply to the network, or
                ``network`` or ``example_input`` is of the wrong type.
            ConfigError: If a setting is unknown, or two settings exclude each other.
        """
        unknown = sorted(set(overrides) - {field.name for field in fields(StepSettings)})
        if unknown:
            known = ", ".join(field.name for field in fields(StepSettings))
            raise ConfigError(f"a step has no setting {unknown[0]!r}: use one of {known}")
        settings = replace(settings or StepSettings(), **overrides)
        check_network_and_example(network, example_input)
        if groups is None:
            groups = find_groups(stock_of(network), example_input)
        for group in groups:
            if not isinstance(group, ChannelGroup):
                raise MemoryModelError(f"groups has {group!r}: give what find_groups returned")
        compilation = compile_tape(
            network,
            example_input,
            groups=groups,
            settings=settings,
            loss=loss or classification_loss,
        )
        return cls(
            ModelContent(
                tape=compilation.tape,
                groups=tuple(ModelGroup(g.name, g.channels, g.multiple, g.fewest) for g in groups),
                settings=settings,
                method=compilation.method,
            )
        )

    def peaks(self, channels: ArrayLike, *, batch_size: int) -> NDArray[np.int64]:
        """Return the peak bytes of many candidates.

        Args:
            channels: Kept channels, integers of shape (n, groups) or (groups,), from 1 (or the
                group's ``multiple``) to the full count.
            batch_size: Images per step.

        Returns:
            Peak bytes, shape (n,) or ().

        Raises:
            MemoryModelError: If a count or the batch size is out of range.
        """
        units = self._units.of(channels)
        evaluator = self._evaluator(batch_size)
        if units.ndim == 1:
            return np.int64(evaluator.peak(units))  # type: ignore[return-value]  # shape ()
        return evaluator.peaks(units)

    def peak_and_gradient(
        self, channels: ArrayLike, *, batch_size: int
    ) -> tuple[int, NDArray[np.float64]]:
        """Return the peak bytes of one candidate, and their derivative by each group's channels.

        Args:
            channels: Kept channels, integers of shape (groups,).
            batch_size: Images per step.

        Returns:
            Peak bytes, and bytes per channel at the moment of the peak, shape (groups,).

        Raises:
            MemoryModelError: If a count or the batch size is out of range.
        """
        units = self._units.of_one(channels).astype(np.float64)
        peak, gradient = self._evaluator(batch_size).peak_and_gradient(units)
        return peak, gradient / self._units.multiples

    def units(self, channels: ArrayLike) -> NDArray[np.int64]:
        """Return the channels of one candidate, (groups,), in units of each group's ``multiple``.

        Raises:
            MemoryModelError: If a count is out of range.
        """
        return self._units.of_one(channels)

    def breakdown(self, channels: ArrayLike, *, batch_size: int) -> Breakdown:
        """Return what one candidate, channels (groups,), holds at its peak, and where that is."""
        return self.timeline(channels, batch_size=batch_size).breakdown()

    def timeline(self, channels: ArrayLike, *, batch_size: int) -> Timeline:
        """Return what one candidate, channels (groups,), holds throughout the step."""
        return make_timeline(
            self.tape, self._category_changes, self.units(channels), checked_batch_size(batch_size)
        )

    def held_at_peak(self, channels: ArrayLike, *, batch_size: int) -> list[tuple[str, Site, int]]:
        """Return the category, birth site and bytes of every buffer alive at a candidate's peak.

        The operator and module of the site are empty for buffers that lived before the step.
        """
        return buffers_at_peak(
            self.tape, self._category_changes, self.units(channels), checked_batch_size(batch_size)
        )

    def parameter_bytes(self, channels: ArrayLike) -> NDArray[np.int64]:
        """Return the bytes of all parameters: shape (n, groups) or (groups,) to (n,) or ().

        This includes side branches that the scheme adds.
        """
        terms = self.tape.category_terms("weights")
        return self._sum_terms(channels, terms, np.ones(len(terms), dtype=np.int64))

    def buffer_bytes(self, channels: ArrayLike) -> NDArray[np.int64]:
        """Return the bytes of all registered buffers: (n, groups) or (groups,) to (n,) or ()."""
        terms = self.tape.category_terms("buffers")
        return self._sum_terms(channels, terms, np.ones(len(terms), dtype=np.int64))

    def macs_forward(self, channels: ArrayLike) -> NDArray[np.int64]:
        """Return the multiply-adds of the forward pass for one image, each counted as one.

        As in fvcore, only convolutions and matrix products count, including those of side branches
        that the scheme adds: shape (n, groups) or (groups,) to (n,) or ().
        """
        return self._sum_terms(channels, self.tape.mac_terms, self.tape.mac_counts)

    @property
    def digest(self) -> str:
        """Digest of everything that the predictions depend on."""
        return self._content.digest

    def save(self, path: Path) -> None:
        """Write the model atomically to a file of plain arrays and JSON."""
        self._content.write(path)

    @classmethod
    def load(cls, path: Path) -> "MemoryModel":
        """Read a model that ``save`` has written.

        Raises:
            MemoryModelError: If the file is missing, damaged or of another version.
        """
        return cls(ModelContent.read(path))

    @cached_property
    def _category_changes(self) -> NDArray[np.int64]:
        return category_changes(self.tape)

    def _evaluator(self, batch_size: int) -> PeakEvaluator:
        if batch_size not in self._evaluators:
            self._evaluators[batch_size] = self.tape.evaluator(checked_batch_size(batch_size))
        return self._evaluators[batch_size]

    def _sum_terms(
        self, channels: ArrayLike, terms: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        units = self._units.of(channels).astype(np.int64)
        sums = [
            int((self.tape.terms_at(row, 1)[terms] * counts).sum()) for row in np.atleast_2d(units)
        ]
        return np.array(sums, dtype=np.int64).reshape(units.shape[:-1])
