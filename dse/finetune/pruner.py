"""Prunes one study's network: ranks its channels, removes some, and recovers what is left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from torch import nn

from dse.config import Study
from dse.data.parts import Batch, DataParts
from dse.digests import derived_seed
from dse.finetune.loop import FORWARD_BATCH, finetune
from dse.finetune.placed import placed
from dse.finetune.recovery import Recovery
from dse.finetune.statistics import Norms, changed_norms
from dse.networks.copies import copied
from dse.networks.devices import threads_set
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.importance import CRITERIA, Importance, group_importance
from dse.pruning.reconstruction import reconstruct
from dse.pruning.shorten import Shortener
from dse.pruning.surgery import prune
from dse.step.schemes import apply_scheme

# Number of training images on which "taylor" and "fisher" score channels.
IMPORTANCE_IMAGES = 1024

# Number of training images on which layers that read pruned channels are refitted.
RECONSTRUCTION_IMAGES = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruner:
    """Prunes copies of one network, and computes the importance of its channels once.

    Attributes:
        study: the study, without a candidate's recipe.
        network: the unpruned network; never changed.
        data: the target's parts at the study's own image size.
        groups: channel groups of the network.
        recovery: trains pruned networks on source images; None if the study has no recovery.
        scores: importance by the study's criterion, if it was computed already.
    """

    study: Study
    network: nn.Module
    data: DataParts
    groups: tuple[ChannelGroup, ...]
    recovery: Recovery | None = None
    scores: Importance | None = None

    def importance(self, criterion: str) -> Importance:
        """Return the importance of all channels by a criterion; each is computed once."""
        if criterion not in self.known:
            self.known[criterion] = self._computed(criterion)
        return self.known[criterion]

    @cached_property
    def known(self) -> dict[str, Importance]:
        """The importance of all channels by each criterion that was used so far."""
        return {} if self.scores is None else {self.study.proxy.importance: self.scores}

    @cached_property
    def shortener(self) -> Shortener:
        """Leaves blocks out of the network."""
        return Shortener(self.network, self.data.input_spec.example(2))

    def is_whole(self, kept: Sequence[int]) -> bool:
        """Return whether all channels of every group are kept."""
        return tuple(kept) == tuple(group.channels for group in self.groups)

    def pruned(
        self, kept: Sequence[int], study: Study, *, seed_index: int, drop: str | None = None
    ) -> nn.Module:
        """Return a pruned and recovered copy of the network.

        Channels are ranked on the network with all its blocks.

        Args:
            kept: channels that each group keeps, (groups,).
            study: the study with the candidate's recipe applied.
            seed_index: index of the recovery's seed.
            drop: blocks that are left out, as in "features.3,features.5"; None for none.

        Returns:
            The network on the study's device, in its memory format.
        """
        network, groups = self.shortener.shortened(drop), self.shortener.groups(self.groups, drop)
        whole = self.is_whole(kept)
        # Without pruning, importance decides nothing, and may take a training to compute.
        importance = None if whole else self.importance(study.proxy.importance)
        pruned = prune(network, groups=groups, kept=kept, importance=importance)
        if self.recovery is not None and not (whole and drop is None):
            self.recovery.recover(
                pruned,
                kept=kept,
                importance=importance,
                seed_index=seed_index,
                blocks=self.shortener.blocks(drop),
            )
        pruned = placed(pruned, study.training)
        if study.proxy.reconstruct and importance is not None:
            # Layers are fitted at the study's own image size, as channels are ranked.
            batches = self._batches(study, "reconstruction", images=RECONSTRUCTION_IMAGES)
            reconstruct(
                placed(copied(network), study.training),
                pruned,
                [images for images, _ in batches],
                groups=groups,
                kept=kept,
                importance=importance,
            )
        return pruned

    def changed(
        self,
        pruned: nn.Module,
        data: DataParts,
        study: Study,
        *,
        kept: Sequence[int],
        drop: str | None = None,
    ) -> Norms:
        """Return norms whose inputs pruning, recovery or refitting changed; empty if unpruned.

        Args:
            pruned: the network that `pruned` returned.
            data: the target's parts at the candidate's image size.
            study: the study with the candidate's recipe applied.
            kept: channels that each group keeps, (groups,).
            drop: blocks that are left out; None for none.
        """
        whole = self.is_whole(kept)
        if whole and drop is None:
            return {}
        settings = study.training
        batches = data.train.batches(
            2, memory_format=settings.memory_format, device=settings.device
        )
        return changed_norms(
            placed(copied(self.network), study.training),
            pruned,
            next(batches)[0],
            groups=self.shortener.groups(self.groups, drop),
            kept=kept,
            importance={} if whole else self.importance(study.proxy.importance),
        )

    def _computed(self, criterion: str) -> Importance:
        study = self.study
        if not CRITERIA[criterion].needs_data:
            return group_importance(self.network, self.groups, criterion=criterion, seed=study.seed)
        with threads_set(study.training.threads):
            network = self._with_trained_head()
            batches = self._batches(study, "importance", images=IMPORTANCE_IMAGES)
            self.data.task.on(study.training.device)
            return group_importance(
                network,
                self.groups,
                criterion=criterion,
                batches=batches,
                total=self.data.task.total,
            )

    def _with_trained_head(self) -> nn.Module:
        """Return a copy of the unpruned network with an output layer trained on the target."""
        settings = self.study.training.model_copy(update={"scheme": "last"})
        network = placed(copied(self.network), settings)
        example = self.data.input_spec.example(2, device=settings.device)
        apply_scheme(network, example, settings.scheme)
        finetune(
            network,
            self.data.train,
            settings=settings,
            epochs=self.study.proxy.short_epochs,
            seed=derived_seed(self.study.seed, "importance", "head"),
            task=self.data.task,
        )
        return network

    def _batches(self, study: Study, purpose: str, *, images: int) -> Iterator[Batch]:
        """Return shuffled batches of training images, the same for every candidate."""
        part, settings = self.data.train, study.training
        batches = part.batches(
            min(FORWARD_BATCH, len(part)),
            seed=derived_seed(self.study.seed, purpose),
            memory_format=settings.memory_format,
            device=settings.device,
        )
        return islice(batches, images // FORWARD_BATCH)
