"""Text of others as one line, and the messages of all errors with it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import ConfigError, DseError, InfeasibleError
from dse.plain_text import one_line


@given(st.text())
def test_it_is_one_line_without_control_characters(text: str) -> None:
    found = one_line(text)
    assert len(found.splitlines()) <= 1
    assert not {unicodedata.category(letter) for letter in found} & {"Cc", "Cs", "Zl", "Zp"}
    assert one_line(found) == found


@pytest.mark.parametrize("kind", [DseError, ConfigError, InfeasibleError])
def test_a_message_is_one_line_whatever_a_name_holds(kind: type[DseError]) -> None:
    error = kind("recipe.json is damaged: scores.é\n\x1b[31m: Input should be a number\u2028")
    assert str(error) == "recipe.json is damaged: scores.é  [31m: Input should be a number"
