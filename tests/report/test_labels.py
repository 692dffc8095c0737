"""Words inside a picture: apart from each other, from markers and from the edge."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dse.report.labels import Label, label_lines, place_labels, spread
from dse.report.style import POINTS_PER_INCH, new_figure
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


POINTS = st.lists(
    st.tuples(st.floats(0.01, 100), st.floats(0, 100), st.sampled_from("abcdefghij")),
    max_size=30,
)


def crowded(points: list[tuple[float, float, str]]) -> Axes:
    """Label points in a small axes in which some labels have no room."""
    figure = new_figure("column", height_inches=1.5)
    axes = figure.add_subplot()
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    done = place_labels(
        axes,
        [Label(text=text, x=x, y=y) for x, y, text in points],
        markers=np.array([point[:2] for point in points]),
        trials=np.empty((0, 2)),
        stars=np.empty((0, 2)),
        crowd=True,
    )
    assert not done
    return axes


def placed(points: list[tuple[float, float, str]], *, logarithmic: bool, inches: float) -> bool:
    """Label points of an axes; check what is written where there was room for all."""
    figure = new_figure("column", height_inches=inches)
    axes = figure.add_subplot()
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlim(0.005, 120)
    axes.set_ylim(-10, 110)
    places = np.array([point[:2] for point in points]).reshape(-1, 2)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    labels = [Label(text=text, x=x, y=y) for x, y, text in points]
    none = np.empty((0, 2))
    done = place_labels(axes, labels, markers=places, trials=places, stars=none)
    if done:
        check_texts(figure)
        inside = axes.get_window_extent()
        half = 2.5 * figure.dpi / POINTS_PER_INCH
        for text in axes.texts:
            box = Text.get_window_extent(text)
            assert inside.padded(1).containsx(box.x0)
            assert inside.padded(1).containsx(box.x1)
            assert inside.padded(1).containsy(box.y0)
            assert inside.padded(1).containsy(box.y1)
            for x, y in axes.transData.transform(places):
                assert not box.overlaps(Bbox.from_extents(x - half, y - half, x + half, y + half))
    return done


@settings(max_examples=12)
@given(POINTS, st.sampled_from(["linear", "log"]))
def test_letters_lie_on_nothing(points: list[tuple[float, float, str]], scale: str) -> None:
    assert placed(points, logarithmic=scale == "log", inches=2.0)


def test_thirty_points_at_one_place_are_all_named() -> None:
    assert placed([(50, 50, f"{n}") for n in range(30)], logarithmic=False, inches=2.0)


def test_without_room_it_says_so() -> None:
    grid = [(x, y, f"{x}{y}") for x in range(1, 100, 3) for y in range(0, 100, 3)]
    assert not placed(grid, logarithmic=False, inches=1.5)


def test_a_crowd_names_every_point_inside_the_axes() -> None:
    grid = [(x, y, f"{x}/{y}") for x in range(1, 100, 7) for y in range(0, 100, 7)]
    axes = crowded(grid)
    axes.get_figure(root=True).draw_without_rendering()  # places the texts
    assert {text.get_text() for text in axes.texts} == {text for _, _, text in grid}
    inside = axes.get_window_extent().padded(1)
    for text in axes.texts:
        box = Text.get_window_extent(text)
        assert inside.containsx(box.x0)
        assert inside.containsx(box.x1)
        assert inside.containsy(box.y0)
        assert inside.containsy(box.y1)


def test_a_label_of_a_crowd_goes_to_free_space_with_a_line() -> None:
    dense = [(20 + x / 2, 50 + y / 2, f"{x}/{y}") for x in range(20) for y in range(20)]
    axes = crowded(dense[:: len(dense) // 40])
    check_texts(axes.get_figure(root=True))
    far = [text for text in axes.texts if np.hypot(*text.xyann) > 46]
    assert far
    assert all(text.arrow_patch is not None for text in far)
