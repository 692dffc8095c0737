"""What a name on the command line stands for: a network alone, or a study with its settings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dse.config import SpaceConfig, Study, TaskConfig, load_study
from dse.data import DataSummary, check_data, inputs_of
from dse.errors import ConfigError
from dse.inputs import InputSpec
from dse.shipped import shipped
from dse.step.settings import StepSettings
from dse.textfiles import exists


@dataclass(frozen=True, kw_only=True)
class Target:
    """A network and the step to train it with; the defaults are those of a network alone.

    Attributes:
        network: Name of the network, as `build_network` takes it.
        options: Options of the network's factory.
        search_path: Folder in which the factory is also looked for.
        classes: Number of outputs.
        task: What these stand for, with the loss.
        batch_size: Images per step.
        image_size: Height and width of the images in pixels.
        settings: Settings of the step.
        space: The study's search space; None for a network alone.
        device: Device that the study trains on.
        threads: CPU threads that the study trains with; 0 for all cores.
        data: The study's data as far as they are known without decoding; None for a network alone,
            and if the number of outputs is given.
        inputs: Shape and type of one sample of the study's data; None for a network alone.
    """

    network: str
    options: dict[str, Any] = field(default_factory=dict)
    search_path: Path | None = None
    classes: int = 1000
    task: TaskConfig = field(default_factory=TaskConfig)
    batch_size: int = 8
    image_size: int = 224
    settings: StepSettings = field(default_factory=StepSettings)
    space: SpaceConfig | None = None
    device: str = "cpu"
    threads: int = 0
    data: DataSummary | None = None
    inputs: InputSpec | None = None


def read_target(name: str, *, classes: int | None = None, changes: Sequence[str] = ()) -> Target:
    """Read a network's name, a study file or the name of a shipped study.

    Args:
        name: What to read.
        classes: Number of outputs of the network; the study's, or 1000, if None.
        changes: Study keys to change, as in ``data.root=images``.

    Raises:
        ConfigError: If the name is none of these, the study is invalid, ``changes`` are given for
            a network alone, or the study's data don't name their labels and ``classes`` is None.
    """
    if ":" in name and not exists(name):
        if changes:
            raise ConfigError(
                f"--set {changes[0]} changes a key of a study, and {name} is not a study"
            )
        return Target(network=name, classes=classes or 1000)
    if not name.endswith(".toml") and not exists(name):
        _check_shipped(name)
    study = load_study(name, overrides=changes)
    data = None if classes else check_data(study.data, task=study.task)
    return Target(
        network=study.network.name,
        options=dict(study.network.options),
        search_path=study.source_dir,
        classes=classes or _classes(study, data),
        task=study.task,
        batch_size=study.training.batch_size,
        image_size=study.data.image_size,
        settings=StepSettings.of(study.training),
        space=study.space,
        device=study.training.device,
        threads=study.training.threads,
        data=data,
        inputs=inputs_of(study.data),
    )


def _check_shipped(name: str) -> None:
    studies = shipped("studies")
    if name not in studies:
        raise ConfigError(
            f"{name!r} is neither a network nor a study: write torchvision:{name}, "
            f"timm:{name}, hf:FOLDER or package.module:factory for a network, or name a study "
            f"file or one of {', '.join(studies)}"
        )


def _classes(study: Study, data: DataSummary | None) -> int:
    if data is None or data.classes is None:
        raise ConfigError(
            f"the labels of data {study.data.name!r} are only known once it is read: give "
            "--classes N, or name them in data.labels"
        )
    return data.classes
