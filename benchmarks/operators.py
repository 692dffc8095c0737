"""Is every operator traced as the CPU runs it? Each alone, against the allocator.

    python benchmarks/operators.py

Every operator of PyTorch's own test database runs forward and backward on its first sample input,
in a network of that operator alone (needs the package `expecttest`). The prediction is that of the
convention `allocator`. Results are appended to a JSON-lines file, so an interrupted run goes on
where it stopped; the table is written at the end.
"""

import argparse
import json
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from dse.memory.measure import measure_peak
from dse.memory.probed import probed_timeline
from dse.step.settings import StepSettings

HERE = Path(__file__).parent
RECORDS = HERE / "operators.jsonl"
STEP = StepSettings(optimizer="sgd")


class Alone(nn.Module):
    """One operator, with its arguments as parameters and buffers."""

    def __init__(self, function: Any, arguments: Any) -> None:
        super().__init__()
        self.function = function
        self.leaves, self.form = tree_flatten(arguments)
        for index, leaf in enumerate(self.leaves):
            if isinstance(leaf, Tensor):
                self.leaves[index] = name = f"argument{index}"
                if leaf.requires_grad:
                    self.register_parameter(name, nn.Parameter(leaf.detach().clone()))
                else:
                    self.register_buffer(name, leaf.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return the sum of everything differentiable that the operator returns."""
        tensors = {name for name, _ in self.named_parameters()}
        tensors |= {name for name, _ in self.named_buffers()}
        leaves = [
            # In-place operators may not change a parameter.
            getattr(self, leaf) * images.new_ones(()) if leaf in tensors else leaf
            for leaf in self.leaves
        ]
        args, kwargs = tree_unflatten(leaves, self.form)
        found = tree_leaves(self.function(*args, **kwargs))
        return sum(
            each.abs().sum() for each in found if isinstance(each, Tensor) and each.requires_grad
        )


def main() -> None:
    """Run the operators that are still missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of operators")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    done = {record["operator"] for record in read()}
    for info in op_db:
        name = f"{info.name}.{info.variant_test_name}".rstrip(".")
        if name in done or (only and name not in only):
            continue
        if not info.supports_autograd or not info.supports_dtype(torch.float32, "cpu"):
            continue
        append({"operator": name, "outcome": "crashed"})  # replaced below, unless it did
        append({"operator": name} | compared(info))
    (HERE / "operators.md").write_text(table(list({r["operator"]: r for r in read()}.values())))


def compared(info: Any) -> dict[str, Any]:
    """Predict and measure one operator."""
    images, labels = torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)
    try:
        torch.manual_seed(0)
        samples = info.sample_inputs("cpu", torch.float32, requires_grad=True)
        sample = next(s for s in samples if isinstance(s.input, (Tensor, list, tuple)))
        arguments = ((sample.input, *sample.args), dict(sample.kwargs))
        network = Alone(info.op, arguments)
        measured = measure_peak(
            Alone(info.op, arguments), images, labels, settings=STEP, loss=the_sum, timed_steps=1
        ).peak_bytes
    except (Exception, SystemExit) as error:  # noqa: BLE001  # some need more than one call
        return {"outcome": "doesn't run", "reason": f"{type(error).__name__}: {error}"[:200]}
    try:
        with TemporaryDirectory() as cache:
            predicted = probed_timeline(
                network, images, batch_size=1, settings=STEP, loss=the_sum, cache=Path(cache)
            ).breakdown()
    except Exception as error:  # noqa: BLE001  # the reason is what the table shows
        return {"outcome": "refused", "reason": f"{type(error).__name__}: {error}"[:300]}
    outcome = "exact" if predicted.peak_bytes == measured else "differs"
    return {
        "outcome": outcome,
        "predicted_bytes": predicted.peak_bytes,
        "measured_bytes": measured,
        "at": f"{predicted.phase}, {predicted.operator}",
    }


def the_sum(outputs: Any, _labels: Tensor) -> Tensor:
    """The loss: what the network returns."""
    return outputs


def append(record: dict[str, Any]) -> None:
    """Add a record to the file."""
    with RECORDS.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read() -> list[dict[str, Any]]:
    """All records so far."""
    return (
        [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    )


def table(records: list[dict[str, Any]]) -> str:
    """The records as a Markdown page."""
    counts = Counter(record["outcome"] for record in records)
    failing = counts["doesn't run"]
    compared_with = counts["exact"] + counts["differs"]
    lines = [
        "# Operators alone, predicted against measured",
        "",
        (
            f"Of {len(records)} differentiable entries of PyTorch {torch.__version__}'s operator "
            f"database, {failing} don't run as a training step of their own. Of the "
            f"others, {counts['exact']} of {compared_with} are predicted to the byte (convention "
            f"`allocator`, one sample input each, forward and backward, SGD), "
            f"{counts['refused']} are refused with a reason and {counts['crashed']} crashed. "
            "Sample inputs are tiny: some hundred bytes. The database saves the state of PyTorch's "
            "random numbers, 5,056 bytes, around some random operators: that is the likely reason "
            "where the measured peak is some thousand bytes higher."
        ),
        "",
    ]
    off = [record for record in records if record["outcome"] == "differs"]
    off.sort(key=lambda r: -abs(r["predicted_bytes"] / r["measured_bytes"] - 1))
    lines += ["| differs | predicted over measured | bytes | predicted at |", "|---|---:|---:|---|"]
    for record in off:
        ratio = 100 * (record["predicted_bytes"] / record["measured_bytes"] - 1)
        difference = record["predicted_bytes"] - record["measured_bytes"]
        lines.append(
            f"| {record['operator']} | {ratio:+.1f} % | {difference:+,} | {record['at']} |"
        )
    lines += ["", "| refused | reason |", "|---|---|"]
    for record in records:
        if record["outcome"] in ("refused", "crashed"):
            reason = record.get("reason", "the process ended").replace("|", "/").replace("\n", " ")
            lines.append(f"| {record['operator']} | {reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
