"""The former home of `apply_scheme`, kept for scripts: import it from `dse.step.schemes`."""

import warnings

from dse.step.schemes import apply_scheme

__all__ = ["apply_scheme"]

warnings.warn(
    "dse.finetune.schemes has moved: import apply_scheme from dse.step.schemes",
    DeprecationWarning,
    stacklevel=2,
)
