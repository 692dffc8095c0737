"""The network that a study starts from, and its pretraining."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import Count, Labels, Rate, is_network_name
from dse.names import NETWORKS, either
from dse.weight_files import is_weights_file


class PretrainConfig(Frozen):
    """Pretraining of the network on source labels of the same data, before it is transferred.

    Attributes:
        labels: the source labels; all labels that aren't target labels if None.
        epochs: length of the pretraining.
        learning_rate: peak learning rate.
        batch_size: images per step.
    """

    labels: Labels | None = None
    epochs: Count = 12
    learning_rate: Rate = 0.05
    batch_size: Count = 32


class NetworkConfig(Frozen):
    """The network that a study starts from.

    Attributes:
        name: one of `dse.names.NETWORKS`, such as "timm:resnet18" or "package.module:factory".
        weights: "none", "pretrain", "default" for the library's own, the name of torchvision
            weights, or a file of weights (.safetensors, or .pth, .pt, .bin, .ckpt, .tar as
            torch.save writes them).
        options: keyword arguments of the network's constructor.
        pretrain: settings of the pretraining if weights is "pretrain"; else None.
    """

    name: str
    weights: Annotated[str, Field(min_length=1)] = "none"
    options: dict[str, Any] = Field(default_factory=dict)
    pretrain: PretrainConfig | None = Field(
        default_factory=lambda seen: PretrainConfig() if seen.get("weights") == "pretrain" else None
    )

    @property
    def weights_name(self) -> str:
        """The weights without the folders of a file, which are meaningless on other machines."""
        path = Path(self.weights)
        return path.name if is_weights_file(self.weights) else self.weights

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(options, allow_nan=False, default=str)
        except ValueError:
            raise ValueError("holds a number that isn't finite: take it out") from None
        return options

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not is_network_name(name):
            raise ValueError(
                f"is no network: write {either(NETWORKS, quoted=True)}, as in "
                '"torchvision:mobilenet_v2"'
            )
        return name

    @model_validator(mode="after")
    def _check_pretrain(self) -> "NetworkConfig":
        if self.pretrain is not None and self.weights != "pretrain":
            raise KeyedError(
                "pretrain",
                'is only read with network.weights = "pretrain": '
                f"take it out, or change the weights ({self.weights!r})",
            )
        return self
