"""Every wrong input gets one line that names file, key, value and the fix."""

import re
from pathlib import Path

import pytest

from dse.config import load_space, load_study
from dse.errors import ConfigError

GOOD = {
    "top": 'name = "mine"\nseed = 1',
    "network": 'name = "torchvision:resnet18"',
    "data": 'name = "digits"\nlabels = [5, 6, 7]',
    "space": 'name = "auto"',
    "training": "batch_size = 8",
    "proxy": "full_epochs = 2.0",
    "search": 'budgets = ["1 MiB"]',
}


def study_file(folder: Path, **tables: str) -> Path:
    texts = {**GOOD, **tables}
    lines = [texts.pop("top"), *(f"[{name}]\n{text}" for name, text in texts.items())]
    path = folder / "mine.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def refusal(path: str | Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_study(path, overrides=overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("table", "text", "expected"),
    [
        # unknown keys: the nearest beside it, the same name elsewhere, or all that are known
        ("top", 'name = "x"\ntrainng = 1', "trainng is an unknown key: did you mean training?"),
        ("top", 'name = "x"\nbatch_size = 1', "unknown key: did you mean training.batch_size?"),
        (
            "training",
            "batchsize = 8",
            "training.batchsize is an unknown key: did you mean batch_size?",
        ),
        ("network", 'name = "a:b"\nlabels = []', "network.labels is an unknown key: did you mean"),
        ("proxy", "zzz = 1", "proxy.zzz is an unknown key: the keys known here are importance, "),
        (
            "space",
            "[[space.group]]\npatern = 1",
            "space.group[0].patern is an unknown key: did you",
        ),
        ("data", "name = 3", "data.name = 3 must be a text, in quotes"),
        ("network", "name = 3", "network.name = 3 must be a text, in quotes"),
        ("space", 'name = "mobilnet_v2"\nratio = [0.0, 0.5]', "near the shipped search space"),
        ("data", 'name = "folder"\nroot = 3', "data.root = 3 must be a path, in quotes"),
        (
            "data",
            'name = "digits"\nmean = [500, 0, 0]',
            "must be numbers from 0 to 1, one for each channel",
        ),
        ("training", "learning_rate = 1e300", "must be less than or equal to 1000000"),
        # wrong types
        ("training", 'batch_size = "8"', 'training.batch_size = "8" must be a whole number'),
        ("training", "batch_size = 8.5", "training.batch_size = 8.5 must be a whole number"),
        ("training", "batch_size = true", "training.batch_size = true must be a whole number"),
        ("training", "learning_rate = '1e-3'", '= "1e-3" must be a number'),
        ("training", "nesterov = 1", "training.nesterov = 1 must be true or false"),
        ("training", "scheme = 3", "training.scheme = 3 must be a text, in quotes"),
        ("network", "name = 'a:b'\noptions = 3", "network.options = 3 must be a table"),
        ("network", "name = 'a:b'\noptions = {x = [inf]}", "holds a number that isn't finite"),
        ("search", 'budgets = "1 MiB"', 'search.budgets = "1 MiB" must be a list, in square'),
        ("data", "name = 'folder'\nroot = 3", "data.root = 3 must be "),
        ("top", 'name = "x"\nsource_dir = ""', 'source_dir = "" must not be empty'),
        # missing keys
        ("top", "seed = 1", "name is missing: add it"),
        ("search", "trials = 3", "search.budgets is missing: add it"),
        ("data", 'name = "folder"', "data.root is missing"),
        # bounds
        ("top", 'name = "x"\nseed = -1', "seed = -1 must be greater than or equal to 0"),
        ("top", 'name = "a/b"', 'name = "a/b" must fit a folder\'s name'),
        (
            "training",
            "batch_size = 0",
            "training.batch_size = 0 must be greater than or equal to 1",
        ),
        ("training", "learning_rate = 0", "learning_rate = 0 must be greater than 0"),
        ("training", "learning_rate = nan", "learning_rate = NaN must be a finite number"),
        ("training", "learning_rate = inf", "learning_rate = Infinity must be a finite number"),
        ("training", "weight_decay = -1", "weight_decay = -1 must be greater than or equal to 0"),
        ("data", 'name = "digits"\nimage_size = 4', "image_size = 4 must be greater than or equal"),
        ("data", 'name = "digits"\nvalidation_share = 1.0', "validation_share = 1.0 must be less"),
        (
            "data",
            'name = "digits"\nselection_share = 0',
            "selection_share = 0 must be greater than 0",
        ),
        ("proxy", "full_seeds = 0", "proxy.full_seeds = 0 must be greater than or equal to 1"),
        # lists
        ("data", 'name = "digits"\nmean = [0.5]', "mean has 1 numbers for 3 channels"),
        (
            "data",
            'name = "digits"\nmean = [1, 1, 1, 1]',
            "has 4 numbers for 3 channels: give one for each",
        ),
        (
            "data",
            'name = "digits"\nstd = [1, 0, 1]',
            "must be numbers above 0, one for each channel",
        ),
        ("data", 'name = "digits"\nlabels = [5]', "must hold 2 labels or more to tell apart"),
        ("data", 'name = "digits"\nlabels = [5, 6, "5"]', "holds '5' twice: take one out"),
        ("search", "budgets = []", "search.budgets = [] must have at least 1 entry"),
        # sizes and durations
        (
            "search",
            'budgets = ["1 XB"]',
            "search.budgets[0]: '1 XB' is not a size: write",
        ),
        ("search", 'budgets = ["0 MiB"]', "must be greater than 0"),
        ("search", "budgets = [-1]", "search.budgets[0]: -1 is not a size"),
        ("search", 'budgets = [1024, "1 KiB"]', "holds 1024 twice"),
        (
            "search",
            'budgets = [1]\ntimeout = "10 min"',
            "'10 min' is not a duration: write seconds",
        ),
        ("search", "budgets = [1]\ntimeout = 0", "search.timeout = 0 must be greater than 0"),
        # names from a list, or of a form
        (
            "search",
            'budgets = [1]\nsampler = "tpee"',
            'search.sampler = "tpee" is not known: write "front", "tpe", "nsga2"',
        ),
        ("search", 'budgets = [1]\nsampler = "tpee"', 'did you mean "tpe"?'),
        ("training", 'optimizer = "sgd-momentun"', 'did you mean "sgd-momentum"?'),
        ("training", 'memory_format = "nhwc"', '"contiguous" or "channels-last"'),
        (
            "training",
            'scheme = "form:x"',
            'training.scheme = "form:x" is not a scheme: write "full"',
        ),
        ("training", 'scheme = "from:"', "is not a scheme"),
        ("training", 'device = "gpu"', 'training.device = "gpu" is not a device: write "cpu"'),
        ("network", 'name = "resnet18"', 'network.name = "resnet18" is no network: write "torchv'),
        ("data", 'name = "CIFAR10"', 'data.name = "CIFAR10" is not a data set: write "digits"'),
        ("proxy", 'importance = "batchnorm-scale"', 'did you mean "batch-norm-scale"?'),
        ("search", 'budgets = [1]\nobjectives = ["accuracy"]', "must contain 'peak_bytes'"),
        ("search", 'budgets = [1]\nobjectives = ["acuracy"]', 'did you mean "accuracy"?'),
        ("search", "budgets = [1]\nuniform_baselines = [1.0]", "must be less than 1"),
        # several keys together
        (
            "training",
            'nesterov = true\noptimizer = "adam"',
            "training.nesterov needs training.opti",
        ),
        (
            "proxy",
            "short_epochs = 3\nfull_epochs = 2",
            "proxy.short_epochs must not be above proxy",
        ),
        (
            "data",
            'name = "folder"\nroot = "~nobody-here/x"',
            "data.root = '~nobody-here/x': ~nobody-here/x names no home folder",
        ),
        ("data", 'name = "folder"\nroot = "a\\u0000"', "data.root = 'a\\x00' is not a path"),
        ("data", 'name = "digits"\nroot = "x"', "data.root has no use with data.name"),
        (
            "network",
            "name = 'a:b'\n[network.pretrain]\nepochs = 3",
            "network.pretrain is only read with",
        ),
        (
            "network",
            "name = 'a:b'\nweights = 'pretrain'\n[network.pretrain]\nlabels = [4, 5, 6]",
            "network.pretrain.labels shares '5', '6' with data.labels",
        ),
        # search spaces
        ("space", "ratio = [0.5, 0.1]", "space.ratio = [0.5, 0.1] must not fall: write [0.1, 0.5]"),
        ("space", "ratio = [0.0, 1.0]", "space.ratio[1] = 1.0 must be less than 1"),
        (
            "space",
            "ratio = [-0.1, 0.5]",
            "space.ratio[0] = -0.1 must be greater than or equal to 0",
        ),
        ("space", "ratio = 0.5", "space.ratio = 0.5 must be a list"),
        ("space", "multiple = 0", "space.multiple = 0 must be greater than or equal to 1"),
        (
            "space",
            'name = "mobilnet_v2"',
            "one of the shipped search spaces: did you mean mobilenet_v2?",
        ),
        ("space", 'name = "absent.toml"', "absent.toml: no such file"),
        ("space", "name = 3", "space.name = 3 must be a text"),
        (
            "space",
            "[[space.group]]\npattern = 'a'\nratio = [0, 0.5]\nfixed = 0.1",
            "space.group[0].fixed stands beside ratio: take one of the two out",
        ),
        ("space", "[[space.group]]\npattern = 'a'", "space.group[0].pattern changes nothing"),
    ],
)
def test_wrong_files(table: str, text: str, expected: str, tmp_path: Path) -> None:
    path = study_file(tmp_path, **{table: text})
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert expected in message


def test_a_good_file_is_taken(tmp_path: Path) -> None:
    assert load_study(study_file(tmp_path)).name == "mine"


def test_pretraining_needs_target_labels(tmp_path: Path) -> None:
    network = GOOD["network"] + '\nweights = "pretrain"'
    path = study_file(tmp_path, network=network, data='name = "digits"')
    assert "data.labels is missing" in refusal(path)


def test_further_errors_are_counted(tmp_path: Path) -> None:
    path = study_file(tmp_path, training="batch_size = 0\nthreads = -1\noptimizr = 'adam'")
    message = refusal(path)
    assert "training.optimizr is an unknown key: did you mean optimizer?" in message
    assert message.endswith("(and 2 more)")


def test_long_values_are_cut_short(tmp_path: Path) -> None:
    path = study_file(tmp_path, training=f'device = "{"x" * 500}"')
    assert len(refusal(path)) < 300 + len(str(path))


def test_what_is_no_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "x"\nseed 3\n', encoding="utf-8")
    assert re.search(rf"^{path}: is not valid TOML: .*line 2, column 6", refusal(path))
    path.write_text(f"seed = {'9' * 5000}", encoding="utf-8")
    assert "is not valid TOML" in refusal(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes("name = 'é'".encode("latin-1"))
    assert refusal(path) == f"{path}: is not a UTF-8 text: save it as UTF-8"


def test_missing_files_and_unknown_names(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.toml") == f"{tmp_path}/no.toml: no such file"
    assert "is neither a file nor one of the shipped studies: did you mean digits?" in refusal(
        "digit"
    )
    assert "the shipped studies are cifar10_mobilenet_v2, digits" in refusal("zzz")
    assert refusal(tmp_path) == f"{tmp_path}: can't be read: it is a folder, not a text file"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.batch_size=x", "training.batch_size must be a whole number"),
        ("trainin.batch_size=1", "trainin is an unknown key: did you mean training?"),
        ("batch_size=1", "batch_size is an unknown key: did you mean training.batch_size?"),
        ("seed=-1", "seed must be greater than or equal to 0"),
        ("seed=[1", "the value is not valid TOML"),
        ("seed.x=1", "seed is not a table, so nothing below it can be set"),
        ("training=3", "training must be a table"),
        ("search.budgets=1 MiB", "search.budgets must be a list"),
        ("search.budgets=['1 XB']", "'1 XB' is not a size"),
        ("space.ratio=[0.9, 0.1]", "space.ratio must not fall: write [0.1, 0.9]"),
        ("space.name=rsnet", "space.name: 'rsnet': is neither a file nor one of the shipped"),
        ("data.root=x", "data.root has no use with"),
        ("network.weights=", "network.weights must have at least 1 character"),
        ("seed", "must read KEY=VALUE"),
        ("=3", "must read KEY=VALUE"),
        ("a..b=3", "must read KEY=VALUE"),
    ],
)
def test_wrong_overrides_are_laid_to_the_flag(override: str, expected: str) -> None:
    message = refusal("digits", override)
    assert message.startswith("--set ")
    assert override in message
    assert expected in message


def test_the_override_at_fault_is_named_and_no_other(tmp_path: Path) -> None:
    path = study_file(tmp_path, training="batch_size = 0")
    assert refusal(path, "seed=3").startswith(f"{path}: training.batch_size = 0 ")
    assert refusal("digits", "seed=3", "proxy.full_seeds=0").startswith(
        "--set proxy.full_seeds=0: "
    )


def test_wrong_space_files_are_named_within_the_study(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("ratio = [0, 2]", encoding="utf-8")
    message = refusal(study_file(tmp_path, space='name = "space.toml"'))
    assert message == f"{tmp_path}/mine.toml: space.name: {space}: ratio[1] = 2 must be less than 1"
    with pytest.raises(ConfigError, match=r"space\.toml: ratio\[1\] = 2 must be less than 1"):
        load_space(space)
    with pytest.raises(ConfigError, match="did you mean resnet"):
        load_space("resnt")


@pytest.mark.parametrize("table", ["data", "network"])
def test_defaults_that_a_wrong_key_leaves_open_are_not_counted(table: str, tmp_path: Path) -> None:
    assert refusal(study_file(tmp_path, **{table: "name = 3"})).endswith("in quotes")
