"""The figures of a comparison on a notebook's axes."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from dse.notebook.comparison import RunComparison, compare_runs
from dse.notebook.run import Run
from dse.report.compare_plot import attainment_figure, hypervolume_figure
from dse.report.style import paper_style
from support.drawing import check_texts
from support.several import two_methods

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def found() -> RunComparison:
    return compare_runs([Run(records) for records in two_methods()])


@pytest.mark.parametrize("given", [False, True])
def test_plots_are_the_reports_and_texts_stand_clear(
    found: RunComparison,
    given: bool,  # noqa: FBT001
) -> None:
    with paper_style():
        figures = (
            attainment_figure(found.comparison, width="page"),
            hypervolume_figure(found.comparison, width="page"),
        )
    for plot, figure in zip((found.plot_attainment, found.plot_hypervolume), figures, strict=True):
        own = plt.subplots(figsize=(9, 5), layout="constrained")[1] if given else None
        axes = plot(own)
        assert own is None or axes is own
        check_texts(axes.get_figure(root=True))  # type: ignore[arg-type]
        for line, other in zip(axes.lines, figure.axes[0].lines, strict=True):
            assert line.get_label() == other.get_label()
            assert np.array_equal(line.get_ydata(), other.get_ydata())
