"""Finds the image files below a folder, and the reasons why other files are passed over."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from dse.data.quiet import quiet
from dse.data.summary import PassedOver
from dse.errors import DataError

# A file with such a suffix counts as an image. If it can't be read, it is reported as broken.
_USUAL = "apng avif bmp gif jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp"
SUFFIXES = frozenset(f".{one}" for one in _USUAL.split())
# Pillow recognises these formats but can't decode them without external programs.
_NO_PIXELS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# Camera raws are TIFF files, of which Pillow would return the embedded thumbnail.
_RAWS = "3fr arw cr2 dng erf kdc nef nrw orf pef raf rw2 sr2 srw"
_RAW = frozenset(f".{one}" for one in _RAWS.split())
_LEFT_BY_PROGRAMS = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
_FOLDERS_LEFT_BY_PROGRAMS = frozenset(
    {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
)
_EXAMPLES = 3


@dataclass
class Passed:
    """Collects the files that are passed over below a root, by reason.

    Attributes:
        root: folder that the examples are relative to.
    """

    root: Path
    _found: dict[str, list[str]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Add a file."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        examples = self._found.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            inside = path.is_relative_to(self.root)
            examples.append(str(path.relative_to(self.root) if inside else path))

    def summaries(self) -> tuple[PassedOver, ...]:
        """Return the files that were passed over, the most frequent reason first."""
        order = sorted(self._counts, key=lambda reason: (-self._counts[reason], reason))
        return tuple(
            PassedOver(reason=one, files=self._counts[one], examples=tuple(self._found[one]))
            for one in order
        )


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats that Pillow decodes without external programs."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NO_PIXELS)


def reason_against(path: Path) -> str | None:
    """Return why a file doesn't count as an image; None if it does.

    A usual suffix is trusted, so that a damaged image isn't dropped silently. Every other file is
    judged by its first bytes.
    """
    name, suffix = path.name, path.suffix.lower()
    reason = None
    if name.startswith("."):
        reason = "hidden"
    elif name.lower() in _LEFT_BY_PROGRAMS:
        reason = "written by a file manager"
    elif not path.is_file():
        reason = "a link that leads nowhere" if path.is_symlink() else "not a regular file"
    elif suffix in _RAW:
        reason = f"camera raw ({suffix}), which must be converted first"
    elif suffix not in SUFFIXES and not _is_image(path):
        reason = f"not an image that Pillow reads ({suffix or 'no suffix'})"
    return reason


def _is_image(path: Path) -> bool:
    try:
        with quiet, Image.open(path, formats=readable_formats()):
            return True
    except Exception:  # noqa: BLE001  # decoders may raise anything on other formats
        return False


def subfolders(folder: Path) -> list[Path]:
    """List the visible folders in a folder by name, without those that other programs create.

    Raises:
        DataError: if the folder can't be listed.
    """
    return [one for one in listed(folder) if one.is_dir() and not is_foreign(one)]


def is_foreign(folder: Path) -> bool:
    """Return whether a folder is hidden, or was created by another program."""
    return folder.name.startswith(".") or folder.name.lower() in _FOLDERS_LEFT_BY_PROGRAMS


def listed(folder: Path) -> list[Path]:
    """List the entries of a folder by name.

    Raises:
        DataError: if the folder can't be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unlisted(error, folder) from error


def walked(folder: Path) -> Iterator[Path]:
    """Yield the files at any depth below a folder, following links.

    Raises:
        DataError: if a folder can't be listed, or a link leads to the folder that it lies in or to
            one above it; its images would count many times, and with wrong labels.
    """

    def fail(error: OSError) -> None:
        raise _unlisted(error, folder)

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        folders[:] = sorted(name for name in folders if not is_foreign(Path(parent, name)))
        above = Path(parent).resolve()
        for name in folders:
            link = Path(parent, name)
            if link.is_symlink() and above.is_relative_to(link.resolve()):
                raise DataError(
                    f"data.root: {link} is a link back to {link.resolve()}, which holds it: "
                    "remove the link"
                )
        yield from (Path(parent, name) for name in sorted(names))


def holds_images(folder: Path) -> bool:
    """Return whether there is an image at any depth below a folder."""
    return any(reason_against(path) is None for path in walked(folder))


def has_images(folder: Path) -> bool:
    """Return whether there is an image directly in a folder."""
    return any(reason_against(path) is None for path in listed(folder) if not path.is_dir())


def images_below(folder: Path, passed: Passed) -> list[Path]:
    """List the images at any depth below a folder, in the same order on every machine.

    Args:
        folder: folder of one label.
        passed: collects every other file.
    """
    found = []
    for path in walked(folder):
        reason = reason_against(path)
        if reason is None:
            found.append(path)
        else:
            passed.add(reason, path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _unlisted(error: OSError, folder: Path) -> DataError:
    return DataError(f"data.root: {error.filename or folder} can't be listed: {error.strerror}")
