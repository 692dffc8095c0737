"""Entries for BibTeX, and the keys that texts cite."""

import re
from importlib.metadata import metadata

import pytest

from dse.report.paper.bibliography import KEYS, bibliography, cited


def test_keys_are_found_once_each_in_order() -> None:
    assert cited([r"a~\cite{one, two} b \cite{three}", r"\cite{two}"]) == ("one", "two", "three")
    assert cited(["nothing"]) == ()


def test_every_entry_is_whole() -> None:
    text = bibliography(sorted(KEYS))
    assert text.count("\n@") == len(KEYS)
    assert text.count("{") == text.count("}")
    for key in KEYS:
        entry = text.split(f"{{{key},")[1].split("\n}")[0]
        assert "  author = {" in entry
        assert "  title = {" in entry


@pytest.mark.parametrize(
    ("package", "key"),
    [
        ("optuna", "akiba2019optuna"),
        ("torch-pruning", "fang2023depgraph"),
        ("timm", "wightman2019timm"),
        ("transformers", "wolf2020transformers"),
    ],
)
def test_an_entry_is_what_the_package_asks_for(package: str, key: str) -> None:
    requested = metadata(package)["Description"] or str(metadata(package))
    entry = bibliography([key])
    for field in ("pages", "year", "doi"):
        found = re.search(rf"  {field} = {{([^}}]*)}}", entry)
        if found is not None:
            assert found[1] in requested
    first = re.search(r"author = {([^,}]+)", entry)
    assert first is not None
    assert first[1] in requested
