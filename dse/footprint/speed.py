"""How long training steps and forward passes of one network take, as a share of another's.

Both run in turns in one process, so that a machine that is busy for a while slows both. What is
compared are the ratios of neighbouring runs, by their median.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binom

from dse.memory.measure import ReadyStep

_LEVEL = 0.05
_FEWEST, _MOST = 7, 25  # rounds; of fewer than six no interval of the median is known
_SECONDS = 6.0


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Times of one network as a share of another's.

    Attributes:
        median: median over the rounds; below 1 the first network is faster.
        interval: interval that covers the median with at least 95 %, from the order of the rounds.
    """

    median: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Ratio":
        """Summarise the ratio of each round; at least six."""
        ordered = sorted(ratios)
        # So many of the lowest and of the highest may be left out at either side.
        outer = max(int(binom.ppf(_LEVEL / 2, len(ordered), 0.5)) - 1, 0)
        return cls(
            median=statistics.median(ordered), interval=(ordered[outer], ordered[-1 - outer])
        )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Speed of one network beside another's, for each sample.

    Attributes:
        step: training steps.
        forward: forward passes in eval mode, without gradients.
        rounds: number of rounds.
    """

    step: Ratio
    forward: Ratio
    rounds: int


def compare_speed(
    ours: ReadyStep,
    theirs: ReadyStep,
    *,
    samples: tuple[int, int],
    seconds: float = _SECONDS,
) -> Speed:
    """Run training steps and forward passes of two networks in turns.

    Args:
        ours: the network in the numerator.
        theirs: the other network.
        samples: samples that one training step of each processes.
        seconds: time after which no round starts, once there are enough.
    """
    per_step = samples
    per_pass = (len(ours.inputs), len(theirs.inputs))
    steps: list[float] = []
    passes: list[float] = []
    start = time.perf_counter()
    for number in range(-1, _MOST):  # the first round warms up
        if number >= _FEWEST and time.perf_counter() - start > seconds:
            break
        # Who goes first changes, since caches may favour the second.
        order = (ours, theirs) if number % 2 else (theirs, ours)
        for measure, counts, found in (
            (_step_seconds, per_step, steps),
            (_forward_seconds, per_pass, passes),
        ):
            spent = {id(one): measure(one) for one in order}
            if number >= 0:
                found.append(spent[id(ours)] / counts[0] / (spent[id(theirs)] / counts[1]))
    return Speed(step=Ratio.of(steps), forward=Ratio.of(passes), rounds=len(steps))


def _step_seconds(ready: ReadyStep) -> float:
    return _seconds(ready.step, ready.inputs)


def _forward_seconds(ready: ReadyStep) -> float:
    modes = [(module, module.training) for module in ready.network.modules()]
    ready.network.eval()
    try:
        with torch.no_grad():
            return _seconds(lambda: ready.network(ready.inputs), ready.inputs)
    finally:
        for module, training in modes:  # as the scheme left them
            module.training = training


def _seconds(run: Callable[[], object], inputs: torch.Tensor) -> float:
    start = time.perf_counter()
    run()
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
