"""When a candidate's batch-norm statistics are settled, and on which images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor, nn

from dse.config import Study
from dse.data.parts import Batch, DataParts, LazyImages, Part
from dse.digests import derived_seed
from dse.finetune.features import features_loss
from dse.finetune.loop import FORWARD_BATCH, evaluate
from dse.finetune.statistics import (
    SHARES,
    Norms,
    Settled,
    recalibrate_batch_norm,
    running_norms,
    settle_statistics,
    uncomputed,
)

# Images of each label among those that choose; fewer and more than these are not taken.
_OF_EACH_LABEL = 16
_FEWEST, _MOST = 64, 512


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Settles the statistics of one candidate, by training images alone.

    Of the training images some choose, others are what statistics are recomputed from; none does
    both. The selection and validation parts are never read.

    Attributes:
        study: As the candidate has it.
        data: The target's parts at the candidate's image size.
        seed: Of the candidate's training; decides which images recompute.
    """

    study: Study
    data: DataParts
    seed: int

    def before(self, network: nn.Module, *, changed: Norms, trains: bool) -> int:
        """Settle a network's statistics before it is trained.

        Norms that were given the same before pruning keep what they have; so the unpruned network
        keeps everything. Those of the others are kept, recomputed or mixed, by how well the
        features then tell the labels apart. Statistics that were never computed are recomputed.

        Args:
            network: With its scheme applied; changed in nothing but statistics.
            changed: Its norms that are given something else than before pruning.
            trains: Whether a training follows. Norms that take part in it normalise by each batch,
                and are settled afterwards.

        Returns:
            How many images went forward.

        Raises:
            TrainingError: A batch is too small for statistics.
        """
        if not self.study.proxy.calibrate_batches:
            return 0
        fresh = uncomputed(running_norms(network))
        known = {name: norm for name, norm in changed.items() if name not in fresh}
        if trains and all(norm.training for norm in (*fresh.values(), *known.values())):
            return 0
        forward = recalibrate_batch_norm(network, self._batches(), norms=fresh.values())
        settled = self.settle(network, known)
        return forward + settled.images_forward

    def settle(
        self, network: nn.Module, norms: Norms, *, shares: Sequence[float] = SHARES
    ) -> Settled:
        """Choose the statistics of some norms by how well the features tell the labels apart.

        Args:
            network: Changed in nothing but the statistics of these norms.
            norms: By name.
            shares: See `settle_statistics`.

        Raises:
            TrainingError: A batch is too small for statistics.
        """
        held = list(self._held_batches()) if norms else []

        def loss() -> float:
            return features_loss(network, held, classes=self.data.classes)

        return self._settle(network, norms, loss, shares=shares)

    def after(self, network: nn.Module) -> int:
        """Settle the statistics that followed a training: as they are, or recomputed.

        Args:
            network: In the mode that it trained in; frozen norms keep what they have.

        Returns:
            How many images went forward.

        Raises:
            TrainingError: A batch is too small, or the network's outputs are not finite.
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
            ).loss

        return self._settle(network, trained, loss, shares=(0.0, 1.0)).images_forward

    def _settle(
        self, network: nn.Module, norms: Norms, loss: Callable[[], float], shares: Sequence[float]
    ) -> Settled:
        """As `settle_statistics` does, images that were scored counted with the others."""
        settled = settle_statistics(network, self._batches(), norms=norms, loss=loss, shares=shares)
        scored = len(shares) * len(self._held) if norms else 0
        return replace(settled, images_forward=settled.images_forward + scored)

    def _batches(self) -> Iterator[Batch]:
        """The configured number of shuffled batches that recompute."""
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
        """The training images that choose."""
        return self._split[0]

    @property
    def _rest(self) -> Part:
        """The training images that recompute."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Part, Part]:
        """The same for every candidate of a study."""
        part = self.data.train
        wanted = min(max(_FEWEST, _OF_EACH_LABEL * self.data.classes), _MOST)
        count = max(1, min(wanted, len(part) // 2))
        generator = torch.Generator().manual_seed(derived_seed(self.study.seed, "held out"))
        order = torch.randperm(len(part), generator=generator)
        return _only(part, order[:count]), _only(part, order[count:] if len(part) > 1 else order)


def _only(part: Part, positions: Tensor) -> Part:
    """Some images of a part."""
    images = part.images
    return replace(
        part,
        images=images[positions] if isinstance(images, Tensor) else LazyImages(images, positions),
        labels=part.labels[positions],
    )
