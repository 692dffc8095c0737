"""A legend below the axes: the meaning of markers, and a key of letters."""

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerBase
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from dse.report.style import POINTS_PER_INCH, SMALL_POINTS, drawable, shorten

_MOST_COLUMNS = 6
_MOST_IN_ONE_COLUMN = 4
_MOST_BELOW_AXES = 3
_GAP_POINTS = 3.0  # between the label of an axis and the legend below it
_HANDLE_POINTS = 30.0  # width of a legend handle including its padding


class _Letter(Line2D):
    """A legend handle that is drawn as a letter of the key."""

    def __init__(self, letter: str) -> None:
        super().__init__([], [])
        self.letter = letter


class _LetterHandler(HandlerBase):
    def create_artists(self, *args: Any) -> Sequence[Artist]:
        _legend, orig_handle, x, y, width, height, _size, transform = args
        return [
            Text(
                width / 2 - x,
                height / 2 - y,
                orig_handle.letter,
                fontsize=SMALL_POINTS,
                ha="center",
                va="center",
                transform=transform,
            )
        ]


def letters(count: int) -> list[str]:
    """Return `a` to `z`, then `aa`, `ab` and so on."""
    named = []
    for number in range(count):
        name, rest = "", number + 1
        while rest:
            rest, place = divmod(rest - 1, 26)
            name = chr(ord("a") + place) + name
        named.append(name)
    return named


def add_axes_legend(axes: Axes, key: Sequence[tuple[str, str]] = ()) -> Legend:
    """Add a legend below one axes, in a figure that isn't ours to resize.

    Args:
        axes: the axes.
        key: letters with their meanings.
    """
    entries = _entries([axes], key)
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure")
    figure.draw_without_rendering()
    ticks = axes.xaxis.get_tightbbox()  # and their label; None if the axis is switched off
    below = 0.0 if ticks is None else axes.get_window_extent().y0 - ticks.y0
    return axes.legend(
        [handle for handle, _ in entries],
        [name for _, name in entries],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        # By a length and not a share of the axes, whose height a layout may change.
        bbox_transform=axes.transAxes
        + ScaledTranslation(
            0, -below / figure.dpi - _GAP_POINTS / POINTS_PER_INCH, figure.dpi_scale_trans
        ),
        ncols=min(_MOST_BELOW_AXES, max(len(entries), 1)),
        handler_map={_Letter: _LetterHandler()},
    )


def _entries(panels: Sequence[Axes], key: Sequence[tuple[str, str]]) -> list[tuple[Any, str]]:
    """Return handles with names: each label of the axes once, then the letters."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    entries = [(handle, drawable(label)) for label, handle in handles.items()]
    return entries + [(_Letter(letter), drawable(text)) for letter, text in key]


def add_legend(figure: Figure, key: Sequence[tuple[str, str]]) -> Legend:
    """Add a legend below the axes in as many columns as fit; the figure grows by its height.

    Names are only shortened if they don't fit even in the fewest columns.

    Args:
        figure: a figure with constrained layout; each label of its axes appears once.
        key: letters with their meanings.
    """
    room = figure.get_figwidth() * POINTS_PER_INCH - 4
    entries = _entries(figure.axes, key)
    full = [name for _, name in entries]
    fewest = 1 if len(entries) <= _MOST_IN_ONE_COLUMN else 2
    widest = room / fewest - _HANDLE_POINTS
    short = [shorten(name, points=widest, size=SMALL_POINTS) for name in full]
    most = min(_MOST_COLUMNS, max(len(entries), 1))
    tries = [(columns, full) for columns in range(most, fewest - 1, -1)]
    for columns, names in [*tries, (fewest, short), (1, short)]:
        legend = figure.legend(
            [handle for handle, _ in entries],
            names,
            loc="outside lower center",
            ncols=columns,
            handler_map={_Letter: _LetterHandler()},
        )
        extent = legend.get_window_extent()
        fits = extent.width <= room * figure.dpi / POINTS_PER_INCH
        if fits or (columns == 1 and names is short):
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
    return legend
