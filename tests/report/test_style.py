"""Sizes, names that must fit, and the files that are written."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dse.memory.tape import CATEGORIES, WORKSPACE
from dse.report.style import (
    CATEGORY_STYLES,
    abbreviated,
    add_caption,
    new_figure,
    paper_style,
    save,
    shorten,
    text_points,
)


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with paper_style():
        yield


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60))
def test_shortened_texts_fit_and_keep_their_ends(text: str) -> None:
    short = shorten(text, points=60, size=6)
    assert text_points(short, size=6) <= 60 or short == "…"
    if short != text:
        head, tail = short.split("…")[0], short.split("…")[-1]
        assert text.startswith(head)
        assert text.endswith(tail)


def test_a_dollar_is_no_mathematics() -> None:
    assert text_points("$x$", size=6) > text_points("x", size=6)


def test_names_are_cut_to_one_length_at_which_all_fit() -> None:
    names = ["features.conv0", *(f"features.denseblock{n}.denselayer{n}.conv1" for n in (1, 12))]
    assert abbreviated(names, points=1000, size=6) == names
    cut = abbreviated(names, points=80, size=6)
    assert all(text_points(name, size=6) <= 80 for name in cut)
    assert len(set(cut)) == 3
    assert cut[2].endswith("12.conv1")
    assert abbreviated([], points=80, size=6) == []
    assert "…" in abbreviated(["abc." * 40], points=80, size=6)[0]


def test_every_category_has_a_look_of_its_own() -> None:
    assert set(CATEGORY_STYLES) == {*CATEGORIES, WORKSPACE}
    looks = {(style.colour, style.hatch) for style in CATEGORY_STYLES.values()}
    assert len(looks) == len(CATEGORY_STYLES)


@pytest.mark.parametrize(("width", "inches"), [("column", 3.3), ("page", 7.0)])
def test_files_are_vector_and_sharp_and_the_same_every_time(
    tmp_path: Path, width: str, inches: float
) -> None:
    def draw(stem: str) -> tuple[Path, Path]:
        figure = new_figure(width, height_inches=2)  # type: ignore[arg-type]
        figure.add_subplot().fill_between([0, 1], [1, 2], hatch="//")
        add_caption(figure, ["a caption"])
        return save(figure, tmp_path / stem)

    pdf, png = draw("one.two")
    assert (pdf.name, png.name) == ("one.two.pdf", "one.two.png")
    content = pdf.read_bytes()
    assert b"/CIDFontType2" in content  # TrueType
    assert b"/FontFile2" in content  # embedded
    assert b"/Type3" not in content
    assert b"/CreationDate" not in content
    with Image.open(png) as image:
        assert image.width == inches * 300
    again = draw("again")
    assert [path.read_bytes() for path in again] == [content, png.read_bytes()]


def test_a_caption_leaves_the_axes_their_size() -> None:
    heights = []
    for parts in (["short"], ["a long part " * 3] * 6):
        figure = new_figure("column", height_inches=2)
        axes = figure.add_subplot()
        add_caption(figure, parts)
        figure.draw_without_rendering()
        heights.append(axes.get_window_extent().height)
    assert heights[0] == pytest.approx(heights[1], rel=0.05)
