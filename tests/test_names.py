import json
import subprocess
import sys
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError

from dse import names
from dse.cli import main
from dse.config import DataConfig, ProxyConfig, SearchConfig, TaskConfig, TrainingConfig
from dse.config.fields import Scheme
from dse.config.recovery import RecoveryConfig
from dse.memory_formats import MEMORY_FORMATS
from dse.methods.alternatives import METHODS
from dse.names import either, nearest, use
from dse.sampling.samplers import SAMPLERS, make_sampler
from dse.step.optimizers import make_optimizer
from dse.step.schemes import SCHEMES
from dse.step.settings import StepSettings

TABLES: list[tuple[Any, dict[Any, str]]] = [
    (names.Checkpointing, names.CHECKPOINTING),
    (names.MemoryFormat, names.MEMORY_LAYOUTS),
    (names.Precision, names.PRECISIONS),
    (names.Mode, names.MODES),
    (names.Outputs, names.OUTPUTS),
    (names.SearchConvention, names.SEARCH_CONVENTIONS),
    (names.Fidelity, names.FIDELITIES),
    (names.Augmentation, names.AUGMENTATIONS),
    (names.Interpolation, names.INTERPOLATIONS),
    (names.TrainedFidelity, names.TRAINED_FIDELITIES),
    (names.RecoveryAim, names.RECOVERY_AIMS),
]
FIELDS = [
    (TrainingConfig, "optimizer", names.OPTIMIZERS),
    (TrainingConfig, "checkpointing", names.CHECKPOINTING),
    (TrainingConfig, "memory_format", names.MEMORY_LAYOUTS),
    (TrainingConfig, "precision", names.PRECISIONS),
    (DataConfig, "augment", names.AUGMENTATIONS),
    (DataConfig, "interpolation", names.INTERPOLATIONS),
    (ProxyConfig, "importance", names.CRITERIA),
    (SearchConfig, "sampler", names.SAMPLERS),
    (SearchConfig, "metric", {one: one for one in names.TASK_METRICS["classification"]}),
    (TaskConfig, "kind", names.TASKS),
    (RecoveryConfig, "aim", names.RECOVERY_AIMS),
    (RecoveryConfig, "augment", names.AUGMENTATIONS),
]


@pytest.mark.parametrize(("words", "table"), TABLES)
def test_each_word_of_a_set_has_its_line(words: Any, table: dict[str, str]) -> None:
    flat = [word for one in get_args(words) for word in (get_args(one) or (one,))]
    assert flat == list(table)
    assert all(line.strip() and "\n" not in line for line in table.values())


@pytest.mark.parametrize(("model", "field", "table"), FIELDS)
def test_configuration_takes_the_words_of_the_table_and_no_others(
    model: Any, field: str, table: dict[str, str]
) -> None:
    required = {"DataConfig": {"name": "digits"}, "SearchConfig": {"budgets": [1]}}
    given = required.get(model.__name__, {})
    for word in table:
        assert getattr(model.model_validate({**given, field: word}), field) == word
    with pytest.raises(ValidationError, match=list(table)[-1]):
        model.model_validate({**given, field: "nothing-of-this"})


@pytest.mark.parametrize("scheme", names.SCHEMES)
def test_every_scheme_is_taken(scheme: Scheme) -> None:
    word = scheme.replace("RANK", "4")
    assert TrainingConfig(scheme=word).scheme == word


@pytest.mark.parametrize("scheme", ["", "ful", "full:", "full:head", "from", "from:", "only:a, b"])
def test_other_schemes_are_refused(scheme: str) -> None:
    with pytest.raises(ValidationError, match="is not a scheme: write"):
        TrainingConfig(scheme=scheme)


def test_registries_hold_an_entry_for_each_word() -> None:
    assert set(METHODS) == set(names.BASELINE_METHODS)
    assert list(SCHEMES) == list(names.SCHEMES)
    assert set(MEMORY_FORMATS) == set(names.MEMORY_LAYOUTS)
    for sampler in SAMPLERS:
        assert make_sampler(sampler, seed=0, draw=0) is not None
    for optimizer in names.OPTIMIZERS:
        weights = [torch.nn.Parameter(torch.zeros(1))]
        assert make_optimizer(weights, StepSettings(optimizer=optimizer)).param_groups


@pytest.mark.parametrize(
    ("command", "tables"),
    [
        (
            "memory",
            [
                names.SCHEMES,
                names.OPTIMIZERS,
                names.CONVENTIONS,
                names.CHECKPOINTING,
                names.PRECISIONS,
                names.MODES,
            ],
        ),
        ("baseline", [names.BASELINE_METHODS, names.FIDELITIES]),
        ("export", [names.EXPORTS, names.RUNTIMES]),
    ],
)
def test_help_names_every_word(
    command: str, tables: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    for word in (word for table in tables for word in table):
        assert word in shown


def test_the_nearest_word_is_found_whatever_its_case() -> None:
    assert nearest("adamW", names.OPTIMIZERS) == "adamw"
    assert nearest("NSGA2", names.SAMPLERS) == "nsga2"
    assert nearest("FULL", names.SCHEMES) == "full"
    assert nearest("potato", names.SCHEMES) is None


def test_a_choice_reads_as_a_sentence() -> None:
    assert either(["a", "b", "c"]) == "a, b or c"
    assert either(["a"]) == "a"
    assert either(["a", "b"], quoted=True) == '"a" or "b"'
    assert use(names.OPTIMIZERS, given="AdamW") == (
        "use sgd, sgd-momentum, adam or adamw; did you mean adamw?"
    )


def test_the_words_are_read_without_torch() -> None:
    code = "import dse.names, json, sys; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
