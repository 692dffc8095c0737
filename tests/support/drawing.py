"""What can be checked of a picture without eyes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

Drawn = list[tuple[str, Bbox]]


@contextmanager
def _recorded(drawn: Drawn) -> Iterator[None]:
    original = Text.draw

    def draw(text: Text, renderer: Any) -> None:
        original(text, renderer)
        if text.get_visible() and text.get_text().strip():
            # The words alone: an annotation's own extent holds its arrow too.
            drawn.append((text.get_text(), Text.get_window_extent(text, renderer)))

    with patch.object(Text, "draw", draw):
        yield


def drawn_texts(figure: Figure) -> Drawn:
    """Every text that is drawn, with its extent in pixels."""
    drawn: Drawn = []
    with _recorded(drawn):
        figure.draw_without_rendering()
    return drawn


def check_texts(figure: Figure) -> list[str]:
    """Assert that no two texts overlap and none leaves the picture; return what is written."""
    drawn = drawn_texts(figure)
    whole = figure.bbox.padded(0.5)
    for text, box in drawn:
        assert whole.x0 <= box.x0, f"{text!r} leaves the picture on the left"
        assert box.x1 <= whole.x1, f"{text!r} leaves the picture on the right"
        assert whole.y0 <= box.y0, f"{text!r} leaves the picture below"
        assert box.y1 <= whole.y1, f"{text!r} leaves the picture above"
    for (first, a), (second, b) in combinations(drawn, 2):
        assert not a.padded(-0.5).overlaps(b.padded(-0.5)), f"{first!r} lies on {second!r}"
    return [text for text, _ in drawn]
