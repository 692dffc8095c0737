import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from dse.config import JointConfig, Study, load_space, load_study, study_toml
from dse.config.files import parse_override
from dse.errors import ConfigError

MINIMAL = """
name = "mine"
[network]
name = "torchvision:resnet18"
[data]
name = "digits"
[search]
budgets = ["1 MiB"]
"""


def write(path: Path, text: str = MINIMAL) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_what_a_file_leaves_out_has_defaults(tmp_path: Path) -> None:
    study = load_study(write(tmp_path / "mine.toml"))
    assert study.seed == 0
    assert study.source_dir == tmp_path
    assert study.network.pretrain is None
    usual = JointConfig(auto=True)
    assert study.space == load_space("auto").model_copy(update={"joint": usual})
    assert study.training.scheme == "full"
    assert study.proxy.full_seeds == 3
    assert study.search.objectives == ("accuracy", "peak_bytes")
    assert study.search.timeout is None


def test_sizes_durations_and_labels_are_read_and_budgets_sorted(tmp_path: Path) -> None:
    overrides = [
        'search.budgets=["2 MiB", 1024, "1.5 MB"]',
        "search.timeout=1h30m",
        "data.labels=[7, 3]",
    ]
    study = load_study(write(tmp_path / "mine.toml"), overrides=overrides)
    assert study.search.budgets == (1024, 1_500_000, 2 * 1024**2)
    assert study.search.timeout == 5400
    assert study.data.labels == ("7", "3")


def test_mean_and_deviation_follow_the_data(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    natural = load_study(path, overrides=["data.name=torchvision:CIFAR10"]).data
    assert natural.mean == (0.485, 0.456, 0.406)
    assert natural.std == (0.229, 0.224, 0.225)
    digits = load_study(path, overrides=["data.std=[1, 2, 3]"]).data
    assert digits.mean[0] == pytest.approx(0.3052)
    assert digits.std == (1.0, 2.0, 3.0)


def test_pretraining_has_defaults_of_its_own(tmp_path: Path) -> None:
    overrides = ["network.weights=pretrain", "data.labels=[1, 2]"]
    study = load_study(write(tmp_path / "mine.toml"), overrides=overrides)
    assert study.network.pretrain is not None
    assert study.network.pretrain.labels is None


def test_weights_set_by_flag_lay_the_files_pretraining_aside() -> None:
    assert load_study("digits", overrides=["network.weights=none"]).network.pretrain is None
    kept = load_study("digits", overrides=["network.weights=pretrain"])
    assert kept == load_study("digits")


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    write(tmp_path / "space.toml", "ratio = [0.0, 0.5]")
    text = MINIMAL.replace('"digits"', '"folder"\nroot = "../images"')
    text = text.replace("[data]", 'weights = "w.safetensors"\n[data]')
    study = load_study(write(folder / "mine.toml", text + '[space]\nname = "../space.toml"'))
    assert study.data.root == tmp_path / "images"
    assert study.network.weights == str(folder / "w.safetensors")
    assert study.space.name == "space"
    assert study.space.ratio == (0.0, 0.5)


def test_paths_set_by_flag_are_relative_to_where_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mine.toml")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    overrides = ["data.name=folder", "data.root=images", "network.weights=w.safetensors"]
    study = load_study(path, overrides=overrides)
    assert study.data.root == elsewhere / "images"
    assert study.network.weights == str(elsewhere / "w.safetensors")
    home = load_study(path, overrides=["data.name=folder", "data.root=~/images"])
    assert home.data.root == Path.home() / "images"


def test_a_data_factory_is_looked_for_beside_the_study(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    assert load_study(path, overrides=["data.name=module:make"]).data.root == tmp_path
    other = load_study(path, overrides=["data.name=module:make", "data.root=/else"])
    assert other.data.root == Path("/else")


def test_a_space_may_be_named_changed_or_written_out(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    usual = {"joint": JointConfig(auto=True)}
    auto = load_space("auto").model_copy(update=usual)
    changed = load_study(path, overrides=["space.multiple=4"]).space
    assert changed == auto.model_copy(update={"multiple": 4})
    named = load_study(path, overrides=["space.name=resnet", "space.floor=16"]).space
    assert (named.name, named.floor, named.group) == ("resnet", 16, load_space("resnet").group)
    inline = load_study(path, overrides=["space.ratio=[0, 0.5]"]).space
    assert (inline.name, inline.multiple, inline.group) == ("inline", 1, ())
    overrides = ["space.name=my own", "space.ratio=[0, 0.5]"]
    assert load_study(path, overrides=overrides).space.name == "my own"


def test_later_overrides_win_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    study = load_study(path, overrides=["training.batch_size=4", "training.batch_size=8"])
    assert study.training.batch_size == 8
    assert path.read_text(encoding="utf-8") == MINIMAL


def test_a_file_in_the_present_folder_goes_before_a_shipped_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load_study("digits").name == "digits"
    (tmp_path / "digits").rmdir()
    write(tmp_path / "digits")
    assert load_study("digits").name == "mine"


def round_trip(study: Study, folder: Path) -> Study:
    return load_study(write(folder / "resolved.toml", study_toml(study)))


def test_a_resolved_study_reads_back_equal_from_another_folder(tmp_path: Path) -> None:
    write(tmp_path / "space.toml", 'ratio = [0, 0.5]\n[[group]]\npattern = "a*"\nfixed = 0.0')
    text = MINIMAL.replace(
        "[data]", "options = {depth = 3, act = 'relu', deep = {x = [1.5]}}\n[data]"
    )
    path = write(tmp_path / "mine.toml", text + '[space]\nname = "space.toml"')
    overrides = ["search.timeout=90s", "data.name=module:make", "network.weights=x.safetensors"]
    study = load_study(path, overrides=overrides)
    (tmp_path / "space.toml").unlink()
    other = tmp_path / "runs"
    other.mkdir()
    read = round_trip(study, other)
    assert read == study
    assert read.source_dir == tmp_path
    assert read.meaning_digest == study.meaning_digest


OPTIONS = st.dictionaries(st.text(max_size=5), st.booleans() | st.integers(-9, 9) | st.text())
CHANGES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "description": st.text(max_size=30),
        "network": st.fixed_dictionaries({"options": OPTIONS}),
        "space": st.fixed_dictionaries(
            {"ratio": st.tuples(*[st.floats(0, 0.999)] * 2).map(sorted).map(tuple)}
        ),
        "training": st.fixed_dictionaries({"learning_rate": st.floats(1e-12, 1e6)}),
        "search": st.fixed_dictionaries(
            {
                "budgets": st.lists(st.integers(1, 2**40), min_size=1, unique=True).map(tuple),
                "timeout": st.floats(1e-3, 1e9),
            }
        ),
    }
)


@given(CHANGES)
def test_any_study_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    base = load_study("digits").model_dump()
    for key, value in changes.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) else value
    study = Study.model_validate(base)
    assert round_trip(study, tmp_path_factory.getbasetemp()) == study


@given(st.integers() | st.booleans() | st.floats(allow_nan=False) | st.text("abc \"'\\=#.é["))
def test_override_values_in_tomls_syntax_are_read_as_toml(value: Any) -> None:
    written = tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
    override = parse_override(f"a.b = {written}")
    assert override.keys == ("a", "b")
    assert override.value == value
    assert type(override.value) is type(value)


WORDS = st.from_regex(r"[a-z][a-z0-9:/. -]*[a-z]", fullmatch=True)


@given(WORDS)
def test_bare_words_are_texts(word: str) -> None:
    if word not in ("true", "false", "inf", "nan"):
        assert parse_override(f"key={word}").value == word


def test_override_values_keep_their_equals_signs() -> None:
    assert parse_override("a=b=c").value == "b=c"
    assert parse_override('a = "b=c"').value == "b=c"
    assert math.isinf(parse_override("a=inf").value)
    assert parse_override("a=").value == ""


KEYS = [
    "name",
    "seed",
    "network",
    "network.name",
    "network.weights",
    "network.options.depth",
    "network.pretrain.labels",
    "data.name",
    "data.root",
    "data.labels",
    "data.mean",
    "data.in_memory_limit",
    "space",
    "space.name",
    "space.ratio",
    "space.group",
    "training.scheme",
    "training.nesterov",
    "training.device",
    "proxy.short_epochs",
    "search.budgets",
    "search.objectives",
    "search.timeout",
    "search.uniform_baselines",
]
VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(),
    st.sampled_from(["folder", "digits", "auto", "a:b", "from:x", "1 MiB", "10m", "x.toml"]),
    st.lists(st.one_of(st.integers(), st.floats(), st.text()), max_size=4),
    st.dictionaries(st.sampled_from(["name", "ratio", "pattern"]), st.integers(), max_size=2),
    st.lists(st.dictionaries(st.sampled_from(["pattern", "fixed"]), st.floats()), max_size=2),
)


@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=3))
def test_any_override_is_taken_or_refused_in_one_line(chosen: list[tuple[str, Any]]) -> None:
    overrides = []
    for key, value in chosen:
        written = tomli_w.dumps({"value": [value]}).removeprefix("value = ").replace("\n", "")
        overrides.append(f"{key}={written.strip()[1:-1].strip().rstrip(',')}")
    with contextlib.suppress(ConfigError):
        try:
            load_study("digits", overrides=overrides)
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1, str(error)  # noqa: PT017 -- most raise none
            raise


@pytest.mark.parametrize("network", ["{}", "0", "[]"])
def test_a_table_given_over_one_of_its_keys_is_refused_by_name(network: str) -> None:
    with pytest.raises(ConfigError, match="network"):
        load_study("digits", overrides=["network.weights=0", f"network={network}"])


def test_the_digest_follows_what_changes_results(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml")
    plain = load_study(path).meaning_digest
    for same in (
        "name=other",
        "description=x",
        "search.trials=3",
        "search.timeout=3",
        "space.name=auto",
    ):
        assert load_study(path, overrides=[same]).meaning_digest == plain
    for same in ("search.finalists=1", "search.uniform_baselines=[0.1]", "data.in_memory_limit=9"):
        assert load_study(path, overrides=[same]).meaning_digest == plain
    for other in ("seed=1", "training.batch_size=3", "search.budgets=[3]", "space.floor=3"):
        assert load_study(path, overrides=[other]).meaning_digest != plain


def test_the_digest_ignores_where_downloads_are_kept_but_not_which_folder_is_read(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "mine.toml")

    def digest(name: str, root: str) -> str:
        study = load_study(path, overrides=[f"data.name={name}", f"data.root={root}"])
        return study.meaning_digest

    assert digest("torchvision:CIFAR10", "/a") == digest("torchvision:CIFAR10", "/b")
    assert digest("folder", "/a") != digest("folder", "/b")


@pytest.mark.parametrize(
    ("written", "joint"),
    [
        ("", JointConfig(auto=True)),
        ("joint = true", JointConfig(auto=True)),
        ("joint = false", None),
        ("[space.joint]", JointConfig(auto=True)),
        ("joint = { fixed_images = true }", JointConfig(auto=True, fixed_images=True)),
        ('joint = { scheme = ["last"] }', JointConfig(auto=False, scheme=("last",))),
        ("joint = { length = { low = 0.5, high = 2.0 } }", None),
    ],
)
def test_recipes_vary_unless_the_study_says_otherwise(
    written: str, joint: JointConfig | None, tmp_path: Path
) -> None:
    text = (tmp_path / "mine.toml", f"{MINIMAL}\n[space]\n{written}\n")
    study = load_study(write(*text))
    if "length" in written:
        assert study.space.joint is not None
        assert not study.space.joint.auto
    else:
        assert study.space.joint == joint
    assert load_study(write(tmp_path / "again.toml", study_toml(study))) == study


def test_a_run_of_an_older_release_searched_over_ratios_alone(tmp_path: Path) -> None:
    assert load_study(write(tmp_path / "mine.toml"), joint=False).space.joint is None
