"""The page: what it shows, and its HTML."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dse.candidate import Candidate
from dse.config import study_toml
from dse.memory.timeline import Timeline
from dse.plain_text import one_line
from dse.report import captions, wording
from dse.report.conditions import conditions, versions
from dse.report.content import ReportContent
from dse.report.front_limits import drawable, infeasible_sizes, size_axis
from dse.report.front_plot import panel_title
from dse.report.html.chart import Chart
from dse.report.html.entries import (
    Entry,
    entries_of,
    entry_json,
    recipe_settings,
)
from dse.report.html.front_charts import full_chart, search_chart
from dse.report.html.network_charts import (
    category_colours,
    channels_chart,
    ledger_chart,
    memory_charts,
)
from dse.report.html.plan_chart import plan_chart
from dse.report.html.ratios_chart import ratios_chart
from dse.report.html.search_charts import fidelity_chart, history_chart, importance_chart
from dse.report.html.tiles import tiles
from dse.report.html.vega import vega_library
from dse.report.memory_plot import Panel, step_alone
from dse.report.page import study_facts, warnings
from dse.report.search_tables import MOST_SHOWN
from dse.results.records import RunRecords
from dse.units import format_size

_RESULTS = ("front", "finalists", "repeats", "recalls", "baselines")
_TEMPLATES = "templates"
_FOOTER = (
    "Written by `dse report`. Figures and tables for papers (PDF, PNG, LaTeX, CSV) are beside this "
    "page; report.md lists them."
)


def html_page(content: ReportContent) -> str:
    """Return the page: one file that needs no other, and no network.

    The same content gives the same text.
    """
    records = content.records
    shown = None if content.shown is None else content.shown.candidate
    entries = entries_of(records, shown=shown)
    charts = {chart.name: chart for chart in _charts(content, entries)}
    sections = {section.name: section for section in content.sections}
    return (
        _environment()
        .get_template("index.html.jinja")
        .render(
            title=records.study.name,
            description=records.study.description,
            origin=wording.origin(records)[1:],
            sections=_sections(charts),
            warnings=warnings(records),
            tiles=tiles(records, shown=content.shown),
            metric=records.measure.title,
            texts={
                **{name: section.text for name, section in sections.items()},
                "front": captions.front(records) + _left_out(records, entries),
                "short": panel_title(records, "short"),
                "full": panel_title(records, "full"),
                "hypervolume": captions.hypervolume(records),
                "ratios": f"{captions.RATIOS} Select a column to see its candidate.",
                "memory": captions.memory(content.panels),
            },
            charts=charts,
            beyond=_beyond(records),
            untrained=len(infeasible_sizes(records)),
            tables={
                "results": [
                    sections[name]
                    for name in _RESULTS
                    if name in sections and (table := sections[name].table) and table.rows
                ],
                "fidelity": sections["fidelity"].table,
                "plan": sections["plan"].table if "plan" in sections else None,
            },
            numbers={entry.candidate.digest: number for number, entry in enumerate(entries)},
            shown_dimensions=min(MOST_SHOWN, len(content.found.dimensions)),
            more_dimensions=max(0, len(content.found.dimensions) - MOST_SHOWN),
            panels=_panels(content.panels),
            study_facts=study_facts(records),
            conditions=[pair for pair in conditions(records) if pair[0] != "Versions"],
            versions=versions(records),
            configuration=Markup(escape(_configuration(records))),  # noqa: S704  # escaped here
            footer=_FOOTER,
            data=_data(content, entries, charts),
            library=_trusted(vega_library()),
            script=_trusted(_asset("page.js")),
            style=_trusted(_asset("style.css")),
        )
    )


def _charts(content: ReportContent, entries: Sequence[Entry]) -> list[Chart]:
    records = content.records
    found: list[Chart | None] = []
    if drawable(records):
        found.append(search_chart(records, entries))
    if records.finals:
        found += [full_chart(records, entries), fidelity_chart(records, entries)]
    if records.complete:
        found.append(history_chart(records))
    if content.found.predictive:
        found.append(importance_chart(content.found, metric=records.measure.title))
    if entries:
        found += [ledger_chart(), channels_chart(records)]
    if content.plan is not None:
        found.append(plan_chart(content.plan))
    return [
        *(one for one in (*found, ratios_chart(records, entries)) if one is not None),
        *memory_charts(content.panels),
    ]


def _data(
    content: ReportContent, entries: Sequence[Entry], charts: Mapping[str, Chart]
) -> dict[str, Any]:
    """Return everything that the page's script reads."""
    records = content.records
    numbers = {entry.candidate.digest: number for number, entry in enumerate(entries)}
    shown = None if content.shown is None else content.shown.candidate.digest
    return {
        "candidates": [
            entry_json(entry, records, models=content.models, picked=content.picked)
            for entry in entries
        ],
        "first": numbers.get(shown or "", 0) if entries else None,
        "unpruned": numbers.get(Candidate().digest),
        "recipe": recipe_settings(records, Candidate()),
        "groups": [[one_line(name), full] for name, full in records.groups],
        "categories": category_colours(),
        "export": f"dse export {quote(one_line(records.folder.name))}",
        "charts": {
            name: {
                "spec": chart.vega_lite,
                "renderer": chart.renderer,
                "data": {key: rows.to_json() for key, rows in chart.data.items()},
            }
            for name, chart in charts.items()
        },
    }


def _sections(charts: Mapping[str, Chart]) -> list[tuple[str, str]]:
    return [
        ("front", "Front"),
        *([("candidate", "Candidate")] if "ledger" in charts else []),
        *([("front-table", "Tables")] if "ledger" in charts else []),
        ("search", "Search"),
        ("networks", "Networks"),
        ("memory", "Memory"),
        ("conditions", "Conditions"),
    ]


def _left_out(records: RunRecords, entries: Sequence[Entry]) -> str:
    """Explain which trials the page shows, if not all."""
    shown = sum(entry.trial is not None for entry in entries)
    all_of_them = len({trial.candidate.digest for trial in records.complete})
    if shown == all_of_them:
        return ""
    return (
        f" This page shows the {shown:,} of {all_of_them:,} trials that are closest to the front; "
        "the pictures show all, and trials.csv lists them."
    )


def _beyond(records: RunRecords) -> list[str]:
    if not drawable(records):
        return []
    return [wording.size_label(budget) for budget in size_axis(records).beyond]


def _panels(panels: Sequence[Panel]) -> list[dict[str, str]]:
    return [
        {
            "label": panel.label,
            "peak": format_size(int(step.bytes[step.peak_index].sum())),
            "text": "; ".join(text for text in (panel.recipe, f"peak in {_place(step)}") if text),
            "chart": f"memory-{number}",
        }
        for number, panel in enumerate(panels)
        for step in [step_alone(panel.timeline)]
    ]


def _place(step: Timeline) -> str:
    site = step.sites[step.peak_index]
    return ", ".join(part for part in (site.phase, site.operator, site.module) if part)


def _configuration(records: RunRecords) -> str:
    """Return the resolved study as TOML, without the machine's own folders."""
    study = records.study
    text = study_toml(study.model_copy(update={"source_dir": None}))
    folders = [(Path.home(), "~")]
    if study.source_dir is not None:
        beside = Path(study.source_dir)
        folders = [(beside, "."), (beside.parent, ".."), *folders]
    for folder, short in folders:
        if folder != Path(folder.anchor):
            text = text.replace(f'"{folder}/', f'"{short}/')
    lines = [(line, len(line) - len(line.lstrip(" "))) for line in text.splitlines()]
    return "\n".join(f"{' ' * indent}{one_line(line)}" for line, indent in lines)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dse.report.html", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _printable(value: Any) -> Any:
    """Bring plain text on one line, without control characters and marks of direction."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _prose(text: str) -> Markup:
    """Escape an explanation, and show its *emphasis* and `code`."""
    escaped = str(escape(one_line(text)))
    escaped = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", escaped)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))  # noqa: S704  # escaped above


def _asset(name: str) -> str:
    return files("dse.report.html").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _trusted(text: str) -> Markup:
    """Mark a file of this package or of Vega as markup; nothing of a run is in it."""
    return Markup(text)  # noqa: S704
