from decimal import Decimal
from pathlib import Path

import pytest

from dse.config import Study, budget_bytes, describe_budgets, load_study, study_toml, with_budgets
from dse.errors import ConfigError
from dse.units import PeakShare, distinct_sizes, parse_budget
from support.tiny import write_tiny_study


def shared(folder: Path, *budgets: object) -> Study:
    listed = ", ".join(repr(one) for one in budgets)
    return load_study(write_tiny_study(folder), overrides=[f"search.budgets=[{listed}]"])


def test_budgets_may_be_shares_of_the_unpruned_peak(tmp_path: Path) -> None:
    study = shared(tmp_path, "50 %", "1 MiB", "12.5%", 4096)
    quarter, half, *sizes = study.search.budgets
    assert (quarter, half) == (PeakShare(Decimal("12.5")), PeakShare(Decimal(50)))
    assert sizes == [4096, 2**20]
    with pytest.raises(ValueError, match="not resolved"):
        _ = study.search.budget_bytes
    found = budget_bytes(study.search.budgets, unpruned_peak_bytes=2**20 + 1)
    assert found == (4096, 131_072, 524_288, 2**20)
    assert with_budgets(study, found).search.budget_bytes == found
    assert describe_budgets(study.search.budgets, found[1:3]) == (
        "128.0 KiB, 512.0 KiB (12.5 %, 50 % of the unpruned peak)"
    )


def test_shares_are_written_and_read_back(tmp_path: Path) -> None:
    study = shared(tmp_path, "25 %", "50%")
    again = tmp_path / "again.toml"
    again.write_text(study_toml(study), encoding="utf-8")
    assert load_study(again) == study
    assert '"25 %"' in study_toml(study)
    assert load_study(again).meaning_digest == study.meaning_digest
    assert shared(tmp_path, "30 %", "50%").meaning_digest != study.meaning_digest


def test_a_share_and_a_size_of_the_same_bytes_are_one_budget() -> None:
    whole = (PeakShare(Decimal(50)), 512)
    assert budget_bytes(whole, unpruned_peak_bytes=1024) == (512,)
    assert PeakShare(Decimal("0.001")).of(10) == 1


@pytest.mark.parametrize("wrong", ["0 %", "101 %", "-5 %", "%", "x %", "1e3 %", "nan%", "٣ %"])
def test_what_is_no_share_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a share|is not a size"):
        parse_budget(wrong)
    with pytest.raises(ConfigError, match=r"search\.budgets\[0\]|--set search\.budgets"):
        shared(tmp_path, wrong)


def test_different_sizes_never_look_alike() -> None:
    assert distinct_sizes(2**20, 2**21) == ("1.0 MiB", "2.0 MiB")
    assert distinct_sizes(2**20, 2**20) == ("1.0 MiB", "1.0 MiB")
    assert distinct_sizes(25_165_824, 25_165_900) == (
        "24.0 MiB (25,165,824 bytes)",
        "24.0 MiB (25,165,900 bytes)",
    )
