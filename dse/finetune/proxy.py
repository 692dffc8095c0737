"""The proxy: prunes a candidate, fine-tunes it for a while and scores it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn

from dse.candidate import Candidate, with_recipe
from dse.config import DataConfig, ProxyConfig, Study, TrainingConfig
from dse.data import load_data
from dse.data.parts import DataParts, Part
from dse.digests import derived_seed
from dse.engines.plan import LeanPlan
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation
from dse.finetune.loop import FORWARD_BATCH, Score, TrainingTrace, evaluate, finetune
from dse.finetune.pretrain import starting_network
from dse.finetune.pruner import Pruner
from dse.finetune.recovery import recovery_of
from dse.finetune.rung import Halt, Rung
from dse.finetune.settled import Statistics
from dse.inputs import InputSpec
from dse.names import Fidelity
from dse.networks.devices import threads_set
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.importance import Importance
from dse.step.canonical import Loss
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from dse.tasks.task import Task, TaskRequest


class MakePlan(Protocol):
    """Plans a lean step. It is passed in, because plans follow from the memory model."""

    def __call__(
        self,
        network: nn.Module,
        example_input: Tensor,
        /,
        *,
        settings: StepSettings,
        batch_size: int,
        loss: Loss,
    ) -> LeanPlan | None:
        """Return the plan that all candidates of one recipe share; None for stock PyTorch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Proxy:
    """Scores the candidates of one study, in any order.

    Attributes:
        pruner: prunes the study's network; its study also determines the training, the fidelities
            and the seed.
        make_plan: plans a lean step, such as `dse.engines.engine.study_plan`.
    """

    pruner: Pruner
    make_plan: MakePlan

    @classmethod
    def of(
        cls,
        study: Study,
        *,
        data: DataParts,
        groups: tuple[ChannelGroup, ...],
        make_plan: MakePlan,
        on_progress: Callable[[float], None] | None = None,
    ) -> "Proxy":
        """Build the proxy of a study, whose network is pretrained if the study wants that.

        Args:
            study: the resolved study.
            data: its data.
            groups: channel groups of its network.
            make_plan: plans a lean step, such as `dse.engines.engine.study_plan`.
            on_progress: called with the share of the pretraining that is done, from 0 to 1.

        Raises:
            DseError: if the network, its weights or the source's images can't be loaded.
        """
        return cls(
            pruner=Pruner(
                study=study,
                network=starting_network(study, classes=data.classes, on_progress=on_progress),
                data=data,
                groups=groups,
                recovery=recovery_of(study, groups=groups, on_progress=on_progress),
            ),
            make_plan=make_plan,
        )

    @property
    def study(self) -> Study:
        """The study."""
        return self.pruner.study

    @property
    def importance(self) -> Importance:
        """Importance of all channels by the study's criterion, computed once."""
        return self.pruner.importance(self.study.proxy.importance)

    def under(self, study: Study) -> "Proxy":
        """Return a proxy with another recipe of the study, on the same data.

        Importance that was computed already is kept, even if it was computed with this recipe.
        """
        scores = self.pruner.known.get(study.proxy.importance)
        return replace(self, pruner=replace(self.pruner, study=study, scores=scores))

    def parts(self, data: DataConfig) -> DataParts:
        """Return the target's parts at an image size; each size is loaded once."""
        own = self.pruner.data
        if data.image_size == own.image_size:
            return own
        if data.image_size not in self._resized:
            self._resized[data.image_size] = load_data(
                data, seed=self.study.seed, task=TaskRequest.of(self.study)
            )
        return self._resized[data.image_size]

    @cached_property
    def _resized(self) -> dict[int, DataParts]:
        return {}

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
        study = with_recipe(self.study, candidate)
        settings, data, metric = study.training, self.parts(study.data), study.metric
        seed = derived_seed(self.study.seed, candidate.digest, fidelity, seed_index)
        started = time.perf_counter()
        with threads_set(settings.threads):
            statistics = Statistics(study=study, data=data, seed=seed)
            network, forward = self._prepared(
                candidate, statistics, seed_index=seed_index, trains=fidelity != "calibrate"
            )
            halt = Halt(
                rung,
                score=lambda: _score(network, data.selection, settings, data.task),
                metric=metric,
            )
            trace = self._finetune(
                network,
                data,
                settings,
                lengths=study.proxy,
                plan=self._plan(study, data, candidate.drop),
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
                    score = _score(network, data.selection, settings, data.task)
                    forward += len(data.selection)
                if read_validation:
                    validation = _score(network, data.validation, settings, data.task)
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
            correct=score.correct,
            validation_correct=None if validation is None else validation.correct,
        )
        network.eval()
        return network, evaluation

    def prepared(self, candidate: Candidate, *, seed_index: int = 0) -> nn.Module:
        """Return the network that `train` starts its full training from, in training mode.

        Args:
            candidate: the candidate.
            seed_index: index of the seed, from 0.

        Raises:
            TrainingError: if statistics can't be computed.
        """
        study = with_recipe(self.study, candidate)
        seed = derived_seed(self.study.seed, candidate.digest, "full", seed_index)
        statistics = Statistics(study=study, data=self.parts(study.data), seed=seed)
        with threads_set(study.training.threads):
            network, _ = self._prepared(candidate, statistics, seed_index=seed_index, trains=True)
        return network

    def _prepared(
        self, candidate: Candidate, statistics: Statistics, *, seed_index: int, trains: bool
    ) -> tuple[nn.Module, int]:
        """Prune and recover a network and settle its statistics; count the images of the latter."""
        study, data = statistics.study, statistics.data
        kept, settings = candidate.kept(self.pruner.groups), study.training
        drop = candidate.drop
        network = self.pruner.pruned(kept, study, seed_index=seed_index, drop=drop)
        example = data.input_spec.example(2, device=settings.device)
        apply_scheme(network, example, settings.scheme)
        forward = statistics.before(
            network,
            changed=lambda: self.pruner.changed(network, data, study, kept=kept, drop=drop),
            trains=trains,
        )
        return network, forward

    def _finetune(
        self,
        network: nn.Module,
        data: DataParts,
        settings: TrainingConfig,
        *,
        lengths: ProxyConfig,
        plan: LeanPlan | None,
        fidelity: Fidelity,
        seed: int,
        on_progress: Callable[[float], None] | None,
        go_on: Callable[[float], bool],
    ) -> TrainingTrace | None:
        if fidelity == "calibrate":
            return None
        return finetune(
            network,
            data.train,
            settings=settings,
            epochs=lengths.short_epochs if fidelity == "short" else lengths.full_epochs,
            seed=seed,
            on_progress=on_progress,
            go_on=go_on,
            plan=plan,
            task=data.task,
        )

    def plan(self, candidate: Candidate) -> LeanPlan | None:
        """Return the plan of a candidate's lean step; None for stock PyTorch."""
        study = with_recipe(self.study, candidate)
        return self._plan(study, self.parts(study.data), candidate.drop)

    def _plan(self, study: Study, data: DataParts, drop: str | None) -> LeanPlan | None:
        """Return the plan of a recipe's lean step; None for stock PyTorch. Each is made once."""
        step, inputs = StepSettings.of(study.training), data.input_spec
        key = (step, inputs, drop)
        if key not in self._plans:
            self._plans[key] = self.make_plan(
                self.pruner.shortener.shortened(drop),
                inputs.example(2),
                settings=step,
                batch_size=self.study.training.batch_size,
                loss=data.task.loss,
            )
        return self._plans[key]

    @cached_property
    def _plans(self) -> dict[tuple[StepSettings, InputSpec, str | None], LeanPlan | None]:
        return {}


def _score(network: nn.Module, part: Part, settings: TrainingConfig, task: Task) -> Score:
    return evaluate(
        network,
        part,
        batch_size=max(FORWARD_BATCH, settings.batch_size),
        memory_format=settings.memory_format,
        device=settings.device,
        task=task,
    )
