"""The style of plots: sizes, colours, fonts and file formats.

Widths are those of a two-column paper. Colours are from Okabe and Ito ("Color Universal Design",
2008) and can be distinguished with common kinds of colour blindness; markers, lines and hatches
differ as well, so that a print in grey is readable.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import digits
from typing import Literal

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from dse.plain_text import one_line

Width = Literal["column", "page"]
PictureFormat = Literal["pdf", "svg", "png"]

WIDTHS: tuple[Width, ...] = ("column", "page")
REPORT_FORMATS: tuple[PictureFormat, ...] = ("pdf", "png")
PAPER_FORMATS: tuple[PictureFormat, ...] = ("pdf", "svg", "png")
# Dates would make each file differ from the one before.
_METADATA: dict[PictureFormat, dict[str, None]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {},
}

INCHES: dict[Width, float] = {"column": 3.3, "page": 7.0}
PNG_DOTS_PER_INCH = 300
POINTS_PER_INCH = 72

TEXT_POINTS = 7.0
SMALL_POINTS = 6.0
CAPTION_POINTS = 5.6
LINE_SPACING = 1.25
_TAILS = (2 / 3, 1.0, 1 / 3, 0.0)  # shares of a shortened name taken from its end, in this order

BLACK = "#000000"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#7F7F7F"

STYLE_FILE = Path(__file__).with_name("paper.mplstyle")
"""The settings of matplotlib; `plt.style.use("dse.report.paper")` applies them, too."""


@dataclass(frozen=True, kw_only=True)
class CategoryStyle:
    """How one category of memory is filled."""

    label: str
    colour: str
    hatch: str


# From the bottom of the stack to the top. Neighbours differ in lightness and hatch.
CATEGORY_STYLES: dict[str, CategoryStyle] = {
    "weights": CategoryStyle(label="weights", colour=BLUE, hatch=""),
    "buffers": CategoryStyle(label="buffers", colour="#FFFFFF", hatch="......"),
    "gradients": CategoryStyle(label="gradients", colour=VERMILLION, hatch="//////"),
    "optimizer_state": CategoryStyle(label="optimizer state", colour=YELLOW, hatch=""),
    "input": CategoryStyle(label="input", colour=BLACK, hatch=""),
    "saved": CategoryStyle(label="saved for backward", colour=SKY, hatch=""),
    "temporary": CategoryStyle(label="temporary", colour=GREEN, hatch="\\\\\\\\"),
    "optimizer_temporary": CategoryStyle(
        label="optimizer temporary", colour=PURPLE, hatch="xxxxxx"
    ),
    "workspace": CategoryStyle(label="kernel workspace", colour="#FFFFFF", hatch="xxxxxx"),
}
# Style of categories that a later release adds.
UNKNOWN_CATEGORY = CategoryStyle(label="", colour="#BBBBBB", hatch="||||")


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and write figures in this style inside the `with` block."""
    with mpl.style.context(STYLE_FILE):
        yield


def new_figure(width: Width, *, height_inches: float) -> Figure:
    """Return an empty figure with automatic layout, independent of pyplot and any display."""
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    # Use the resolution of the file, since the width of letters depends on it.
    return Figure(figsize=(INCHES[width], height_inches), layout=layout, dpi=PNG_DOTS_PER_INCH)


def add_caption(figure: Figure, parts: Sequence[str], *, share: float = 0.95) -> None:
    """Write small lines above the axes that explain how the numbers came about.

    The figure grows by their height, so that the axes keep their size.

    Args:
        figure: the figure.
        parts: parts of the caption; lines break between parts where possible.
        share: share of the figure's width that a line may take; less if the figure may be shown
            at a low resolution, at which letters are wider.
    """
    room = figure.get_figwidth() * POINTS_PER_INCH * share
    lines = broken(parts, between=" · ", points=room)
    lines_inches = len(lines) * CAPTION_POINTS * LINE_SPACING / POINTS_PER_INCH
    figure.set_figheight(figure.get_figheight() + lines_inches)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=CAPTION_POINTS, color="#404040")


def broken(parts: Sequence[str], *, between: str, points: float) -> list[str]:
    """Break small text into lines, between its parts where possible.

    Args:
        parts: parts of the text; the middle of a part that is wider than a line is removed.
        between: separator of parts on one line.
        points: width of a line in points.
    """
    lines = [""]
    for part in parts:
        fitted = shorten(drawable(part), points=points, size=CAPTION_POINTS)
        longer = f"{lines[-1]}{between}{fitted}" if lines[-1] else fitted
        if text_points(longer, size=CAPTION_POINTS) <= points:
            lines[-1] = longer
        else:
            lines.append(fitted)
    return lines


def drawable(text: str) -> str:
    """Return the text on one line, with a box for each letter that the font lacks."""
    known = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    return "".join(
        letter if ord(letter) in known else "\N{WHITE SQUARE}" for letter in one_line(text)
    )


def save(
    figure: Figure, stem: Path, *, formats: Sequence[PictureFormat] = REPORT_FORMATS
) -> tuple[Path, ...]:
    """Write a figure; the same figure gives the same bytes.

    Args:
        figure: the figure.
        stem: path without suffix.
        formats: formats to write.

    Returns:
        Paths in the order of the formats.
    """
    paths = []
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # one layout for all formats
    for suffix in formats:
        path = stem.with_name(f"{stem.name}.{suffix}")
        figure.savefig(path, dpi=PNG_DOTS_PER_INCH, metadata=_METADATA[suffix])
        paths.append(path)
    return tuple(paths)


def text_points(text: str, *, size: float, weight: str = "normal") -> float:
    """Return the width of one line of text in points."""
    # Literally, since a dollar sign in a name doesn't start mathematics.
    width, _, _ = text_to_path.get_text_width_height_descent(
        text, FontProperties(size=size, weight=weight), ismath=False
    )
    return float(width)


def shorten_names(names: Sequence[str], *, points: float, size: float) -> list[str]:
    """Shorten dotted names that are too wide; names that differ still differ where width allows.

    An ellipsis stands for whatever is left out, so that no short name reads like another module's.
    `features.denseblock1.denselayer2.conv1` becomes `…1.denselayer2.conv1`: words are left out from
    the left, numbers stay. If that is too wide or not distinct, characters in the middle, at the
    start or at the end are left out.

    Args:
        names: names, for example of modules.
        points: available width for each name in points.
        size: font size in points.
    """
    found: dict[str, str] = {}
    ways: list[Callable[..., str]] = [_unchanged, _without_words]
    ways += [partial(shorten, tail=tail) for tail in _TAILS]
    for way in ways:
        rest = [name for name in dict.fromkeys(names) if name not in found]
        short = {name: way(name, points=points, size=size) for name in rest}
        times = Counter([*short.values(), *found.values()])
        found |= {
            name: text
            for name, text in short.items()
            if times[text] == 1 and text_points(text, size=size) <= points
        }
    return [found.get(name) or shorten(name, points=points, size=size) for name in names]


def _unchanged(name: str, *, points: float, size: float) -> str:
    del points, size
    return name


def _without_words(name: str, *, points: float, size: float) -> str:
    """Replace words by an ellipsis from the left until the name fits, the last word in part."""
    *left, last = name.split(".")
    front = ""
    for place, part in enumerate(left):
        words = part.rstrip(digits)
        left[place] = f"…{part[len(words) :]}" if words else part
        front = re.sub(r"(…\.)+(?=…)", "", f"{'.'.join(left)}.")
        if text_points(front + last, size=size) <= points:
            return front + last
    room = points - text_points(front, size=size)
    return front + shorten(last, points=room, size=size, tail=1 / 2)


def shorten(text: str, *, points: float, size: float, tail: float = 2 / 3) -> str:
    """Remove the middle of a text that is too wide, because both ends distinguish names.

    Args:
        text: one line.
        points: available width in points.
        size: font size in points.
        tail: share of the remaining characters that are taken from the end, from 0 to 1.
    """
    if text_points(text, size=size) <= points:
        return text
    for kept in range(len(text) - 1, 2, -1):
        last = round(kept * tail)
        short = f"{text[: kept - last]}…{text[len(text) - last :]}"
        if text_points(short, size=size) <= points:
            return short
    return "…"
