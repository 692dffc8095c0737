import optuna
import pytest

from dse.sampling.samplers import SAMPLERS, make_sampler


def draws(name: str, *, seed: int, count: int, gated: bool = False) -> list[float]:
    """Draw with a fresh sampler each time, as a run does; every other draw may be gated."""
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=make_sampler(name, seed=seed, draw=0)
    )
    drawn = []
    for number in range(count):
        study.sampler = make_sampler(name, seed=seed, draw=number)
        trial = study.ask()
        x, y = (trial.suggest_float(key, 0.0, 0.9) for key in "xy")
        drawn.append(x)
        over = gated and number % 2 == 1
        trial.set_constraint("peak_bytes", 1.0 if over else -1.0)
        if over:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, [1 - x * y, 1 - x])
    return drawn


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_takes_two_objectives_and_gated_trials(name: str) -> None:
    drawn = draws(name, seed=1, count=12, gated=True)
    assert len(set(drawn)) == len(drawn)  # no draw repeats another
    assert all(0 <= value <= 0.9 for value in drawn)


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_follow_from_the_seed(name: str) -> None:
    assert draws(name, seed=3, count=12) == draws(name, seed=3, count=12)
    assert draws(name, seed=3, count=3) != draws(name, seed=4, count=3)
