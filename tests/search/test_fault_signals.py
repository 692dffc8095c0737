"""Signals to a process that runs a study, as people and batch systems send them."""

import os
import signal
import time

import pytest

from support.faults import FaultTable
from support.team import Team

STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
ENDS = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGXCPU)
"""Signals that end a process as SIGKILL does, without a word."""

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_that_stops(
    team: Team, faults: FaultTable, undisturbed: frozenset[str], number: signal.Signals
) -> None:
    team.url = "own"
    team.start()
    team.wait_for(4)
    team.workers[0].send_signal(number)
    sent = time.time()
    assert team.finish()[0].endswith("interrupted")
    took = time.time() - sent
    team.again()
    lost = team.check_complete(repeated=1, like=undisturbed)
    faults.add(f"{number.name}, then run again", lost, took)


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_that_ends_the_process(
    team: Team, faults: FaultTable, undisturbed: frozenset[str], number: signal.Signals
) -> None:
    team.url = "own"
    team.start()
    team.wait_for(4)
    team.workers[0].send_signal(number)
    team.finish()
    assert team.workers[0].returncode == -number
    ended = time.time()
    team.again()
    lost = team.check_complete(repeated=1, like=undisturbed)
    faults.add(f"{number.name}, then run again", lost, team.recovery_seconds(ended))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_where_the_parent_ignores_sigint(
    team: Team, faults: FaultTable, undisturbed: frozenset[str], number: signal.Signals
) -> None:
    """As a command that a shell script starts in the background."""
    team.url = "own"
    team.start(through=["sh", "-c", 'trap "" INT; exec "$0" "$@"'])
    team.wait_for(4)
    team.workers[0].send_signal(number)
    sent = time.time()
    assert team.finish()[0].endswith("interrupted")
    took = time.time() - sent
    team.again()
    lost = team.check_complete(repeated=1, like=undisturbed)
    faults.add(f"{number.name} where the parent ignores SIGINT, then run again", lost, took)


def test_a_pre_emption(team: Team, faults: FaultTable, undisturbed: frozenset[str]) -> None:
    """As Slurm does: the job is suspended, woken by a signal, and killed after a while."""
    team.url = "own"
    team.start()
    team.wait_for(4)
    job = team.workers[0]
    job.send_signal(signal.SIGSTOP)
    time.sleep(3)
    job.send_signal(signal.SIGCONT)
    job.send_signal(signal.SIGTERM)
    sent = time.time()
    assert team.finish(seconds=30)[0].endswith("interrupted")  # before SIGKILL, 30 s later
    took = time.time() - sent
    assert job.returncode == 130
    team.again()
    lost = team.check_complete(repeated=1, like=undisturbed)
    faults.add("pre-empted: stopped, SIGCONT and SIGTERM, then run again", lost, took)


def test_nohup(team: Team, faults: FaultTable, undisturbed: frozenset[str]) -> None:
    team.url = "own"
    team.start(through=["sh", "-c", 'trap "" HUP; exec "$0" "$@"'])
    team.wait_for(4)
    os.kill(team.workers[0].pid, signal.SIGHUP)
    sent = time.time()
    assert team.finish()[0].endswith("done 8 2")
    lost = team.check_complete(like=undisturbed)
    faults.add("SIGHUP under nohup: it goes on", lost, team.recovery_seconds(sent))
