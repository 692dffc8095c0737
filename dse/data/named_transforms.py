"""The transforms that a study names, tried on its samples."""

import torch

from dse.config import DataConfig, TaskConfig
from dse.data.opening import form_of
from dse.data.transforms import Transforms
from dse.errors import DataError
from dse.inputs import InputSpec

_PLAIN = TaskConfig()


def transforms_of(
    config: DataConfig,
    inputs: InputSpec,
    *,
    task: TaskConfig = _PLAIN,
    dtype: torch.dtype = torch.uint8,
) -> Transforms | None:
    """Return the transforms that a study names, each of which was tried; None if it names none.

    Args:
        config: the study's `[data]`.
        inputs: shape of its samples.
        task: its `[task]`; masks are moved along with their images.
        dtype: type of the samples as they are held.

    Raises:
        DataError: if there is no such transform or option, or one changes shape or type.
    """
    if config.transforms is None:
        return None
    if inputs.kind != "float32" or inputs.names:
        raise DataError(
            f"data.transforms are for images, and the samples are {inputs.text}: take them out"
        )
    ignore = task.ignore if form_of(task) == "mask" else None
    try:
        return Transforms(config.transforms, shape=inputs.shape, ignore=ignore, dtype=dtype)
    except ValueError as error:
        raise DataError(f"data.transforms: {error}") from error
