"""The page in a real browser: from disk, at two widths, in both colour schemes, clicked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from dse.memory.model import MemoryModel
from dse.results.records import RunRecords
from support.pages import HOSTILE, hostile, page_of, run_over

Scheme = Literal["light", "dark"]
PHONE, DESK = 390, 1280
_PATIENCE = 180_000  # milliseconds: a busy machine takes its time


@pytest.fixture(scope="module")
def file(records: RunRecords, model: MemoryModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page_of(records, model), encoding="utf-8")
    return path


@contextmanager
def opened(
    chromium: Browser, file: Path, *, width: int = DESK, scheme: Scheme = "light", at: str = ""
) -> Iterator[Page]:
    """Open the page from disk; afterwards, nothing was requested and nothing was reported."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width == PHONE
    )
    context.set_default_timeout(_PATIENCE)
    page = context.new_page()
    requested: list[str] = []
    reported: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: reported.append(message.text))
    page.on("pageerror", lambda error: reported.append(str(error)))
    try:
        page.goto(f"{file.as_uri()}{at}")
        page.wait_for_selector("html.drawn")
        yield page
        assert reported == []
        assert [url for url in requested if not url.startswith(file.as_uri())] == []
    finally:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_fits_the_screen_in_both_colour_schemes(
    chromium: Browser, file: Path, tmp_path: Path, width: int, scheme: Scheme
) -> None:
    with opened(chromium, file, width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        charts = page.locator("[data-chart]")
        for chart in charts.all():
            box = chart.locator("svg, canvas").first.bounding_box()
            assert box is not None
            assert box["width"] > 0.6 * min(width, 380)
            assert box["x"] + box["width"] <= width
            assert chart.get_attribute("aria-label")
        picture = tmp_path / "page.png"
        page.screenshot(path=picture)
        corner = Image.open(picture).convert("L").getpixel((1, 1))
        assert isinstance(corner, int)
        assert corner < 64 if scheme == "dark" else corner > 192


def test_charts_follow_the_colour_scheme_while_the_page_is_open(
    chromium: Browser, file: Path
) -> None:
    label = "[data-chart=front-short] svg .role-axis-label text >> nth=0"
    with opened(chromium, file) as page:
        light = page.locator(label).get_attribute("fill")
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(
            "light => document.querySelector('[data-chart=front-short] .role-axis-label text')"
            "?.getAttribute('fill') !== light",
            arg=light,
        )
        assert page.locator(label).get_attribute("fill") != light


def centre_of_point(page: Page, chart: str, number: int) -> tuple[float, float]:
    """The middle of one of the points that can be clicked, on the screen."""
    point = page.locator(f"[data-chart={chart}] .mark-symbol.role-mark").last.locator("path")
    point.nth(number).scroll_into_view_if_needed()
    box = point.nth(number).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_click_on_a_point_shows_its_candidate(
    chromium: Browser, file: Path, records: RunRecords
) -> None:
    with opened(chromium, file) as page:
        heading = page.locator("#candidate h2 [data-of=label]")
        labels = set()
        for number in (0, 3, 5):
            x, y = centre_of_point(page, "front-short", number)
            page.mouse.move(x, y)
            page.locator("#tip").wait_for(state="visible")
            tip = page.locator("#tip strong").inner_text()
            page.mouse.click(x, y)
            assert heading.inner_text() == tip
            labels.add(tip)
        assert len(labels) == 3
        number = next(one for one in labels if one.startswith("trial ")).removeprefix("trial ")
        trial = records.trial(int(number))
        page.evaluate(f"location.hash = '#candidate={trial.candidate.digest}'")
        page.wait_for_function(
            "label => document.querySelector('#candidate [data-of=label]').textContent === label",
            arg=f"trial {number}",
        )
        facts = page.locator("#candidate [data-of=facts]").inner_text()
        assert f"{100 * (trial.accuracy or 0):.1f} %" in facts
        assert str(trial.seeds[0]) in facts
        export = page.locator("#candidate [data-of=export]").inner_text()
        assert export.endswith(f" --trial {number} --out bundle")


def test_a_tap_on_a_row_of_a_table_shows_its_candidate(chromium: Browser, file: Path) -> None:
    with opened(chromium, file, width=PHONE) as page:
        row = page.locator("#finalists-table tr[data-id]").nth(1)
        name = row.locator("a").inner_text()
        row.locator("a").tap()
        assert page.locator("#candidate h2 [data-of=label]").inner_text() == name
        assert "selected" in (row.get_attribute("class") or "")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE


def test_an_address_opens_its_candidate(chromium: Browser, file: Path, records: RunRecords) -> None:
    trial = records.complete[-1]
    with opened(chromium, file, at=f"#candidate={trial.candidate.digest}") as page:
        assert trial.candidate.digest in page.locator("#candidate").inner_text()


def test_hostile_text_runs_nothing(chromium: Browser, model: MemoryModel, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(page_of(hostile(run_over(model)), model), encoding="utf-8")
    with opened(chromium, file) as page:
        assert page.title().startswith("</script><script>alert(1)")
        assert page.locator("h1").inner_text() == HOSTILE.removesuffix("\u202e")
        assert page.locator("img").count() == 0
        x, y = centre_of_point(page, "front-short", 9)
        page.mouse.move(x, y)
        page.mouse.click(x, y)
        assert "alert(1)" in page.locator("body").inner_text()


def test_a_run_without_trials_opens(chromium: Browser, model: MemoryModel, tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(page_of(run_over(model, trials=0, finals=0), model), encoding="utf-8")
    with opened(chromium, file) as page:
        assert page.locator("#candidate").count() == 0


def test_without_javascript_the_tables_remain(chromium: Browser, file: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    context.set_default_timeout(_PATIENCE)
    page = context.new_page()
    page.goto(file.as_uri())
    assert "need JavaScript" in page.locator("main > noscript").inner_text()
    assert page.locator("#baselines-table tbody tr").count() > 1
    assert not page.locator("#candidate").is_visible()
    context.close()


def test_pointing_at_a_moment_shows_what_is_held(chromium: Browser, file: Path) -> None:
    with opened(chromium, file) as page:
        chart = page.locator("[data-chart=memory-0]")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.4 * box["height"])
        page.mouse.move(box["x"] + 0.52 * box["width"], box["y"] + 0.4 * box["height"])
        page.locator("#tip").wait_for(state="visible")
        names = page.locator("#tip dt").all_inner_texts()
        texts = dict(zip(names, page.locator("#tip dd").all_inner_texts(), strict=True))
        parts = [float(text) for name, text in texts.items() if name not in {"in", "together, MiB"}]
        assert float(texts["together, MiB"]) == pytest.approx(sum(parts), rel=1e-2)
