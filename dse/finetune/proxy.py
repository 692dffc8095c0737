"""The proxy: prunes a candidate, fine-tunes it for a while and scores it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from torch import nn

from dse.candidate import Candidate, with_recipe
from dse.config import DataConfig, Study, TrainingConfig
from dse.data import load_data
from dse.data.parts import DataParts, Part
from dse.digests import derived_seed
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation, Rung
from dse.finetune.loop import (
    FORWARD_BATCH,
    Score,
    TrainingTrace,
    evaluate,
    finetune,
)
from dse.finetune.recovery import Recovery
from dse.finetune.settled import Statistics
from dse.finetune.statistics import Norms, changed_norms
from dse.names import Fidelity
from dse.networks.build import example_input
from dse.networks.copies import copied
from dse.networks.devices import threads_set
from dse.pruning.groups import ChannelGroup
from dse.pruning.importance import CRITERIA, Importance, group_importance
from dse.pruning.reconstruction import reconstruct
from dse.pruning.surgery import prune
from dse.step.schemes import apply_scheme
from dse.step.settings import MEMORY_FORMATS

# Number of training images on which "taylor" and "fisher" score channels.
IMPORTANCE_IMAGES = 1024

# Number of training images on which layers that read pruned channels are refitted.
RECONSTRUCTION_IMAGES = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Proxy:
    """Scores the candidates of one study, in any order.

    Attributes:
        study: the study, which determines the training, the fidelities and the seed.
        network: the unpruned network with the target's output layer; never changed.
        data: the target's parts.
        groups: channel groups of the network.
        recovery: trains pruned networks on source images first; None if the study has no recovery.
        scores: importance of all channels, if it was computed already; computed if None.
    """

    study: Study
    network: nn.Module
    data: DataParts
    groups: tuple[ChannelGroup, ...]
    recovery: Recovery | None = None
    scores: Importance | None = None

    @cached_property
    def importance(self) -> Importance:
        """Importance of all channels by the study's criterion, computed once."""
        return self.scores or self._judged(self.study.proxy.importance)

    def _importance(self, criterion: str) -> Importance:
        """Scores by any criterion, each computed once."""
        if criterion == self.study.proxy.importance:
            return self.importance
        if criterion not in self._others:
            self._others[criterion] = self._judged(criterion)
        return self._others[criterion]

    def under(self, study: Study) -> "Proxy":
        """The same proxy with another recipe of the study; data and channels' scores are shared.

        Scores that are read off the data stay those of the recipe that they were computed with.
        """
        return replace(self, study=study, scores=self.__dict__.get("importance", self.scores))

    def parts(self, data: DataConfig) -> DataParts:
        """Return the target's parts at an image size; each size is loaded once."""
        if data.image_size == self.data.image_size:
            return self.data
        if data.image_size not in self._resized:
            self._resized[data.image_size] = load_data(data, seed=self.study.seed)
        return self._resized[data.image_size]

    @cached_property
    def _others(self) -> dict[str, Importance]:
        return {}

    @cached_property
    def _resized(self) -> dict[int, DataParts]:
        return {}

    def _judged(self, criterion: str) -> Importance:
        seed = self.study.seed
        if not CRITERIA[criterion].needs_data:
            return group_importance(self.network, self.groups, criterion=criterion, seed=seed)
        settings = self.study.training
        with threads_set(settings.threads):
            network = self._acquainted()
            batches = self.data.train.batches(
                min(FORWARD_BATCH, len(self.data.train)),
                seed=derived_seed(seed, "importance"),
                memory_format=settings.memory_format,
                device=settings.device,
            )
            few = islice(batches, IMPORTANCE_IMAGES // FORWARD_BATCH)
            return group_importance(network, self.groups, criterion=criterion, batches=few)

    def _acquainted(self) -> nn.Module:
        """Return a copy of the unpruned network with an output layer trained on the target."""
        settings = self.study.training.model_copy(update={"scheme": "last"})
        network = copied(self.network).to(settings.device)
        network = network.to(memory_format=MEMORY_FORMATS[settings.memory_format])
        example = example_input(2, self.data.image_size, device=settings.device)
        apply_scheme(network, example, settings.scheme)
        finetune(
            network,
            self.data.train,
            settings=settings,
            epochs=self.study.proxy.short_epochs,
            seed=derived_seed(self.study.seed, "importance", "head"),
        )
        return network

    def evaluate(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        on_progress: Callable[[float], None] | None = None,
        rung: Rung | None = None,
    ) -> Evaluation:
        """Score a candidate; see `train`, whose network is discarded."""
        _, evaluation = self.train(
            candidate,
            fidelity=fidelity,
            seed_index=seed_index,
            read_validation=read_validation,
            on_progress=on_progress,
            rung=rung,
        )
        return evaluation

    def train(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        on_progress: Callable[[float], None] | None = None,
        rung: Rung | None = None,
    ) -> tuple[nn.Module, Evaluation]:
        """Prune the network, recover it, settle its statistics, fine-tune and score it.

        The result depends only on the study, the candidate, the fidelity and the seed index, not on
        what was trained before. On one machine with a fixed number of threads it is reproducible to
        the bit.

        Args:
            candidate: the candidate to train.
            fidelity: length of the training: none (`calibrate`), `proxy.short_epochs` or
                `proxy.full_epochs`. If the output layer is new, `calibrate` scores at chance.
            seed_index: index of the seed, from 0.
            read_validation: whether to score the validation part too.
            on_progress: called with the share of the training that is done, from 0 to 1.
            rung: point at which training may stop; the network is scored there with its running
                statistics.

        Returns:
            The network on the study's device in eval mode, and its evaluation.

        Raises:
            CandidateError: if the candidate doesn't fit the network or the data.
            TrainingError: if the training can't start, or diverged.
        """
        kept = candidate.kept(self.groups)
        study = with_recipe(self.study, candidate)
        settings, data, metric = study.training, self.parts(study.data), study.search.metric
        seed = derived_seed(self.study.seed, candidate.digest, fidelity, seed_index)
        started = time.perf_counter()
        with threads_set(settings.threads):
            network = self._pruned(kept, study, seed_index)
            example = example_input(2, data.image_size, device=settings.device)
            apply_scheme(network, example, settings.scheme)
            statistics = Statistics(study=study, data=data, seed=seed)
            forward = statistics.before(
                network,
                changed=lambda: self._changed(network, data, study, kept),
                trains=fidelity != "calibrate",
            )
            halt = _Halt(rung, network, data.selection, study)
            trace = self._finetune(
                network,
                data,
                settings,
                fidelity=fidelity,
                seed=seed,
                on_progress=on_progress,
                go_on=halt,
            )
            images_trained = 0 if trace is None else trace.images
            if halt.score is not None:
                forward += len(data.selection)
            validation = None
            with TrainingError.counting(lambda: images_trained):
                if halt.score is not None and halt.stopped:
                    score = halt.score
                else:
                    if trace is not None:
                        forward += statistics.after(network)
                    score = _score(network, data.selection, settings)
                    forward += len(data.selection)
                if read_validation:
                    validation = _score(network, data.validation, settings)
                    forward += len(data.validation)
        evaluation = Evaluation(
            candidate_digest=candidate.digest,
            fidelity=fidelity,
            seed=seed,
            accuracy=score.by(metric),
            validation_accuracy=None if validation is None else validation.by(metric),
            loss=score.loss,
            wall_seconds=time.perf_counter() - started,
            step_seconds=0.0 if trace is None else trace.step_seconds,
            images_trained=images_trained,
            images_forward=forward,
            rung_accuracy=None if halt.score is None else halt.score.by(metric),
            stopped=halt.stopped,
            correct=score.confusion.correct,
            validation_correct=None if validation is None else validation.confusion.correct,
        )
        return network.eval(), evaluation

    def _pruned(self, kept: tuple[int, ...], study: Study, seed_index: int) -> nn.Module:
        """Return a pruned, recovered copy of the network on the device, in the memory format."""
        settings = study.training
        whole = kept == tuple(group.channels for group in self.groups)
        if whole:  # importance decides nothing, and may take a training to read
            return self._placed(prune(self.network, groups=self.groups, kept=kept), study)
        importance = self._importance(study.proxy.importance)
        pruned = prune(self.network, groups=self.groups, kept=kept, importance=importance)
        if self.recovery is not None:
            self.recovery.recover(pruned, kept=kept, importance=importance, seed_index=seed_index)
        pruned = self._placed(pruned, study)
        if study.proxy.reconstruct:
            # Layers are fitted at the study's own image size, as channels are judged.
            batches = self.data.train.batches(
                min(FORWARD_BATCH, len(self.data.train)),
                seed=derived_seed(self.study.seed, "reconstruction"),
                memory_format=settings.memory_format,
                device=settings.device,
            )
            few = islice(batches, RECONSTRUCTION_IMAGES // FORWARD_BATCH)
            reconstruct(
                self._placed(copied(self.network), study),
                pruned,
                [images for images, _ in few],
                groups=self.groups,
                kept=kept,
                importance=importance,
            )
        return pruned

    @staticmethod
    def _placed(network: nn.Module, study: Study) -> nn.Module:
        """A network on the study's device, in its memory format."""
        layout = MEMORY_FORMATS[study.training.memory_format]
        return network.to(study.training.device).to(memory_format=layout)

    def _changed(
        self, network: nn.Module, data: DataParts, study: Study, kept: tuple[int, ...]
    ) -> Norms:
        """Return norms whose inputs pruning, recovery or refitting changed; empty if unpruned."""
        if kept == tuple(group.channels for group in self.groups):
            return {}
        settings = study.training
        batches = data.train.batches(
            2, memory_format=settings.memory_format, device=settings.device
        )
        return changed_norms(
            self._placed(copied(self.network), study),
            network,
            next(batches)[0],
            groups=self.groups,
            kept=kept,
            importance=self._importance(study.proxy.importance),
        )

    def _finetune(
        self,
        network: nn.Module,
        data: DataParts,
        settings: TrainingConfig,
        *,
        fidelity: Fidelity,
        seed: int,
        on_progress: Callable[[float], None] | None,
        go_on: Callable[[float], bool],
    ) -> TrainingTrace | None:
        if fidelity == "calibrate":
            return None
        proxy = self.study.proxy
        return finetune(
            network,
            data.train,
            settings=settings,
            epochs=proxy.short_epochs if fidelity == "short" else proxy.full_epochs,
            seed=seed,
            on_progress=on_progress,
            go_on=go_on,
        )


class _Halt:
    """Scores a network once at its rung, and decides whether the training continues.

    Attributes:
        score: score at the rung; None before it.
        stopped: whether the rung's judge decided to stop.
    """

    def __init__(self, rung: Rung | None, network: nn.Module, part: Part, study: Study) -> None:
        self._rung, self._network, self._part = rung, network, part
        self._settings, self._metric = study.training, study.search.metric
        self.score: Score | None = None
        self.stopped = False
        self._step: float | None = None  # share of the training that one step takes

    def __call__(self, share: float) -> bool:
        rung = self._rung
        self._step = self._step or share
        # A rung that falls on the last step is moved to the step before, or it would save nothing.
        due = share >= rung.share or share + 1.5 * self._step > 1 if rung else False
        if rung is not None and self.score is None and due and share < 1:
            self.score = _score(self._network, self._part, self._settings)
            self.stopped = not rung.judge(self.score.by(self._metric))
        return not self.stopped


def _score(network: nn.Module, part: Part, settings: TrainingConfig) -> Score:
    return evaluate(
        network,
        part,
        batch_size=max(FORWARD_BATCH, settings.batch_size),
        memory_format=settings.memory_format,
        device=settings.device,
    )
