"""What finetune.py is made of: images, the training step, and what the step holds at its peak."""

import json
import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes notices about its start

import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint
from torchvision.datasets import ImageFolder

Recipe = dict[str, Any]
Batch = tuple[Tensor, Tensor]

VALIDATION_FOLDERS = ("val", "valid", "validation", "test")
VALIDATION_SHARE = 0.2
WARM_UP_SHARE = 0.3
AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss
FORWARD_BATCH = 32
LOGITS = ("logits", "out", "output", "pred", "predictions")


def read(
    root: Path, _table: Path | None, recipe: Recipe, *, seed: int
) -> tuple[list[str], Any, Any]:
    """Return the labels, and the images to train on and to validate on; see `image_folder`."""
    return image_folder(root, recipe, seed=seed)


def make_loss(_recipe: Recipe, *, device: str) -> Callable[[Any, Tensor], Tensor]:  # noqa: ARG001
    """Return the loss of a network's outputs and the labels."""
    return loss_of


def score(network: nn.Module, data: Any, recipe: Recipe, *, device: str) -> str:
    """Return the accuracy on some images, as text."""
    return f"{100 * accuracy(network, data, recipe, device=device):.1f} %"


def image_folder(root: Path, recipe: Recipe, *, seed: int) -> tuple[list[str], Any, Any]:
    """Return the labels, and the images to train on and to validate on.

    The labels are in the recipe's order if they are the recipe's. Without a folder for validation,
    a fifth of the images is taken.
    """
    if not root.is_dir():
        raise SystemExit(f"{root} is no folder")
    train_root = root / "train" if (root / "train").is_dir() else root
    held_out = next((root / n for n in VALIDATION_FOLDERS if (root / n).is_dir()), None)
    folders = [one.name for one in train_root.iterdir() if one.is_dir()]
    found = sorted(name for name in folders if not name.startswith("."))
    if len(found) < 2:
        raise SystemExit(f"{train_root} needs a folder of images for each label, two or more")
    labels = recipe["labels"] if sorted(recipe["labels"]) == found else found
    order = {name: number for number, name in enumerate(labels)}

    def opened(folder: Path) -> ImageFolder:
        try:
            data = LabelFolder(str(folder), transform=lambda one: pixels(one, recipe))
        except FileNotFoundError as error:  # a label without images
            raise SystemExit(str(error)) from error
        if unknown := sorted(set(data.classes) - set(order)):
            raise SystemExit(f"{folder} has the label {unknown[0]!r}, which {train_root} lacks")
        data.samples = [(path, order[data.classes[label]]) for path, label in data.samples]
        return data

    train = opened(train_root)
    if held_out is not None and train_root != root:
        validation: Any = opened(held_out)
    else:
        positions = list(range(len(train)))
        random.Random(seed).shuffle(positions)
        cut = round(VALIDATION_SHARE * len(train))
        validation = torch.utils.data.Subset(train, positions[:cut])
        train = torch.utils.data.Subset(train, positions[cut:])
    if not len(validation):
        raise SystemExit(f"{root} leaves no image for validation")
    if len(train) < recipe["batch_size"]:
        raise SystemExit(f"{len(train)} images are fewer than a batch of {recipe['batch_size']}")
    return list(labels), train, validation


class LabelFolder(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """Image files by label; hidden folders are no labels."""

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Return the labels of a folder, and their numbers."""
        names = sorted(one.name for one in Path(directory).iterdir() if one.is_dir())
        names = [name for name in names if not name.startswith(".")]
        return names, {name: number for number, name in enumerate(names)}


def load_network(
    build: Callable[..., nn.Module], folder: Path, labels: list[str], recipe: Recipe
) -> nn.Module:
    """Return the bundle's network; for other labels than its own, with a new output layer."""
    tensors = load_file(folder / "weights.safetensors")
    if labels == recipe["labels"]:
        network = build()
    elif recipe["head"] is None:
        raise SystemExit(f"the folder's labels must be {', '.join(recipe['labels'])}")
    else:
        network = build(len(labels))
        new = f"{recipe['head']}."
        tensors |= {k: v for k, v in network.state_dict().items() if k.startswith(new)}
    network.load_state_dict(tensors)
    return network


def image_shape(recipe: Recipe) -> tuple[int, int, int]:
    """Return channels, height and width of images."""
    if recipe.get("input") is None:
        return 3, recipe["image_size"], recipe["image_size"]
    shape = recipe["input"]["shape"]
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise SystemExit(f"the network takes samples of shape {shape}, not images")
    return tuple(shape)


def pixels(image: Image.Image, recipe: Recipe) -> Tensor:
    """Return an upright image's centre, scaled: (channels, height, width) uint8."""
    channels, height, width = image_shape(recipe)
    how = recipe["preprocessing"]
    image = ImageOps.exif_transpose(image).convert("RGB")
    image = image if channels == 3 else image.convert("L")
    if image.width * height <= image.height * width:
        kept = (float(image.width), image.width * height / width)
    else:
        kept = (image.height * width / height, float(image.height))
    kept = tuple(one * how.get("crop", 1.0) for one in kept)
    left, top = (image.width - kept[0]) / 2, (image.height - kept[1]) / 2
    method = Image.Resampling[how.get("interpolation", "bilinear").upper()]
    box = (left, top, left + kept[0], top + kept[1])
    image = image.resize((width, height), method, box=box)
    read = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return read.view(height, width, channels).permute(2, 0, 1)


def image_batches(data: Any, recipe: Recipe, *, seed: int, device: str) -> Iterator[Batch]:
    """Yield full batches without end, shuffled anew and augmented in each epoch."""
    generator = torch.Generator().manual_seed(seed)
    size, vary = recipe["batch_size"], make_transforms(recipe)
    while True:
        order = torch.randperm(len(data), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, size):
            chosen = [data[position] for position in order[start : start + size]]
            yield _batch(chosen, recipe, generator, device, vary)


def make_transforms(recipe: Recipe) -> Callable[..., Tensor] | None:
    """Return what applies the recipe's transforms to a batch of bytes; None without any."""
    if not recipe.get("transforms"):
        return None
    module = import_module("transforms")  # only such bundles have it
    task = recipe.get("task") or {}
    ignore = task["ignore"] if task.get("kind") == "segmentation" else None
    try:
        made: Callable[..., Tensor] = module.Transforms(
            recipe["transforms"], shape=image_shape(recipe), ignore=ignore
        )
    except ValueError as error:
        raise SystemExit(f"recipe.json: transforms: {error}") from error
    return made


def _batch(
    chosen: list[tuple[Tensor, Any]],
    recipe: Recipe,
    generator: torch.Generator,
    device: str,
    vary: Callable[..., Tensor] | None,
) -> Batch:
    images = torch.stack([augmented(one, recipe["augment"], generator) for one, _ in chosen])
    if vary is not None:
        images = vary(images, seed=int(torch.randint(2**62, (), generator=generator)))
    labels = torch.stack([torch.as_tensor(label) for _, label in chosen])
    if len(images[0]) > image_shape(recipe)[0]:  # the last channel is the mask
        images, labels = images[:, :-1], images[:, -1].long()
    return normalised(images, recipe).to(device), labels.to(device)


def augmented(image: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Mirror an image at random; `crop-flip` also moves it by up to an eighth of its side."""
    if how == "none":
        return image
    if torch.rand((), generator=generator) < 0.5:
        image = image.flip(2)
    if how == "crop-flip":
        height, width = image.shape[1:]
        down, right = height // 8, width // 8
        top = int(torch.randint(0, 2 * down + 1, (), generator=generator))
        left = int(torch.randint(0, 2 * right + 1, (), generator=generator))
        padded = functional.pad(image[None].float(), [right, right, down, down], mode="reflect")[0]
        image = padded[:, top : top + height, left : left + width].to(image.dtype)
    return image


def normalised(images: Tensor, recipe: Recipe) -> Tensor:
    """Return (n, channels, height, width) float32 as the network takes it."""
    mean = torch.tensor(recipe["preprocessing"]["mean"]).view(1, -1, 1, 1) * 255
    std = torch.tensor(recipe["preprocessing"]["std"]).view(1, -1, 1, 1) * 255
    images = images.float().sub_(mean).div_(std)
    return images.contiguous(memory_format=memory_format(recipe))


def memory_format(recipe: Recipe) -> torch.memory_format:
    """Return the layout of images and weights."""
    last = recipe["memory_format"] == "channels-last"
    return torch.channels_last if last else torch.contiguous_format


def set_modes(network: nn.Module, recipe: Recipe) -> None:
    """Put the network into training mode, but for what the recipe keeps in evaluation mode."""
    network.train()
    for name in recipe["evaluating"]:
        network.get_submodule(name).training = False


class Step:
    """One training step of the recipe: calling it with batches and a learning rate runs it."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        device: str,
        loss: Callable[[Any, Tensor], Tensor] | None = None,
    ) -> None:
        network.to(memory_format=memory_format(recipe))
        trained = set(recipe["trained"])
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)
        set_modes(network, recipe)
        for name in recipe["checkpointed"]:
            checkpoint_block(network.get_submodule(name))
        if recipe.get("engine", "stock") != "stock":
            make_lean(network)
        self.network, self.loss = network, loss or loss_of
        self.optimizer = make_optimizer(network, recipe)
        self.in_backward = recipe.get("optimizer_in_backward", False)
        if self.in_backward:
            update_in_backward(self.optimizer)
        self.accumulate: int = recipe["accumulate"]
        self.half = recipe["precision"] == "bf16-mixed"
        self.device_type = torch.device(device).type

    def __call__(self, batches: Iterator[Batch], rate: float) -> float:
        """Run the step, which reads one batch at a time, and return the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for images, labels in islice(batches, self.accumulate):
            with torch.autocast(self.device_type, torch.bfloat16) if self.half else nullcontext():
                loss = self.loss(self.network(images), labels) / self.accumulate
            del images, labels
            torch.autograd.backward(loss)
            total += float(loss.detach())
            del loss
        if not self.in_backward:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(total):
            raise SystemExit(f"the loss is {total}: lower learning_rate in recipe.json")
        return total

    def held_bytes(self, batches: Iterator[Batch], rate: float) -> tuple[int, float]:
        """Run the step, and return the bytes that it held at its peak, and the loss.

        On a CPU these are the tensors that were there before it, plus what PyTorch's allocator gave
        out beyond that. Not before the second step, since the first makes the optimizer's state.
        """
        if self.device_type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            loss = self(batches, rate)
            return torch.cuda.max_memory_allocated(), loss
        state = [value for held in self.optimizer.state.values() for value in held.values()]
        there = [
            *self.network.parameters(),
            *self.network.buffers(),
            *filter(torch.is_tensor, state),
        ]
        before = sum({tensor.data_ptr(): tensor.nbytes for tensor in there}.values())
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            loss = self(batches, rate)
        kineto: Any = profiler.profiler
        events = sorted(kineto.kineto_results.events(), key=lambda one: one.start_ns())
        changes = [one.nbytes() for one in events if one.name() == "[memory]"]
        return before + max(accumulate(changes, initial=0)), loss


def make_lean(network: nn.Module) -> None:
    """Let the network run its training steps as lean.json says."""
    steps = Path(__file__).parent / "lean.json"
    if not steps.is_file():
        raise SystemExit(f"{steps} is missing: without it, the recipe's engine needs dse")
    from lean import lean  # noqa: PLC0415  # only lean bundles have it

    lean(network, json.loads(steps.read_text(encoding="utf-8")))


def logits_of(outputs: Any) -> Tensor:
    """Return the logits: of several outputs the one with such a name, otherwise the first."""
    if isinstance(outputs, Tensor):
        return outputs
    named = outputs if isinstance(outputs, dict) else getattr(outputs, "_asdict", dict)()
    found = [named[n] for n in LOGITS if isinstance(named.get(n), Tensor)]
    every = outputs.values() if isinstance(outputs, dict) else outputs
    return next(one for one in (*found, *every) if isinstance(one, Tensor))


def loss_of(outputs: Any, labels: Tensor) -> Tensor:
    """Return the cross-entropy; auxiliary heads count with a weight of 0.3 each."""
    main = logits_of(outputs)
    loss = functional.cross_entropy(main, labels)
    if isinstance(outputs, Tensor):
        return loss
    for one in outputs.values() if isinstance(outputs, dict) else outputs:
        if isinstance(one, Tensor) and one is not main and one.shape == main.shape:
            loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(one, labels)
    return loss


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of the parameters that train."""
    parameters = [one for one in network.parameters() if one.requires_grad]
    shared: Recipe = {
        "lr": recipe["learning_rate"],
        "weight_decay": recipe["weight_decay"],
        "foreach": recipe["foreach"],
        "fused": recipe["fused"],
    }
    name = recipe["optimizer"]
    if name in ("sgd", "sgd-momentum"):
        momentum = 0.9 if name == "sgd-momentum" else 0.0
        return torch.optim.SGD(parameters, momentum=momentum, nesterov=recipe["nesterov"], **shared)
    if name == "adam":
        return torch.optim.Adam(parameters, **shared)
    if name == "adamw":
        return torch.optim.AdamW(parameters, **shared)
    raise SystemExit(f"recipe.json: optimizer {name!r} is unknown here: add it to make_optimizer")


def update_in_backward(optimizer: torch.optim.Optimizer) -> None:
    """Update each parameter as soon as its gradient is there, and drop the gradient."""

    def update(parameter: Tensor) -> None:
        groups = optimizer.param_groups
        optimizer.param_groups = [{**groups[0], "params": [parameter]}]
        optimizer.step()
        optimizer.param_groups = groups
        parameter.grad = None

    for parameter in optimizer.param_groups[0]["params"]:
        parameter.register_post_accumulate_grad_hook(update)


def checkpoint_block(block: nn.Module) -> None:
    """Keep only a block's input, and compute the block again in the backward pass."""
    forward = block.forward
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    class Again:
        """Leaves running statistics alone, which the first pass has updated already."""

        def __enter__(self) -> None:
            self.before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
            for norm in norms:
                norm.momentum, norm.num_batches_tracked = 0.0, None

        def __exit__(self, *_: object) -> None:
            for norm, (momentum, count) in zip(norms, self.before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    block.forward = lambda *given: checkpoint(
        forward, *given, use_reentrant=False, context_fn=lambda: (nullcontext(), Again())
    )


def rate_at(step: int, *, steps: int, peak: float) -> float:
    """Return the learning rate of a step: up to the peak in a straight line, then half a cosine."""
    rising = max(1, round(WARM_UP_SHARE * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (1 + math.cos(math.pi * (step + 1 - rising) / (steps + 1 - rising))) / 2


def accuracy(network: nn.Module, data: Any, recipe: Recipe, *, device: str) -> float:
    """Return the share of images that are classified correctly."""
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(data), FORWARD_BATCH):
            chosen = [data[n] for n in range(start, min(start + FORWARD_BATCH, len(data)))]
            images = normalised(torch.stack([image for image, _ in chosen]), recipe)
            outputs = logits_of(network(images.to(device)))
            labels = torch.tensor([label for _, label in chosen])
            right += int((outputs.argmax(1).cpu() == labels).sum())
    set_modes(network, recipe)
    return right / max(1, len(data))
