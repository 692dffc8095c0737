"""The proxy: prune, recalibrate, fine-tune for a while, score."""

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dse.candidate import Candidate
from dse.config import Study
from dse.data import DataParts
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation, Fidelity
from dse.finetune.loop import (
    LoopSettings,
    Progress,
    evaluate,
    finetune,
    recalibrate_batch_norm,
)
from dse.finetune.schemes import apply_scheme
from dse.networks import example_input
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.importance import Importance
from dse.pruning.surgery import prune


class Proxy:
    """Evaluates candidates of one study, each independently of all others."""

    def __init__(
        self,
        study: Study,
        *,
        network: nn.Module,
        data: DataParts,
        groups: Sequence[ChannelGroup],
        importance: Importance,
    ) -> None:
        """Keep what every evaluation needs.

        Args:
            study: settings and seed.
            network: the unpruned, pretrained network with the study's outputs.
            data: to train, select and validate on.
            groups: the network's channel groups.
            importance: scores by which channels stay.
        """
        self._study = study
        self._network = network
        self._data = data
        self._groups = groups
        self._importance = importance
        training = study.training
        self.settings = LoopSettings(
            optimizer=training.optimizer,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            nesterov=training.nesterov,
            batch_size=training.batch_size,
            memory_format=training.memory_format,
            device=training.device,
        )

    def evaluate(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        on_progress: Progress | None = None,
    ) -> Evaluation:
        """Score a candidate; the result depends on the arguments and the study alone.

        Args:
            candidate: what to evaluate.
            fidelity: how long to train.
            seed_index: which of the seeds.
            read_validation: whether the validation part is read too.
            on_progress: told the share of training done.

        Raises:
            TrainingError: the training diverged.
            CandidateError: the candidate doesn't fit the network.
        """
        return self.train(
            candidate,
            fidelity=fidelity,
            seed_index=seed_index,
            read_validation=read_validation,
            on_progress=on_progress,
        )[1]

    def train(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        on_progress: Progress | None = None,
    ) -> tuple[nn.Module, Evaluation]:
        """As ``evaluate``, and return the network as well, in eval mode."""
        settings, seed = self._candidate_settings(candidate), self.seed(candidate, seed_index)
        start = time.perf_counter()
        with _threads(self._study.training.threads):
            network = self._pruned(candidate, settings)
            images_forward = recalibrate_batch_norm(network, self._calibration(settings, seed))
            step_seconds, images_trained = 0.0, 0
            epochs = self._epochs(fidelity)
            if epochs:
                trace = finetune(
                    network,
                    self._data.train,
                    settings=settings,
                    epochs=epochs,
                    seed=seed,
                    on_progress=on_progress,
                )
                step_seconds, images_trained = trace.step_seconds, trace.images
                images_forward += recalibrate_batch_norm(network, self._calibration(settings, seed))
            score = evaluate(network, self._data.selection, settings=settings)
            images_forward += score.images
            validation = None
            if read_validation:
                found = evaluate(network, self._data.validation, settings=settings)
                validation = found.accuracy
                images_forward += found.images
        return network.eval(), Evaluation(
            candidate_digest=candidate.digest,
            fidelity=fidelity,
            seed=seed,
            accuracy=score.accuracy,
            validation_accuracy=validation,
            loss=score.loss,
            wall_seconds=time.perf_counter() - start,
            step_seconds=step_seconds,
            images_trained=images_trained,
            images_forward=images_forward,
        )

    def seed(self, candidate: Candidate, seed_index: int) -> int:
        """A seed that depends on the study's seed, the candidate and the index alone."""
        text = f"{self._study.seed}:{candidate.digest}:{seed_index}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    def _epochs(self, fidelity: Fidelity) -> float:
        proxy = self._study.proxy
        return {"calibrate": 0.0, "short": proxy.short_epochs, "full": proxy.full_epochs}[fidelity]

    def _candidate_settings(self, candidate: Candidate) -> LoopSettings:
        if candidate.image_size not in (None, self._data.image_size):
            raise TrainingError(
                f"the candidate's images are {candidate.image_size} pixels wide, the study's "
                f"{self._data.image_size}; evaluate it in a study of its own image size"
            )
        changes = {
            "batch_size": candidate.batch_size,
            "optimizer": candidate.optimizer,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return LoopSettings(**{**vars(self.settings), **given})

    def _pruned(self, candidate: Candidate, settings: LoopSettings) -> nn.Module:
        network = prune(
            self._network,
            groups=self._groups,
            kept=candidate.kept(self._groups),
            importance=self._importance,
        )
        formats = {
            "contiguous": torch.contiguous_format,
            "channels-last": torch.channels_last,
        }
        network = network.to(device=settings.device, memory_format=formats[settings.memory_format])
        example = example_input(2, self._data.image_size, device=settings.device)
        apply_scheme(network, example, candidate.scheme or self._study.training.scheme)
        return network

    def _calibration(self, settings: LoopSettings, seed: int) -> Iterator[Tensor]:
        batches = self._data.train.batches(
            settings.batch_size,
            seed=seed,
            drop_last=True,
            memory_format=settings.memory_format,
            device=settings.device,
        )
        limit = self._study.proxy.calibrate_batches
        return (images for images, _ in itertools.islice(batches, limit))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use so many CPU threads, 0 leaving torch's own choice; restored afterwards."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
