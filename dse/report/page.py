"""The report's index page: settings of the study, conventions, results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.measures import objective_title
from dse.names import METRICS, SEARCH_CONVENTIONS
from dse.report import wording
from dse.report.conditions import conditions_markdown
from dse.report.escape import markdown_escaped
from dse.report.recalls_table import missed_warnings
from dse.report.render import Table, to_markdown
from dse.report.selection import baseline_hypervolume, hypervolume_shares
from dse.report.wording import size_label
from dse.results.balance import imbalance_warning
from dse.results.fidelity import rank_correlation, trained_at_both
from dse.results.records import RunRecords
from dse.results.varied import varied_text
from dse.units import format_duration, format_size

_GOOD_TAU = 0.8


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One plot with all its files.

    Attributes:
        title: heading.
        text: explanation of what the plot shows.
        files: paths relative to the page; the last one is the PNG that the page embeds.
        missing: reason why it wasn't drawn; empty if it was.
    """

    title: str
    text: str
    files: tuple[Path, ...] = ()
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page that shows a table.

    Attributes:
        name: its name, by which the other page finds it.
        title: heading.
        text: explanation of the table, or of why there is none.
        table: the table; None if there is none.
    """

    name: str
    title: str
    text: str
    table: Table | None


def page(records: RunRecords, *, pictures: Sequence[Picture], tables: Sequence[Section]) -> str:
    """Return the page as Markdown.

    Args:
        records: the run.
        pictures: plots in order.
        tables: sections in order; tables without columns are only linked.
    """
    study = records.study
    lines = [f"# {markdown_escaped(study.name)}", ""]
    if study.description:
        lines += [markdown_escaped(study.description), ""]
    lines += ["| | |", "| :--- | :--- |"]
    lines += [f"| {name} | {markdown_escaped(text)} |" for name, text in study_facts(records)]
    lines += ["", "## Conditions", "", *conditions_markdown(records)]
    for text in warnings(records):
        lines += ["", f"**Warning**: {markdown_escaped(text)}"]
    for picture in pictures:
        lines += ["", f"## {picture.title}", "", picture.text, ""]
        if picture.missing:
            lines.append(f"*Not drawn: {picture.missing}*")
        else:
            lines.append(f"![{picture.title}]({picture.files[-1].as_posix()})")
            lines += ["", "Files: " + ", ".join(_link(path) for path in picture.files)]
    for section in tables:
        lines += ["", f"## {section.title}", "", section.text]
        table = section.table
        if table is None:
            continue
        lines.append("")
        if table.columns and table.rows:
            lines.append(to_markdown(table))
        suffixes = ("csv", "md", "tex") if table.columns else ("csv",)
        links = [_link(Path(f"{table.name}.{suffix}")) for suffix in suffixes]
        lines.append("Files: " + ", ".join(links))
    return "\n".join(lines) + "\n"


def convention_text(records: RunRecords) -> str:
    """Return how a run's peaks are counted: the convention with its definition."""
    return f"{records.convention}: {SEARCH_CONVENTIONS[records.convention]}"


def study_facts(records: RunRecords) -> list[tuple[str, str]]:
    """List the settings and results of a run: names and values, unescaped."""
    study = records.study
    training, search = study.training, study.search
    facts = [
        ("Network", f"{study.network.name}, weights {study.network.weights_name}"),
        ("Task", wording.task(records)),
        ("Data", _data(records)),
        ("Regime", wording.regime(records)),
        ("Memory convention", convention_text(records)),
        ("Unpruned network", f"peak {format_size(records.unpruned_peak_bytes)}"),
        ("Smallest candidate", f"peak {format_size(records.smallest_peak_bytes)}"),
        ("Budgets", ", ".join(size_label(one) for one in search.budget_bytes)),
        ("Sampler", _sampler(records)),
        ("Objectives", _objectives(records)),
        ("Metric", _metric(records)),
        ("Trials", _trials(records)),
        *((("Failed", _failed(records)),) if records.failures else ()),
        (
            "Fidelities",
            (
                f"short: {wording.epochs(study.proxy.short_epochs)}, scored on the selection part; "
                f"full: {wording.epochs(study.proxy.full_epochs)}, scored on the validation part "
                "too, which the search never sees"
            ),
        ),
        ("Spread", "± is the sample standard deviation over the seeds of one candidate"),
        ("Learning rate", f"{training.learning_rate:g}"),
        ("Recipe of the reference", _reference(records)),
        ("Pruning", _pruning(records)),
        ("Recovery", _recovery(records)),
        *((("Recipe varies", _joint(records)),) if records.joint else ()),
        ("Time on trials", format_duration(sum(trial.wall_seconds for trial in records.trials))),
        ("Short against full", _rank_correlation(records)),
    ]
    if records.complete:
        facts.append(("Hypervolume", _hypervolume(records)))
    return facts


def _sampler(records: RunRecords) -> str:
    learned = [f"{count} candidates of {name}" for name, count in records.warm_starts.items()]
    text = records.study.search.sampler
    return f"{text}, warmed by {' and '.join(learned)}" if learned else text


def _metric(records: RunRecords) -> str:
    measure = records.measure
    text = f"{measure.title}: {METRICS.get(records.metric, records.metric)}"
    if measure.percent or (measure.worthless, measure.ideal) == (0.0, 1.0):
        return text
    return f"{text}; {measure.worthless:.3g} is worth nothing, {measure.ideal:g} is ideal"


def _data(records: RunRecords) -> str:
    data = records.study.data
    labels = f", labels {', '.join(data.labels)}" if data.labels else ""
    return f"{data.name}{labels}, {wording.image_size(records)}"


def warnings(records: RunRecords) -> list[str]:
    """Return one line for each problem of a class that the metric hides."""
    hidden = imbalance_warning(records.class_images, metric=records.metric)
    return [*([] if hidden is None else [hidden]), *missed_warnings(records)]


def _objectives(records: RunRecords) -> str:
    names = records.study.search.objectives
    return ", ".join(objective_title(name, metric=records.metric) for name in names)


def _pruning(records: RunRecords) -> str:
    proxy = records.study.proxy
    fitted = "; layers that read pruned channels are fitted by least squares"
    return f"channels ranked by {proxy.importance}{fitted if proxy.reconstruct else ''}"


def _reference(records: RunRecords) -> str:
    """Describe how the recipe of the unpruned network, which all candidates share, was found."""
    tuning = records.tuning
    if tuning is None:
        return "as in the study, not tuned"
    tried = "; ".join(one.text(records.measure) for one in tuning.attempts)
    return (
        "tuned on the unpruned network before the search, on the selection part, and used for "
        f"every candidate: learning rate {tuning.learning_rate:g}, full training of "
        f"{wording.epochs(tuning.full_epochs)}. Tried: {tried}"
    )


def _recovery(records: RunRecords) -> str:
    recovery = records.study.recovery
    if recovery is None:
        return "none: pruned networks are fine-tuned as they are"
    return (
        f"off the device, before fine-tuning: {recovery.aim}, {wording.epochs(recovery.epochs)} on "
        "source images, without a memory limit; every pruned candidate but not the unpruned network"
    )


def _joint(records: RunRecords) -> str:
    """Return which parts of the recipe vary, with their values."""
    return "; ".join(f"{name}: {varied_text(one)}" for name, one in records.joint.items())


def _trials(records: RunRecords) -> str:
    counts = [f"{count} {state}" for state, count in records.trials_by_state.items() if count]
    if records.lost_trials:
        counts.append(f"{records.lost_trials} ended before their candidate was stored")
    total = len(records.trials) + records.lost_trials
    return f"{total}: {', '.join(counts)}" if counts else "none yet"


def _failed(records: RunRecords) -> str:
    """List the baselines and finalists that couldn't be trained, with reasons."""
    return "; ".join(f"{one.what} {one.label}: {one.reason}" for one in records.failures)


def _hypervolume(records: RunRecords) -> str:
    text = f"{100 * hypervolume_shares(records)[-1]:.2f} % of the reference box"
    baseline = baseline_hypervolume(records)
    return text if baseline is None else f"{text}; the baselines alone {100 * baseline:.2f} %"


def _rank_correlation(records: RunRecords) -> str:
    """Describe how well the ranking after short fine-tuning agrees with that after the full one."""
    both = trained_at_both(records)
    tau = rank_correlation([one.short for one in both], [one.full for one in both])
    if tau is None:
        return f"{len(both)} candidates trained at both: too few, or too many ties, to rank"
    text = f"rank correlation (Kendall) {tau:.2f} over {len(both)} candidates trained at both"
    if tau >= _GOOD_TAU:
        return text
    return (
        f"{text}. Warning: below {_GOOD_TAU:g} the short fine-tuning orders candidates poorly; "
        "rely on the figures at full, and consider a higher proxy.short_epochs or search.finalists"
    )


def _link(path: Path) -> str:
    return f"[{path.name}]({path.as_posix()})"
