"""The README of a bundle."""

from dse.candidate import depth_text
from dse.deploy.recipe import Recipe
from dse.units import format_size

README_FILE = "README.md"

_CHANNELS = (1, 3)  # of images
_LEAN = """\
To train it lean in a loop of your own, with the same gradients in less memory, set modes and
`requires_grad` as `training.py` does, and call `lean(network, json.load(open("lean.json")))` of
`lean.py`.

"""


def readme(recipe: Recipe, *, lean: bool = False) -> str:
    """Return a bundle's README: what it holds, its figures, and the commands to run it.

    Args:
        recipe: the bundle's recipe.
        lean: whether the bundle has a `lean.py`.
    """
    state = "fine-tuned" if recipe.fine_tuned else "pruned, not yet fine-tuned"
    trained = (
        "The weights are those after the fine-tuning; running `finetune.py` continues from them."
        if recipe.fine_tuned
        else "The weights are those where the fine-tuning begins, as on the device."
    )
    title = " ".join(filter(None, (recipe.network, depth_text(recipe.drop))))
    return f"""# {_escaped(title)}, {state}

```
pip install torch torchvision safetensors
python finetune.py {arguments(recipe)}
dse verify .
```

The first command installs all that the second needs. The second fine-tunes the network as
`recipe.json` says, on {_folder(recipe)}.
It writes `finetuned.safetensors`, and exits with status 1 if a training step held more memory than
it should. The third needs dse; it checks the files and runs real training steps under a memory
limit. {trained}{_own_code(recipe)}

```python
from network import build
from safetensors.torch import load_file

network = build()
network.load_state_dict(load_file("weights.safetensors"))
```

{_LEAN if lean else ""}{_table(recipe)}

{_samples(recipe)} Outputs are in the order of `labels` there. {_values(recipe)}{_others(recipe)}
"""


def _kind(recipe: Recipe) -> str:
    return "classification" if recipe.task is None else recipe.task.kind


def arguments(recipe: Recipe) -> str:
    """Return what `finetune.py` is given."""
    return (
        "IMAGES --table TABLE.csv" if _kind(recipe) in ("multi-label", "regression") else "IMAGES"
    )


def _folder(recipe: Recipe) -> str:
    """Return what images `finetune.py` is given."""
    match _kind(recipe):
        case "segmentation":
            return (
                "a folder with `images/` and `masks/`\nof the same names (or `train/` and `val/` "
                "with such folders)"
            )
        case "multi-label" | "regression":
            return (
                "a folder of images and a table:\nthe file's name first, then a column for each of "
                "`labels` in `recipe.json`"
            )
    return (
        "a folder of images with a folder for each\nlabel (or `train/` and `val/` with such "
        "folders)"
    )


def _own_code(recipe: Recipe) -> str:
    """Return which modules of the study's own code the commands import."""
    if recipe.task is None:
        return ""
    named = [name for name in (recipe.task.loss, recipe.metric) if ":" in name]
    if not named:
        return ""
    modules = ", ".join(f"`{_escaped(name.partition(':')[0])}`" for name in named)
    return (
        f" The loss or the metric is the\nstudy's own code: copy {modules} here first, and give "
        "`dse verify . --trust`."
    )


def _values(recipe: Recipe) -> str:
    """Return how a regression's outputs are read."""
    if recipe.task is None or recipe.task.std is None:
        return ""
    return "An output times `task.std`, plus\n`task.mean`, is the value in its column's own unit. "


def _samples(recipe: Recipe) -> str:
    """Return what is done with a sample before the network sees it."""
    shape = recipe.input_spec.shape
    if not recipe.input_spec.is_image or shape[0] not in _CHANNELS:
        return (
            f"The network takes samples of {recipe.input_spec.text}, as the study's data gave them."
        )
    grey = "made grey, " if shape[0] == 1 else ""
    return (
        f"Images are turned upright, {grey}cropped in the middle, scaled to "
        f"{shape[2]}\N{MULTIPLICATION SIGN}{shape[1]} pixels and normalised with the mean and "
        "deviation in\n`recipe.json`."
    )


def _table(recipe: Recipe) -> str:
    measure = recipe.measure
    found = measure.score(recipe.scores.get(recipe.metric, recipe.accuracy))
    rows = [
        ("what trains", f"`{_escaped(recipe.scheme)}`"),
        ("optimizer, batch", f"{recipe.optimizer}, {_batch(recipe)}"),
        (f"{measure.title} of these weights", f"{measure.text(found)} (validation part)"),
    ]
    if recipe.accuracy_interval is not None:
        low, high = recipe.accuracy_interval
        rows.append(("accuracy, 95 % (Wilson)", f"{100 * low:.1f} to {100 * high:.1f} %"))
    if (expected := recipe.expected) is not None:
        rows.append(
            (
                f"one more training, 95 % ({len(expected.seed_accuracies)} seeds)",
                measure.interval_text(expected.low, expected.high),
            )
        )
    sizes = [
        (f"a training step holds, predicted ({recipe.convention})", recipe.peak_bytes),
        ("measured at export", recipe.measured_peak_bytes),
        ("unpruned network, predicted", recipe.unpruned_peak_bytes),
        ("RAM for the step", recipe.ram_bytes),
    ]
    rows += [(title, format_size(size)) for title, size in sizes if size is not None]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {title} | {text} |" for title, text in rows)])


def _batch(recipe: Recipe) -> str:
    if recipe.accumulate == 1:
        return f"{recipe.batch_size} images"
    return f"{recipe.accumulate} batches of {recipe.batch_size} images, gradients added up"


def _others(recipe: Recipe) -> str:
    """Return what `finetune.py` does with other labels."""
    if _kind(recipe) == "segmentation":
        return "Masks must hold the\nnumbers of these labels, from 0."
    if recipe.head is None:
        return "For other labels,\n`finetune.py` stops: the output layer can't be replaced."
    return (
        "For other labels,\n`finetune.py` gives the network a new output layer "
        f"(`{_escaped(recipe.head)}`)."
    )


def _escaped(text: str) -> str:
    """Return text that can't end a line or a span of code."""
    return " ".join(text.replace("`", "'").replace("|", "/").split())
