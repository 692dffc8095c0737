"""The index page of a comparison."""

from collections.abc import Sequence

from dse.names import METRICS
from dse.report.compare_wording import box_text, fidelity_text, seeds_text
from dse.report.escape import markdown_escaped
from dse.report.page import convention_text
from dse.report.render import Table, to_markdown
from dse.report.style import PAPER_FORMATS, WIDTHS
from dse.results.comparison import Comparison
from dse.results.grouping import Group

INTERVALS = (
    "95 %, over the runs of a method. Those of means are Student's; those of ratios to "
    "the first method are Welch's, on the logarithm. Runs of one method differ in their seed, "
    "which draws candidates, splits off the selection part and starts every training."
)


def comparison_page(
    comparison: Comparison, *, pictures: Sequence[tuple[str, str, str]], tables: Sequence[Table]
) -> str:
    """Return the page as Markdown.

    Args:
        comparison: the groups.
        pictures: name, title and explanation of each.
        tables: those that are shown.
    """
    first = comparison.runs[0]
    facts = [
        ("Network", f"{first.study.network.name}, weights {first.study.network.weights_name}"),
        ("Data", f"{first.study.data.name}, {first.classes} classes"),
        ("Metric", f"{first.measure.title}: {METRICS.get(first.metric, first.metric)}"),
        ("Accuracies", fidelity_text(comparison)),
        ("Memory convention", convention_text(first)),
        ("Hypervolume", box_text(comparison)),
        ("Intervals", INTERVALS),
    ]
    lines = ["# Comparison", "", "| | |", "| :--- | :--- |"]
    lines += [f"| {name} | {markdown_escaped(text)} |" for name, text in facts]
    lines += [
        f"| {markdown_escaped(group.label)} | {_runs(group)} |" for group in comparison.groups
    ]
    for note in comparison.notes:
        lines += ["", f"**Note**: {markdown_escaped(note)}"]
    for name, title, text in pictures:
        links = [_link(f"{name}-{width}.{suffix}") for width, suffix in _FILES]
        lines += ["", f"## {title}", "", markdown_escaped(text), ""]
        lines += [f"![{title}]({name}-page.png)", "", "Files: " + ", ".join(links)]
        lines[-1] += f", {_link(f'{name}.csv')}"
    for table in tables:
        lines += ["", f"## {table.name.capitalize()}", "", to_markdown(table)]
        lines.append(
            "Files: " + ", ".join(_link(f"{table.name}.{s}") for s in ("csv", "md", "tex"))
        )
    return "\n".join(lines) + "\n"


def _runs(group: Group) -> str:
    names = ", ".join(run.folder.name for run in group.runs)
    return markdown_escaped(f"runs {names}; seeds {seeds_text(group)}")


def _link(name: str) -> str:
    return f"[{name}]({name})"


_FILES = tuple((width, suffix) for width in WIDTHS for suffix in PAPER_FORMATS)
