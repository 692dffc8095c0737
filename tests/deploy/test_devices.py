import re
from pathlib import Path

import pytest

from dse.deploy.devices import CONFIG_VARIABLE, find_device, known_devices, user_file
from dse.deploy.limits import Limit, device_notes
from dse.errors import ConfigError
from support.runs import MIB, make_records

OWN = """
[my-board]
runtime = "pytorch"
ram = { size = "256 MiB", basis = "manufacturer", source = "its data sheet" }
free = { size = "100 MiB", basis = "measured", source = "free -m" }
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path))
    return tmp_path / "devices.toml"


def test_the_packaged_devices_say_where_their_figures_are_from() -> None:
    known = known_devices()
    assert {"raspberry-pi-zero-2-w", "jetson-orin-nano-8gb", "stm32h743", "esp32-s3"} <= set(known)
    for device in known.values():
        assert 0 < device.free.size < device.ram.size
        assert device.ram.basis == "manufacturer"
        assert device.free.basis == "estimate"  # none of them was measured


def test_a_name_is_found_whatever_its_case_and_separators() -> None:
    assert find_device("Raspberry Pi Zero 2 W").name == "raspberry-pi-zero-2-w"
    assert find_device("ESP32_S3").name == "esp32-s3"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("esp32s3", "did you mean esp32-s3?"),
        ("raspberry-pi-4", "did you mean raspberry-pi-4-1gb or raspberry-pi-4-2gb or"),
        ("toaster", "'toaster' is not known: dse pick --list-devices lists all"),
        ("", "'' is not known: dse pick"),
    ],
)
def test_an_unknown_device_is_refused_with_the_nearest(given: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(hint)):
        find_device(given)


def test_files_of_the_user_add_and_replace_entries(own_file: Path, tmp_path: Path) -> None:
    assert user_file() == own_file
    assert "my-board" not in known_devices()
    own_file.write_text(OWN, encoding="utf-8")
    assert find_device("my-board").free.size == 100 * MIB
    assert find_device("my-board").title == "my-board"
    other = tmp_path / "other.toml"
    other.write_text(OWN.replace('"100 MiB"', '"90 MiB"'), encoding="utf-8")
    assert find_device("my-board", file=other).free.size == 90 * MIB
    assert find_device("esp32-s3", file=other).name == "esp32-s3"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[my-board", "is not valid TOML"),
        ("my-board = 3", "my-board is not a table"),
        (OWN.replace("my-board", '"My board"'), "[My board] is not a name for a device"),
        (OWN.replace('"100 MiB"', '"100"'), "[my-board]: free.size: '100' has no unit"),
        (OWN.replace('"100 MiB"', '"1 GiB"'), "free.size must be at most ram.size"),
        (OWN.replace('"100 MiB"', "0"), "free.size = 0 must be greater than 0"),
        (OWN.replace("measured", "guess"), 'free.basis = "guess" is not known: write'),
        (OWN.replace("runtime", "runtimes"), "[my-board]: runtimes is an unknown key"),
        (OWN.replace('runtime = "pytorch"', ""), "runtime is missing: add it"),
        (OWN.replace("free = {", "free = 3 # {"), "free = 3 must be a table"),
    ],
)
def test_a_broken_file_is_one_clear_line(own_file: Path, text: str, complaint: str) -> None:
    own_file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        find_device("esp32-s3")
    assert str(caught.value).startswith(str(own_file))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_where_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        find_device("esp32-s3", file=tmp_path / "none.toml")


def test_notes_say_what_is_estimated_and_what_other_runtimes_hold() -> None:
    records = make_records(trials=0, finals=0)
    notes = {name: list(device_notes(find_device(name), records)) for name in known_devices()}
    assert "is an estimate (" in notes["raspberry-pi-zero-2-w"][0]
    assert len(notes["raspberry-pi-zero-2-w"]) == 1
    assert len(notes["esp32-s3"]) == 1
    other = find_device("jetson-orin-nano-8gb")
    assert len(list(device_notes(other, records, runtime="executorch"))) == 1
    assert "pytorch-cuda, but the run's figures are for cpu" in notes["jetson-orin-nano-8gb"][1]


def test_a_device_is_a_limit_with_a_reserve() -> None:
    device = find_device("esp32-s3")
    limit = Limit.of_device(device)
    assert limit.ram_bytes(unpruned_peak_bytes=1) - limit.reserve_bytes == device.free.size


def test_the_example_of_the_readme_is_an_entry(own_file: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(\[my-board\].*?)```", text, re.DOTALL)
    own_file.write_text(example, encoding="utf-8")
    assert find_device("my-board").free.basis == "measured"
