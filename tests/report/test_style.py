"""Sizes, names that must fit, and the files that are written."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dse.memory.tape import CATEGORIES, WORKSPACE
from dse.report.style import (
    CATEGORY_STYLES,
    PAPER_FORMATS,
    add_caption,
    new_figure,
    paper_style,
    save,
    shorten,
    shorten_names,
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


DENSE = [
    f"features.denseblock{block}.denselayer{layer}.conv{part}"
    for block in (1, 2, 3)
    for layer in (1, 9, 12)
    for part in (1, 2)
]
EFFICIENT = [
    f"backbone._blocks.{block}.{layer}"
    for block in (1, 5, 15)
    for layer in ("_expand_conv", "_depthwise_conv", "_project_conv", "_se_reduce", "_se_expand")
]


def assert_only_ellipses_are_new(short: str, name: str) -> None:
    pieces = map(re.escape, short.split("…"))
    assert re.fullmatch(".*".join(pieces), name), f"{short} reads like another name than {name}"


@pytest.mark.parametrize("names", [DENSE, EFFICIENT, ["stem", *DENSE, *EFFICIENT]])
@pytest.mark.parametrize("points", [55, 66, 80])
def test_short_names_differ_and_show_where_they_are_cut(names: list[str], points: float) -> None:
    short = shorten_names(names, points=points, size=6)
    assert len(set(short)) == len(names)
    for text, name in zip(short, names, strict=True):
        assert text_points(text, size=6) <= points
        assert_only_ellipses_are_new(text, name)


@given(st.lists(st.text("ab_.12", max_size=30), max_size=6), st.integers(20, 80))
def test_any_short_name_shows_where_it_is_cut(names: list[str], points: int) -> None:
    for text, name in zip(shorten_names(names, points=points, size=6), names, strict=True):
        assert text == name or "…" in text
        assert_only_ellipses_are_new(text, name)


def test_names_that_fit_stay_and_others_keep_their_numbers() -> None:
    assert shorten_names(DENSE, points=1000, size=6) == DENSE
    assert shorten_names([DENSE[0], "stem"], points=80, size=6) == ["…1.denselayer1.conv1", "stem"]
    assert shorten_names([], points=80, size=6) == []


def test_names_that_differ_in_their_first_word_alone_keep_it() -> None:
    names = [f"{side}.a_rather_long_name_of_a_layer" for side in ("left", "right")]
    short = shorten_names(names, points=80, size=6)
    assert [text.split("…")[0][:2] for text in short] == ["le", "ri"]


def test_every_category_has_a_look_of_its_own() -> None:
    assert set(CATEGORY_STYLES) == {*CATEGORIES, WORKSPACE}
    looks = {(style.colour, style.hatch) for style in CATEGORY_STYLES.values()}
    assert len(looks) == len(CATEGORY_STYLES)


@pytest.mark.parametrize(("width", "inches"), [("column", 3.3), ("page", 7.0)])
def test_files_are_vector_and_sharp_and_the_same_every_time(
    tmp_path: Path, width: str, inches: float
) -> None:
    def draw(stem: str) -> tuple[Path, ...]:
        figure = new_figure(width, height_inches=2)  # type: ignore[arg-type]
        figure.add_subplot().fill_between([0, 1], [1, 2], hatch="//")
        add_caption(figure, ["a caption"])
        return save(figure, tmp_path / stem, formats=PAPER_FORMATS)

    pdf, svg, png = draw("one.two")
    assert (pdf.name, svg.name, png.name) == ("one.two.pdf", "one.two.svg", "one.two.png")
    content = pdf.read_bytes()
    assert b"/CIDFontType2" in content  # TrueType
    assert b"/FontFile2" in content  # embedded
    assert b"/Type3" not in content
    assert b"/CreationDate" not in content
    with Image.open(png) as image:
        assert image.width == inches * 300
    again = draw("again")
    assert [path.read_bytes() for path in again] == [
        content,
        svg.read_bytes(),
        png.read_bytes(),
    ]
    assert "<text" not in svg.read_text("utf-8")  # outlines, which need no font


def test_a_caption_leaves_the_axes_their_size() -> None:
    heights = []
    for parts in (["short"], ["a long part " * 3] * 6):
        figure = new_figure("column", height_inches=2)
        axes = figure.add_subplot()
        add_caption(figure, parts)
        figure.draw_without_rendering()
        heights.append(axes.get_window_extent().height)
    assert heights[0] == pytest.approx(heights[1], rel=0.05)
