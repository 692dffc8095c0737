"""Which of timm's networks can be pruned, how much of them, and is the result exact?

    pip install timm
    python benchmarks/networks.py --limit 150

Takes one of the smallest networks of each of timm's modules, with random weights: its memory model
as it is, its channel groups and the share of the parameters in them, its outputs after pruning
against masking in double precision, and its peak memory at random widths against a fresh trace.
Every network has a process of its own with a time limit. Results are appended to a JSON-lines file
with the commit of the code, so an interrupted run goes on where it stopped; the table is written
after every network. Results of another commit are not used: the page holds one version's only.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))  # masking and fresh traces, as the tests have them

from dse.errors import DseError, PruningError  # noqa: E402
from dse.memory.model import MemoryModel  # noqa: E402
from dse.pruning.groups import ChannelGroup, survey_channels  # noqa: E402
from dse.pruning.shares import fixed_counts  # noqa: E402
from dse.pruning.surgery import keep_indices, prune  # noqa: E402
from dse.step.settings import StepSettings  # noqa: E402
from support.masking import masked  # noqa: E402
from support.traces import fresh_peak  # noqa: E402

RECORDS = HERE / "networks.jsonl"
CLASSES = 10
SIZES = (64, 128)  # tried before a network's own image size, to save time
WIDTHS = 2  # random widths compared with a fresh trace
BATCH = 2
MUCH = 0.9  # of the parameters
ROUNDING = 1e-9  # relative, in double precision
# One of the smallest networks of each of timm's modules.
NETWORKS = [
    "beit_base_patch16_224",
    "lambda_resnet26t",
    "mobileone_s0",
    "cait_xxs24_224",
    "coat_lite_tiny",
    "convit_tiny",
    "convmixer_1024_20_ks9_p14",
    "convnext_atto",
    "cpubone_nano",
    "crossvit_tiny_240",
    "csatv2",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "davit_tiny",
    "deepseek_vit_412m",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla46_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "mobilenetv2_035",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "eva02_tiny_patch14_224",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "gemma4_vit_167m",
    "ghostnet_050",
    "hardcorenas_a",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "sam2_hiera_tiny",
    "hrnet_w18_small",
    "iformer_t",
    "inception_next_atto",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lcnetv2_small",
    "levit_128s",
    "lowformer_b0",
    "mambaout_femto",
    "coatnet_nano_rw_224",
    "poolformerv2_s12",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "mobilenetv5_base",
    "mobilevitv2_050",
    "mvitv2_tiny",
    "naflexvit_base_patch16_gap",
    "nasnetalarge",
    "nest_tiny",
    "nextvit_small",
    "nf_regnet_b0",
    "pit_ti_224",
    "pnasnet5large",
    "pvt_v2_b0",
    "qwen3_vit_88m",
    "rdnet_tiny",
    "regnetx_002",
    "repghostnet_050",
    "repvit_m0_9",
    "res2net50_48w_2s",
    "resnest14d",
    "resnet10t",
    "resnetv2_18",
    "rexnetr_100",
    "selecsls42",
    "legacy_seresnet18",
    "sequencer2d_s",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_xs",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224",
    "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "vgg11",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_relpos_small_patch16_224",
    "samvit_base_patch16_224",
    "vitamin_small_224",
    "volo_d1_224",
    "ese_vovnet19b_slim_dw",
    "legacy_xception",
    "xception41",
    "xcit_nano_12_p16_224",
]


def main() -> None:
    """Run the comparison and write its table."""
    arguments = parse_arguments()
    if arguments.network:
        print(json.dumps(compared(arguments.network)))
        return
    commit = code_version()
    done = {record["network"] for record in read(commit)}
    for name in arguments.only or NETWORKS:
        if name in done:
            continue
        start = time.perf_counter()
        record = {"commit": commit, "network": name, **in_a_process(name, arguments.limit)}
        with RECORDS.open("a") as file:
            file.write(json.dumps(record) + "\n")
        (HERE / "networks.md").write_text(table(read(commit), commit=commit))
        print(f"{record}, {time.perf_counter() - start:.0f} s", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=150, help="seconds for one network")
    parser.add_argument("--only", nargs="*", help="these networks alone, in this order")
    parser.add_argument("--network", help="compare this one and print its record")
    return parser.parse_args()


def in_a_process(name: str, limit_seconds: float) -> dict[str, Any]:
    """Compare a network in a process of its own."""
    command = [sys.executable, __file__, "--network", name]
    try:
        ended = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=limit_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within {limit_seconds:.0f} s"}
    if ended.returncode:
        return {"failed": (ended.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def compared(name: str) -> dict[str, Any]:
    """Survey one network, and compare its pruned form with masking and its memory with a trace."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, images = built(name)
    record: dict[str, Any] = {"size": images.shape[-1], "as_it_is": as_it_is(network, images)}
    start = time.perf_counter()
    try:
        survey = survey_channels(network, images)
    except PruningError as error:
        return {**record, "refused": str(error), "survey_seconds": time.perf_counter() - start}
    groups = survey.groups
    total = sum(parameter.numel() for parameter in network.parameters())
    reasons = sorted(set(survey.refused.values()), key=list(survey.refused.values()).count)
    record |= {
        "survey_seconds": time.perf_counter() - start,
        "groups": len(groups),
        "share": 1 - sum(fixed_counts(network, groups).values()) / total,
        "whole": len(survey.refused),
        "reason": reasons[-1] if reasons else None,
    }
    rng = np.random.default_rng(0)
    try:
        record["mask_error"] = mask_error(network, images, groups, drawn(groups, rng))
        record["worst_bytes"] = worst_bytes(network, images, groups, rng)
    except DseError as error:
        record["failed"] = str(error)
    return record


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Build a network, and images of the smallest size tried that it runs on."""
    own = timm.create_model(name, num_classes=CLASSES).eval()
    for size in SIZES:
        for options in ({"img_size": size}, None):
            try:
                network = (
                    timm.create_model(name, num_classes=CLASSES, **options) if options else own
                )
                images = torch.randn(BATCH, 3, size, size)
                with torch.no_grad():
                    network.eval()(images)
            except Exception:  # noqa: BLE001, S112  # the network's code may raise anything
                continue
            return network, images
    size = own.default_cfg["input_size"][-1]
    return own, torch.randn(BATCH, 3, size, size)


def as_it_is(network: nn.Module, images: torch.Tensor) -> str:
    """Compile the memory model of the unpruned network."""
    try:
        MemoryModel.compile(network, images, groups=())
    except DseError as error:
        return str(error)
    return "yes"


def drawn(groups: Sequence[ChannelGroup], rng: np.random.Generator) -> list[int]:
    """Any count from the fewest to all, group by group."""
    fewest = [max(1, -(-g.fewest // g.multiple)) for g in groups]
    return [
        int(rng.integers(few, g.channels // g.multiple + 1)) * g.multiple
        for few, g in zip(fewest, groups, strict=True)
    ]


def mask_error(
    network: nn.Module, images: torch.Tensor, groups: Sequence[ChannelGroup], counts: list[int]
) -> float:
    """Largest difference between outputs pruned and masked, over the largest output."""
    whole = network.double().eval()
    pruned = prune(whole, groups=groups, kept=counts)
    kept = {
        group.name: keep_indices(group, count).tolist()
        for group, count in zip(groups, counts, strict=True)
    }
    with torch.no_grad():
        expected = masked(whole, pruned, groups, kept)(images.double())
        difference = pruned(images.double()) - expected
    network.float()
    return float(difference.abs().max() / expected.abs().max())


def worst_bytes(
    network: nn.Module,
    images: torch.Tensor,
    groups: Sequence[ChannelGroup],
    rng: np.random.Generator,
) -> int:
    """Largest difference between predicted and traced peak, over random widths."""
    shell = network.to("meta")
    model = MemoryModel.compile(shell, images, groups=groups)
    worst = 0
    for _ in range(WIDTHS):
        counts = drawn(groups, rng)
        pruned = prune(shell, groups=groups, kept=counts)
        traced = fresh_peak(pruned, tuple(images.shape), step=StepSettings())
        worst = max(worst, abs(int(model.peaks(counts, batch_size=BATCH)) - traced))
    return worst


def code_version() -> str:
    """The last commit that changed the package or this script; nothing may have changed since."""
    paths = ["dse", "tests/support", "benchmarks/networks.py"]
    if git("status", "--porcelain", "--", *paths):
        sys.exit(f"commit the changes of {', '.join(paths)} first: results name their commit")
    return git("log", "-1", "--format=%h", "--", *paths)


def git(*arguments: str) -> str:
    """What git prints about this repository."""
    command = ["git", "-C", str(HERE.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def read(commit: str) -> list[dict[str, Any]]:
    """All records of one version of the code so far."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [record for record in records if record.get("commit") == commit]


def table(records: list[dict[str, Any]], *, commit: str) -> str:
    """The records of one version of the code as a Markdown page."""
    taken = [record for record in records if "share" in record]
    traced = [record for record in taken if "worst_bytes" in record]
    masks = [record for record in taken if "mask_error" in record]
    lines = [
        "# Which networks can be pruned",
        "",
        (
            f"One of the smallest networks of each of {len(records)} of timm's modules, random "
            f"weights, {CLASSES} classes, batch {BATCH}. "
            f"{sum(r.get('as_it_is') == 'yes' for r in records)} have a memory model as they are, "
            f"{len(taken)} can be pruned, {sum(r['share'] >= MUCH for r in taken)} of them with "
            f"at least {100 * MUCH:.0f} % of the parameters in free channel groups. Of "
            f"{len(traced)} compared at {WIDTHS} random widths, "
            f"{sum(not r['worst_bytes'] for r in traced)} differ by 0 bytes from a fresh trace; "
            f"of {len(masks)} pruned in double precision, "
            f"{sum(r['mask_error'] < ROUNDING for r in masks)} equal masking to {ROUNDING:.0e}. "
            f"Commit {commit}, PyTorch {torch.__version__}, timm {timm.__version__}, one thread. "
            f"Written by `python benchmarks/networks.py`. {unfinished(records)}"
        ),
        "",
        (
            "Free: share of the parameters in channel groups that can be pruned. Whole: layers "
            "whose output channels stay as they are, and the most frequent reason. Image: side in "
            "pixels."
        ),
        "",
        "| network | image | as it is | groups | free | bytes off | off masking | whole | why |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in sorted(records, key=lambda record: record["network"]):
        why = record.get("failed") or record.get("refused") or record.get("reason") or ""
        cells = [
            record["network"],
            str(record.get("size", "")),
            record.get("as_it_is", "")[:80].replace("|", "/"),
            str(record.get("groups", "")),
            f"{100 * record['share']:.1f} %" if "share" in record else "",
            str(record.get("worst_bytes", "")),
            f"{record['mask_error']:.0e}" if "mask_error" in record else "",
            str(record.get("whole", "")),
            why.replace("|", "/")[:160],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def unfinished(records: list[dict[str, Any]]) -> str:
    """A sentence on the networks that the list has and the records don't."""
    left = len(set(NETWORKS) - {record["network"] for record in records})
    return f"{left} networks of its list are still to be compared." if left else ""


if __name__ == "__main__":
    main()
