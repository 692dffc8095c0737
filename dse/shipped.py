"""The studies, search spaces and the starter study that come with the package."""

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).parent

Kind = Literal["studies", "search_spaces"]


def shipped(kind: Kind) -> dict[str, Path]:
    """Find the shipped files of a kind.

    Returns:
        Path by name (the file's name without .toml), sorted by name. An installed package carries
        them inside; a checkout has them beside the package.
    """
    installed = _PACKAGE / "shipped_files" / kind
    folder = installed if installed.is_dir() else _PACKAGE.parent / kind
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def starter_study() -> str:
    """Return the text of a study with every key explained, for a user to change."""
    return (_PACKAGE / "starter_study.toml").read_text(encoding="utf-8")
