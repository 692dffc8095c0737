"""What works with which networks: as they are, pruned, measured and trained lean.

    pip install timm transformers mcunet
    python benchmarks/networks.py --limit 300

Takes one of the smallest networks of each of timm's modules, ten small ones of Hugging Face's and
one of MCUNet's search space, with random weights: its memory model as it is; the peak of a real
step against the prediction; gradients and peak of a lean step against the stock ones; its channel
groups and the share of the parameters in them, its outputs after pruning against masking in double
precision, and its peak memory at random widths against a fresh trace (``network_checks.py``). Every
network has a process of its own with a time limit. Results are appended to a JSON-lines file with
the commit of the code, so an interrupted run goes on where it stopped; the table is written after
every network. Results of another commit are not used: the page holds one version's only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from network_checks import BATCH, CLASSES, HUGGING_FACE, STEP_BATCH, WIDTHS

HERE = Path(__file__).parent
RECORDS = HERE / "networks.jsonl"
MUCH = 0.9  # of the parameters
ROUNDING = 1e-9  # relative, in double precision
KINDS = ("heads", "stream", "hidden", "channels")
# One of the smallest networks of each of timm's modules.
NETWORKS = [
    "mcunet",
    *(f"hf:{kind}" for kind in HUGGING_FACE),
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
    """Run the checks and write their table."""
    arguments = parse_arguments()
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
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    parser.add_argument("--only", nargs="*", help="these networks alone, in this order")
    return parser.parse_args()


def in_a_process(name: str, limit_seconds: float) -> dict[str, Any]:
    """Check a network in a process of its own."""
    command = [sys.executable, str(HERE / "network_checks.py"), name]
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


def code_version() -> str:
    """The last commit that changed the package or this script; nothing may have changed since."""
    paths = ["dse", "tests/support", "benchmarks/networks.py", "benchmarks/network_checks.py"]
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
    lines = [
        "# What works with which networks",
        "",
        *summary(records),
        "",
        (
            f"Random weights, {CLASSES} classes, SGD with momentum, one thread, CPU "
            f"({torch.backends.cpu.get_cpu_capability()}); steps are measured with {STEP_BATCH} "
            f"samples, traced with {BATCH}. Commit {commit}, PyTorch {torch.__version__}, "
            f"timm {timm.__version__}, transformers {transformers.__version__}. Written by "
            f"`python benchmarks/networks.py`. {unfinished(records)}"
        ),
        "",
        (
            "Size: pixels a side, or tokens. Allocator: how far the convention `allocator` is from "
            "the measured peak of a real step. Lean: peak measured with the bit-identical "
            "plan of least memory, or with the plan without a budget where the network can't be "
            "traced as a whole (*), over that of the stock step, and whether all gradients have "
            "the same bits. Groups: `heads` of "
            "attention; `stream`, channels that several layers add to, such as an embedding; "
            "`hidden` widths between two linear layers; other `channels`. Free: share of the "
            "parameters in groups. Trace: bytes between the model and a fresh trace at random "
            "widths. Masking: largest difference from masked outputs, in double precision. Whole: "
            "layers whose output channels stay as they are, and the most frequent reason. Depth is "
            "no group: blocks aren't dropped."
        ),
        "",
        (
            "| network | size | as it is | allocator | lean | groups | free | trace | masking "
            "| whole | why |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [row(record) for record in sorted(records, key=lambda record: record["network"])]
    return "\n".join(lines) + "\n"


def summary(records: list[dict[str, Any]]) -> list[str]:
    """How many networks meet each check."""
    taken = [record for record in records if "share" in record]
    traced = [record for record in taken if "worst_bytes" in record]
    masks = [record for record in taken if "mask_error" in record]
    held = [off(record) for record in records if "measured_bytes" in record]
    leaner = [r for r in records if "lean_bytes" in r and "measured_bytes" in r]
    lines = [
        f"Of {len(records)} networks",
        "",
        f"- {sum(r.get('as_it_is') == 'yes' for r in records)} have a memory model as they are;",
        (
            f"- {len(taken)} can be pruned, {sum(r['share'] >= MUCH for r in taken)} of them with "
            f"at least {100 * MUCH:.0f} % of the parameters in free groups;"
        ),
        (
            f"- {sum(not r['worst_bytes'] for r in traced)} of {len(traced)} compared at {WIDTHS} "
            "random widths differ by 0 bytes from a fresh trace;"
        ),
        (
            f"- {sum(r['mask_error'] < ROUNDING for r in masks)} of {len(masks)} pruned in double "
            f"precision equal masking to {ROUNDING:.0e};"
        ),
    ]
    if held:
        lines.append(
            f"- {sum(not each for each in held)} of {len(held)} real steps held to the byte what "
            f"the convention `allocator` predicts (median of the errors' size "
            f"{statistics.median(map(abs, held)):.4f} %, worst {max(held, key=abs):+.3f} %);"
        )
    if leaner:
        shares = [record["lean_bytes"] / record["measured_bytes"] for record in leaner]
        lines.append(
            f"- {len(leaner)} were trained lean, {sum(r['lean_same_bits'] for r in leaner)} with "
            f"gradients of the same bits, {sum(share <= 1 for share in shares)} with no higher "
            f"peak than stock (median {100 * statistics.median(shares):.0f} % of it, which "
            "includes weights, gradients and momentum)."
        )
    return lines


def off(record: dict[str, Any]) -> float:
    """How far the prediction is above the measured peak, in per cent of it."""
    return 100 * (record["predicted_bytes"] / float(record["measured_bytes"]) - 1)


def row(record: dict[str, Any]) -> str:
    """One network's row of the table."""
    failures = ("failed", "refused", "measured_failed", "trained_lean_failed", "pruned_failed")
    why = [str(record[key]) for key in (*failures, "reason") if record.get(key)]
    leaner = ""
    if "lean_bytes" in record and "measured_bytes" in record:
        share = 100 * record["lean_bytes"] / record["measured_bytes"]
        plan = "" if record["lean_budget"] else "*"
        leaner = f"{share:.0f} %{plan}, {'same' if record['lean_same_bits'] else 'other'} bits"
    kinds = record.get("kinds", {})
    cells = [
        record["network"],
        str(record.get("size", "")),
        record.get("as_it_is", "")[:80],
        f"{off(record):+.3f} %" if "measured_bytes" in record else "",
        leaner,
        ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds.get(kind)),
        f"{100 * record['share']:.1f} %" if "share" in record else "",
        f"{record['worst_bytes']} B" if "worst_bytes" in record else "",
        f"{record['mask_error']:.0e}" if "mask_error" in record else "",
        str(record.get("whole", "")),
        "; ".join(why)[:200],
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def unfinished(records: list[dict[str, Any]]) -> str:
    """A sentence on the networks that the list has and the records don't."""
    left = len(set(NETWORKS) - {record["network"] for record in records})
    return f"{left} networks of its list are still to be compared." if left else ""


if __name__ == "__main__":
    main()
