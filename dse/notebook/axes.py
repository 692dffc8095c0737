"""Axes for notebooks: those that the user gives, or new ones with a caption."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from dse.errors import RunError
from dse.report.style import INCHES, add_caption, paper_style

_CAPTION_SHARE = 0.8  # of the width: letters are wider at a screen's resolution


def plotted(
    draw: Callable[[Axes], bool],
    ax: Axes | None,
    *,
    caption: Sequence[str],
    height_inches: float,
    missing: str = "",
) -> Axes:
    """Draw into axes, or into those of a new figure that pyplot shows, with a caption.

    Args:
        draw: draws, and returns whether there was anything to draw.
        ax: axes to draw into; new ones if None.
        caption: parts of the caption of a new figure.
        height_inches: height of a new figure, without its caption.
        missing: why there may be nothing to draw.

    Raises:
        RunError: if there was nothing to draw.
    """
    with paper_style():
        if ax is not None:
            drawn = draw(ax)
            axes = ax
        else:
            from matplotlib import pyplot as plt  # noqa: PLC0415  # it chooses a display

            size = (INCHES["page"], height_inches)
            figure, axes = plt.subplots(figsize=size, layout="constrained")
            add_caption(figure, caption, share=_CAPTION_SHARE)
            drawn = draw(axes)
            if not drawn:
                plt.close(figure)
    if not drawn:
        raise RunError(f"nothing to plot: {missing}")
    return axes
