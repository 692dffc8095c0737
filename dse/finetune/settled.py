"""Decides when a candidate's batch-norm statistics are settled, and on which images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch
from torch import nn

from dse.config import Study
from dse.data.parts import Batch, DataParts, Part
from dse.digests import derived_seed
from dse.finetune.features import Separation, best_separation, separation
from dse.finetune.loop import FORWARD_BATCH, evaluate
from dse.finetune.statistics import (
    SHARES,
    J,
    Norms,
    Settled,
    recalibrate_batch_norm,
    running_norms,
    settle_statistics,
    uncomputed,
)

# Images per label, and the limits of their total, that statistics are chosen on.
_OF_EACH_LABEL = 16
_FEWEST, _MOST = 128, 512


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Settles the batch-norm statistics of one candidate on training images only.

    Some training images are held out to choose between statistics, and the others are used to
    recompute them. The selection and validation parts are never read.

    Attributes:
        study: the study with the candidate's recipe applied.
        data: the target's parts at the candidate's image size.
        seed: seed of the candidate's training; decides which images recompute statistics.
    """

    study: Study
    data: DataParts
    seed: int

    def before(self, network: nn.Module, *, changed: Callable[[], Norms], trains: bool) -> int:
        """Settle a network's statistics before it is trained.

        Norms whose inputs pruning did not change keep their statistics, so the unpruned network
        keeps all of them. The statistics of the other norms are kept, recomputed or mixed,
        depending on which features separate the labels best. Statistics that were never
        computed are recomputed.

        Args:
            network: network with its scheme applied; only statistics are changed.
            changed: returns the norms whose inputs differ from those before pruning; called only
                if some may be settled now.
            trains: whether a training follows. Norms that take part in it normalise by batch and
                are settled afterwards.

        Returns:
            Number of images that went forward.

        Raises:
            TrainingError: if a batch is too small for statistics.
        """
        if not self.study.proxy.calibrate_batches:
            return 0
        norms = running_norms(network)
        if trains and all(norm.training for norm in norms.values()):
            return 0
        fresh = uncomputed(norms)
        known = {name: norm for name, norm in changed().items() if name not in fresh}
        if trains and all(norm.training for norm in (*fresh.values(), *known.values())):
            return 0
        forward = recalibrate_batch_norm(network, self._batches(), norms=fresh.values())
        settled = self.settle(network, known)
        return forward + settled.images_forward

    def settle(
        self, network: nn.Module, norms: Norms, *, shares: Sequence[float] = SHARES
    ) -> Settled:
        """Choose the statistics of some norms by how well the features separate the labels.

        Args:
            network: network to change; only the statistics of these norms change.
            norms: norms by name.
            shares: see `settle_statistics`.

        Raises:
            TrainingError: if a batch is too small for statistics.
        """
        held = list(self._held_batches()) if norms else []

        def judge() -> Separation:
            return separation(network, held, task=self.data.task, settings=self.study.training)

        return self._settle(network, norms, judge, best_separation, shares=shares)

    def after(self, network: nn.Module) -> int:
        """Settle the statistics after a training: keep the running averages or recompute them.

        Args:
            network: network in the mode it was trained in; frozen norms keep their statistics.

        Returns:
            Number of images that went forward.

        Raises:
            TrainingError: if a batch is too small, or the network's outputs are not finite.
        """
        if not self.study.proxy.calibrate_batches:
            return 0
        trained = {name: norm for name, norm in running_norms(network).items() if norm.training}
        settings = self.study.training

        def loss() -> float:
            return evaluate(
                network,
                self._held,
                batch_size=FORWARD_BATCH,
                memory_format=settings.memory_format,
                device=settings.device,
                task=self.data.task,
            ).loss

        settled = self._settle(network, trained, loss, _least, shares=(0.0, 1.0))
        return settled.images_forward

    def _settle(
        self,
        network: nn.Module,
        norms: Norms,
        judge: Callable[[], J],
        best: Callable[[Sequence[J]], int],
        *,
        shares: Sequence[float],
    ) -> Settled:
        """Call `settle_statistics`, and add the judged images to its count."""
        settled = settle_statistics(
            network, self._batches(), norms=norms, judge=judge, best=best, shares=shares
        )
        scored = len(shares) * len(self._held) if norms else 0
        return replace(settled, images_forward=settled.images_forward + scored)

    def _batches(self) -> Iterator[Batch]:
        """Return the configured number of shuffled batches to recompute statistics from."""
        part, settings = self._rest, self.study.training
        batches = part.batches(
            min(max(FORWARD_BATCH, settings.batch_size), len(part)),
            seed=derived_seed(self.seed, "statistics"),
            drop_last=True,
            memory_format=settings.memory_format,
            device=settings.device,
        )
        return islice(batches, self.study.proxy.calibrate_batches)

    def _held_batches(self) -> Iterator[Batch]:
        settings = self.study.training
        return self._held.batches(
            FORWARD_BATCH, memory_format=settings.memory_format, device=settings.device
        )

    @property
    def _held(self) -> Part:
        """Training images that statistics are chosen on."""
        return self._split[0]

    @property
    def _rest(self) -> Part:
        """Training images that statistics are recomputed from."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Part, Part]:
        """Both sets of images; the same for every candidate of a study."""
        part = self.data.train
        wanted = min(max(_FEWEST, _OF_EACH_LABEL * self.data.classes), _MOST)
        count = max(1, min(wanted, len(part) // 2))
        generator = torch.Generator().manual_seed(derived_seed(self.study.seed, "held out"))
        order = torch.randperm(len(part), generator=generator)
        return part.subset(order[:count]), part.subset(order[count:] if len(part) > 1 else order)


def _least(losses: Sequence[float]) -> int:
    """Return the index of the least loss; the first on a tie."""
    return losses.index(min(losses))
