"""Recovery: trains a pruned network on source images before it is transferred to the target."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from torch import nn

from dse.caches import cache_folder
from dse.config import DataConfig, Study, TrainingConfig
from dse.config.recovery import RecoveryConfig
from dse.data import DataParts, Part, load_data
from dse.data.joined import fingerprint, joined
from dse.digests import canonical_json, derived_seed, parts_digest, text_digest
from dse.errors import RunError, TrainingError
from dse.finetune.cached_weights import load_cached, write_cached
from dse.finetune.imitation import imitate
from dse.finetune.loop import finetune, torch_seeded
from dse.finetune.placed import placed, taken_back
from dse.finetune.pretrain import pretrained_source
from dse.finetune.statistics import recalibrate_batch_norm
from dse.networks.build import build_network
from dse.networks.copies import copied
from dse.networks.forward import output_layers
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.depth import Block, groups_without, without_blocks
from dse.pruning.importance import Importance
from dse.pruning.surgery import prune
from dse.step.schemes import apply_scheme

# Increase this when this module or the loop trains differently, so that cached files expire.
RECIPE_VERSION = 1

# Share of source images in each of the other two parts, which the loader requires.
_LEFT_OUT = 0.05

_BATCHES = 16  # used to recompute batch-norm statistics before and after the training

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """Recovers pruned networks of one study, and caches the recovered weights in files.

    Attributes:
        study: a study with `[recovery]`.
        network: the unpruned network as it was trained on the source, output layer included.
        data: the source's parts.
        groups: channel groups of the network.
        cache: folder of the files; `cache_folder()` if None.
    """

    study: Study
    network: nn.Module
    data: DataParts
    groups: tuple[ChannelGroup, ...]
    cache: Path | None = None

    def recover(
        self,
        pruned: nn.Module,
        *,
        kept: Sequence[int],
        importance: Importance | None,
        seed_index: int = 0,
        blocks: Sequence[Block] = (),
        on_message: Callable[[str], None] = _LOG.info,
    ) -> None:
        """Load recovered weights into a pruned network, except for its output layer.

        Args:
            pruned: the target's pruned network; changed in place.
            kept: channels that each group keeps, (groups,).
            importance: the channel importance by which they were chosen; None if all are kept.
            seed_index: index of the seed; each index has a training of its own.
            blocks: blocks that the pruned network lacks.
            on_message: called with one line about what was trained.

        Raises:
            TrainingError: if the training can't start, or diverged.
            RunError: if the file can't be written.
        """
        source = prune(
            without_blocks(self.network, blocks) if blocks else self.network,
            groups=groups_without(self.groups, blocks),
            kept=kept,
            importance=importance,
        )
        content = self._content(source, seed_index)
        digest = text_digest(content)
        path = (self.cache or cache_folder()) / f"recovered-{digest}.safetensors"
        if not load_cached(source, path):
            self._train(source, seed=derived_seed(digest, "training"))
            write_cached(source, path, {"digest": digest, "content": content})
            on_message(f"recovered {sum(kept)} channels on {len(self._part)} source images")
        heads = output_layers(source, self.data.input_spec.example(1))
        tensors = {
            name: tensor
            for name, tensor in source.state_dict().items()
            if name.rpartition(".")[0] not in heads
        }
        missing, _ = pruned.load_state_dict(tensors, strict=False)
        if any(name.rpartition(".")[0] not in heads for name in missing):
            raise RunError(f"the source's network lacks {', '.join(missing)} of the target's")

    @property
    def _settings(self) -> TrainingConfig:
        recipe, training = _recipe(self.study), self.study.training
        return TrainingConfig(
            scheme="full",
            batch_size=recipe.batch_size,
            optimizer="adam" if recipe.aim == "imitate" else "sgd-momentum",
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            memory_format=training.memory_format,
            threads=training.threads,
            device=training.device,
        )

    @property
    def _part(self) -> Part:
        # Nothing is selected on the source's selection part, so it can be trained on as well.
        return joined(self.data.train, self.data.selection)

    def _train(self, network: nn.Module, *, seed: int) -> None:
        settings, part, recipe = self._settings, self._part, _recipe(self.study)
        placed(network, settings)
        example = self.data.input_spec.example(2, device=settings.device)
        try:
            if recipe.aim == "imitate":
                whole = placed(copied(self.network), settings)
                imitate(whole, network, part, settings=settings, epochs=recipe.epochs, seed=seed)
            else:
                apply_scheme(network, example, "full")
                self._recalibrate(network, seed)
                finetune(network, part, settings=settings, epochs=recipe.epochs, seed=seed)
            self._recalibrate(network, seed)
        except TrainingError as error:
            raise TrainingError(f"recovery: {error}") from error
        taken_back(network)

    def _recalibrate(self, network: nn.Module, seed: int) -> None:
        settings, part = self._settings, self._part
        batches = part.batches(
            min(settings.batch_size, len(part)),
            seed=derived_seed(seed, "statistics"),
            drop_last=True,
            memory_format=settings.memory_format,
            device=settings.device,
        )
        recalibrate_batch_norm(network, islice(batches, _BATCHES))

    def _content(self, source: nn.Module, seed_index: int) -> str:
        """Return everything that recovered weights depend on, as canonical JSON."""
        content = {
            "recipe_version": RECIPE_VERSION,
            "recipe": _recipe(self.study).model_dump(mode="json", exclude={"data", "root"}),
            "taught by": _digest(self.network) if _recipe(self.study).aim == "imitate" else None,
            "settings": self._settings.model_dump(mode="json", exclude={"threads", "engine"}),
            "network": [repr(source), _digest(source)],
            "data": fingerprint(self._part),
            "normalised": [self.data.mean, self.data.std, self.data.image_size],
            "seed": [self.study.seed, seed_index],
            "versions": [version("torch"), version("torchvision")],
        }
        return canonical_json(content)


def recovery_of(
    study: Study,
    *,
    groups: tuple[ChannelGroup, ...],
    cache: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Recovery | None:
    """Return the recovery of a study's pruned networks; None if the study has no recovery.

    Args:
        study: the resolved study.
        groups: channel groups of its network.
        cache: see `Recovery`.
        on_progress: called with the share of the pretraining that is done, from 0 to 1.

    Raises:
        DseError: if the source's network or images can't be loaded.
    """
    if study.recovery is None:
        return None
    if study.recovery.data is None:
        network, data = pretrained_source(study, cache=cache, on_progress=on_progress)
    else:
        data = load_data(_data_config(study, study.recovery), seed=study.seed)
        with torch_seeded(derived_seed(study.seed, "recovery")):
            network = build_network(
                study.network.name,
                classes=data.classes,
                weights=study.network.weights,
                options=study.network.options,
                search_path=study.source_dir,
                outputs=study.task.outputs,
            )
    return Recovery(study=study, network=network, data=data, groups=groups, cache=cache)


def _digest(network: nn.Module) -> str:
    """Return a digest of a network's tensors and their names.

    It seeds the training. `tensors_digest` in its place would change every recovered network.
    """

    def parts() -> Iterator[bytes]:
        for name, tensor in network.state_dict().items():
            yield name.encode()
            yield tensor.contiguous().cpu().numpy().tobytes()

    return parts_digest(parts())


def _recipe(study: Study) -> RecoveryConfig:
    if study.recovery is None:
        raise RunError(f"study {study.name!r} has no [recovery]: add the table")
    return study.recovery


def _data_config(study: Study, recipe: RecoveryConfig) -> DataConfig:
    """Return the configuration of the source's data, preprocessed like the target's."""
    own = study.data
    return DataConfig(
        name=recipe.data or "",
        root=recipe.root,
        labels=recipe.labels,
        image_size=own.image_size,
        input=own.input,
        validation_share=_LEFT_OUT,
        selection_share=_LEFT_OUT,
        augment=recipe.augment,
        mean=own.mean,
        std=own.std,
        in_memory_limit=own.in_memory_limit,
    )
