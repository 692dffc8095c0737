"""Words inside a picture: apart from each other, from markers and from the edge."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.report.labels import Label, label_lines, place_labels, spread
from dse.report.style import new_figure
from support.drawing import check_texts


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted),
    st.lists(st.floats(1, 8), min_size=12, max_size=12),
)
def test_what_is_spread_keeps_order_and_distance(centres: list[float], sizes: list[float]) -> None:
    widths = np.array(sizes[: len(centres)])
    places = spread(np.array(centres), widths=widths, low=0, high=100)
    for (a, width_a), (b, width_b) in pairwise(zip(places, widths, strict=True)):
        assert b - a >= (width_a + width_b) / 2 - 1e-9
    assert places[0] >= widths[0] / 2 - 1e-9
    assert places[-1] <= 100 - widths[-1] / 2 + 1e-9


def test_what_stands_apart_stays() -> None:
    centres = np.array([10.0, 50.0, 90.0])
    assert spread(centres, widths=np.full(3, 10.0), low=0, high=100) == pytest.approx(centres)


def test_what_stands_together_moves_as_little_as_possible() -> None:
    places = spread(np.array([50.0, 50.0]), widths=np.array([10.0, 10.0]), low=0, high=100)
    assert places.tolist() == pytest.approx([45, 55])


@pytest.mark.parametrize(("count", "named"), [(0, 0), (1, 1), (3, 3), (8, 8), (20, 20), (60, 20)])
def test_lines_are_named_without_overlap(count: int, named: int) -> None:
    figure = new_figure("column", height_inches=2)
    axes = figure.add_subplot()
    axes.set_xlim(0, 100)
    positions = [20 + n for n in range(count)]
    figure.draw_without_rendering()
    label_lines(axes, positions, [f"{n} MiB" for n in positions])
    assert sum("MiB" in text for text in check_texts(figure)) == named


def test_labels_stay_off_markers_and_each_other() -> None:
    figure = new_figure("column", height_inches=2)
    axes = figure.add_subplot()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    points = np.array([[5.0, 5.0], [5.2, 5.1], [9.9, 9.9], [0.1, 0.1]])
    axes.plot(*points.T, "o")
    figure.draw_without_rendering()
    labels = [Label(text=f"label {n}", x=x, y=y) for n, (x, y) in enumerate(points)]
    assert place_labels(axes, labels, markers=points, lines=np.empty((0, 2))) == []
    check_texts(figure)


def test_a_label_without_room_is_left_out_and_told() -> None:
    figure = new_figure("column", height_inches=2)
    axes = figure.add_subplot()
    crowd = np.array([[x, y] for x in np.linspace(0, 1, 60) for y in np.linspace(0, 1, 60)])
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    figure.draw_without_rendering()
    label = Label(text="no room", x=0.5, y=0.5)
    assert place_labels(axes, [label], markers=crowd, lines=crowd) == [label]
    assert len(axes.texts) == 0
