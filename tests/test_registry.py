import pytest

from dse.errors import ConfigError
from dse.registry import Registry


@pytest.fixture
def colours() -> Registry[int]:
    registry: Registry[int] = Registry("colour", {"red": "like blood"})
    registry.register("red", 1)
    return registry


def test_an_entry_is_found_by_its_word(colours: Registry[int]) -> None:
    assert colours["red"] == 1
    assert list(colours) == ["red"]
    assert "red" in colours
    assert "blue" not in colours


def test_an_unknown_word_is_refused_with_the_nearest(colours: Registry[int]) -> None:
    with pytest.raises(ConfigError, match=r"^unknown colour 'Rad': use red; did you mean red\?$"):
        colours["Rad"]


def test_a_new_word_needs_a_summary_and_may_not_be_taken(colours: Registry[int]) -> None:
    with pytest.raises(ConfigError, match="colour 'blue' needs a summary"):
        colours.register("blue", 2)
    colours.register("blue", 2, summary="like the sky")
    assert colours.summaries == {"red": "like blood", "blue": "like the sky"}
    with pytest.raises(ConfigError, match="colour 'blue' is registered already"):
        colours.register("blue", 3)
    colours.unregister("blue")
    assert colours.summaries == {"red": "like blood"}
    assert len(colours) == 1
