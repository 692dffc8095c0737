"""Fine-tune the network on a folder of images, and check the memory that a training step holds.

python finetune.py IMAGES

IMAGES holds a folder for each label, or train/ and val/ with such folders; for other tasks what
README.md says. Needs torch, torchvision and safetensors. How the network is trained stands in
recipe.json beside this file.
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

import torch

sys.dont_write_bytecode = True
from network import build
from safetensors.torch import save_file
from training import Step, image_batches, load_network, rate_at

HERE = Path(__file__).parent
TOLERANCE = 1.02  # kernels differ between machines in the memory that they need besides tensors


def main() -> int:
    """Fine-tune, save the weights, and return 1 if a step held more than the recipe says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder with a folder of images for each label")
    parser.add_argument("--table", type=Path, help="CSV file with the images' names and targets")
    parser.add_argument("--out", default="finetuned.safetensors")
    parser.add_argument("--epochs", type=float, help="[those of the recipe]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args()
    if given.epochs is not None and not 0 < given.epochs < float("inf"):
        parser.error(f"--epochs is {given.epochs}: it must be above 0")
    if not Path(given.out).absolute().parent.is_dir():
        parser.error(f"--out {given.out}: its folder doesn't exist")

    torch.manual_seed(given.seed)  # a new output layer, dropout
    recipe = json.loads((HERE / "recipe.json").read_text(encoding="utf-8"))
    task = import_module("tasks" if recipe.get("task") else "training")
    labels, train, validation = task.read(given.images, given.table, recipe, seed=given.seed)
    network = load_network(build, HERE, labels, recipe).to(given.device)
    loss = task.make_loss(recipe, device=given.device)
    step = Step(network, recipe, device=given.device, loss=loss)

    epochs = given.epochs or recipe["epochs"]
    batches = image_batches(train, recipe, seed=given.seed, device=given.device)
    steps = max(2, round(epochs * (len(train) // recipe["batch_size"]) / recipe["accumulate"]))
    held = 0
    for number in range(steps):
        rate = rate_at(number, steps=steps, peak=recipe["learning_rate"])
        if number == 1:
            held, found = step.held_bytes(batches, rate)
        else:
            found = step(batches, rate)
        if number % max(1, steps // 10) == 0 or number == steps - 1:
            print(f"step {number + 1} of {steps}: loss {found:.3f}", flush=True)

    tensors = {k: v.cpu().contiguous().clone() for k, v in network.state_dict().items()}
    save_file(tensors, given.out)  # which refuses tensors that share memory
    score = task.score(network, validation, recipe, device=given.device)
    print(f"{score} of {len(validation)} validation images; weights in {given.out}")
    expected = None if recipe.get("task") or recipe["metric"] != "accuracy" else recipe["expected"]
    if expected and labels == recipe["labels"] and given.epochs is None:
        low, high = 100 * expected["low"], 100 * expected["high"]
        print(f"one training on the study's own images gives {low:.1f} to {high:.1f} % (95 %)")
    predicted, measured = recipe["peak_bytes"], recipe["measured_peak_bytes"] or 0
    limit = recipe["ram_bytes"] or TOLERANCE * max(predicted, measured)
    verdict = "within" if held <= limit else "MORE than"
    print(f"a step held {held:,} bytes (predicted {predicted:,}): {verdict} {round(limit):,}")
    return int(held > limit)


if __name__ == "__main__":
    raise SystemExit(main())
