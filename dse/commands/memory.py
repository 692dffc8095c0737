"""`dse memory`: predict the peak of one training step, and explain it."""

from pathlib import Path

from dse.commands import console
from dse.commands import memory_options as options
from dse.commands.memory_show import draw, show
from dse.commands.options import Changes, Json, size_of
from dse.errors import ConfigError

PICTURES = (".pdf", ".png", ".svg")


def memory(
    target: options.Target,
    *,
    scheme: options.Scheme = None,
    lora_rank: options.LoraRank = None,
    lora_alpha: options.LoraAlpha = None,
    lora_targets: options.LoraTargets = None,
    batch: options.Batch = None,
    image_size: options.ImageSize = None,
    input_shape: options.InputShape = None,
    optimizer: options.Optimizer = None,
    classes: options.Classes = None,
    ratio: options.Ratio = None,
    drop: options.Drop = None,
    candidate: options.CandidateFile = None,
    convention: options.Convention = "tensors",
    element_bits: options.ElementBits = 32,
    accumulate: options.Accumulate = None,
    checkpointing: options.Checkpointing = None,
    engine: options.Engine = None,
    precision: options.Precision = None,
    foreach: options.Foreach = None,
    fused: options.Fused = None,
    optimizer_in_backward: options.InBackward = None,
    mode: options.Mode = None,
    changes: Changes = None,
    device: options.Device = None,
    probe: options.Probe = False,
    measure: options.Measure = False,
    explain: options.Explain = False,
    ram: options.Ram = None,
    picture: options.Picture = None,
    as_json: Json = False,
) -> None:
    """Predict the peak memory of one training step.

    A study sets the step; flags override it. The defaults in brackets are those of a network
    without a study. Nothing is downloaded, since memory doesn't depend on the weights' values.

    \b
    Examples:
      dse memory torchvision:mobilenet_v2
      dse memory torchvision:resnet18 --scheme last --batch 32 --measure
      dse memory timm:vit_tiny_patch16_224 --scheme lora --lora-rank 4
      dse memory torchvision:mobilenet_v2 --ratio 0.5 --json
      dse memory torchvision:resnet18 --drop layer3.1,layer4.1
      dse memory digits --optimizer adam
      dse memory torchvision:mobilenet_v2 --explain --ram 512MiB
      dse memory torchvision:mobilenet_v2 --engine lean --ram 128MiB --picture step.png
      dse memory torchvision:resnet18 --convention allocator --measure
    """  # noqa: D301  # \b keeps the lines after it as they are
    ram_bytes = _ram_bytes(ram)
    _check_picture(picture)
    if input_shape is not None and image_size is not None:
        raise ConfigError("--input gives the image size too: leave --image-size out")

    from dse.footprint.footprint import footprint
    from dse.footprint.request import FootprintRequest, StepOverrides
    from dse.inputs import InputSpec

    overrides = StepOverrides(
        scheme=scheme,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_targets=None if lora_targets is None else tuple(lora_targets.split(",")),
        batch_size=batch,
        image_size=image_size,
        optimizer=optimizer,
        accumulate=accumulate,
        checkpointing=checkpointing,
        engine=engine,
        precision=precision,
        foreach=foreach,
        fused=fused,
        optimizer_in_backward=optimizer_in_backward,
        mode=mode,
    )
    request = FootprintRequest(
        target=target,
        overrides=overrides,
        classes=classes,
        ratio=ratio,
        drop=drop,
        candidate_file=candidate,
        changes=tuple(changes or ()),
        convention=convention,
        element_bits=element_bits,
        device=device,
        probe=probe,
        measure=measure,
        explain=explain,
        ram_bytes=ram_bytes,
        inputs=InputSpec.parse(input_shape) if input_shape is not None else None,
    )
    with console.stdout_reserved():
        found = footprint(
            request,
            on_progress=lambda change: console.note(f"trying {change}"),
            on_note=console.note,
        )
        if picture is not None:
            draw(found, picture)
    if as_json:
        console.print_json(found.to_json())
    else:
        show(found)


def _ram_bytes(ram: str | None) -> int | None:
    """Read `--ram`."""
    ram_bytes = None if ram is None else size_of("--ram", ram)
    if ram_bytes == 0:
        raise ConfigError(f"--ram is {ram}: give more than 0 bytes, as in 64MiB")
    return ram_bytes


def _check_picture(path: Path | None) -> None:
    """Refuse a picture whose format is unknown."""
    if path is not None and path.suffix not in PICTURES:
        raise ConfigError(f"--picture {path} must end in {', '.join(PICTURES)}")
