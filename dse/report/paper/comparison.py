"""The paper's parts of a comparison of runs."""

from collections.abc import Sequence
from pathlib import Path

from dse.report.compare_page import INTERVALS
from dse.report.compare_tables import (
    attainment_table,
    groups_table,
    hypervolume_table,
    runs_table,
)
from dse.report.compare_wording import band_text, box_text, fidelity_text, seeds_text
from dse.report.escape import latex_escaped
from dse.report.paper.method import study_sentences
from dse.report.paper.package import PaperFigure, PaperFiles, PaperTable, write_package
from dse.results.comparison import Comparison


def write_comparison_paper(
    comparison: Comparison, *, pictures: Sequence[Path], out: Path
) -> PaperFiles:
    """Write the paper's parts of a comparison.

    Args:
        comparison: the groups.
        pictures: files of the comparison's plots, which are copied.
        out: the folder; created if it doesn't exist.
    """
    metric = comparison.runs[0].measure.title
    about = f"{fidelity_text(comparison)}."
    return write_package(
        title="Comparison of " + ", ".join(group.label for group in comparison.groups),
        figures=[
            PaperFigure(
                name="attainment",
                caption=f"Best {metric} within each size of memory; {band_text(comparison)}; "
                f"{about}",
                data=lambda: attainment_table(comparison),
            ),
            PaperFigure(
                name="hypervolume",
                caption="Hypervolume after each candidate that was trained for a short time, as a "
                f"share of the box ({box_text(comparison)}); mean over the runs and its 95 % "
                "interval.",
                data=lambda: hypervolume_table(comparison),
            ),
        ],
        pictures=pictures,
        tables=[
            PaperTable(
                table=groups_table(comparison),
                caption=f"Hypervolume (share of the box; {box_text(comparison)}) and best {metric} "
                f"within each budget; {about} Intervals: {INTERVALS}",
            ),
            PaperTable(table=runs_table(comparison), caption=f"Single runs; {about}"),
        ],
        method=comparison_paragraph(comparison),
        out=out,
    )


def comparison_paragraph(comparison: Comparison) -> str:
    """Return a paragraph on how the methods were compared, as LaTeX."""
    groups = "; ".join(
        f"{group.label} ({len(group.runs)} runs, seeds {seeds_text(group)})"
        for group in comparison.groups
    )
    lines = [
        *study_sentences(comparison.runs[0]),
        f"We compare {latex_escaped(groups)}: {latex_escaped(fidelity_text(comparison))}.",
        (
            r"Attainment surfaces come from the empirical attainment function of the runs"
            r"~\cite{grunert2001attainment,fonseca2011attainment}, hypervolumes"
            r"~\cite{guerreiro2021hypervolume} have one reference point ("
            f"{latex_escaped(box_text(comparison))}); both are computed with moocore"
            r"~\cite{moocore}."
        ),
        f"Intervals: {latex_escaped(INTERVALS)}",
        *(f"Note that {latex_escaped(note)}." for note in comparison.notes),
    ]
    return " ".join(lines)
