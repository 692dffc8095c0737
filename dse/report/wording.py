"""Phrases with which plots and tables explain how their numbers came about."""

from dse.candidate import Candidate, engine_text, with_recipe
from dse.measures import Measure
from dse.names import dropped
from dse.results.records import RunRecords
from dse.results.ties import can_test
from dse.step.settings import StepSettings
from dse.units import exact_size, format_size

BYTES_PER_MIB = 2**20
_LONGEST_EXACT = len("1023 MiB")


def mib(size_bytes: float) -> float:
    """Convert bytes to MiB."""
    return size_bytes / BYTES_PER_MIB


def metric_title(measure: Measure) -> str:
    """Name a metric at the beginning of an axis label: "Balanced accuracy"."""
    title = measure.title
    return f"{title[0].upper()}{title[1:]}"


def decimals(values: list[float]) -> int:
    """Return how many decimals show three digits of the smallest value, from 0 to 4."""
    smallest = min((value for value in values if value > 0), default=1.0)
    return next((n for n, bound in enumerate((100, 10, 1, 0.1)) if smallest >= bound), 4)


def optimizer_and_extras(step: StepSettings) -> str:
    """Describe what a step's memory depends on besides scheme and sizes: "adamw, contiguous"."""
    phrases = (
        step.optimizer,
        "Nesterov" if step.nesterov else "",
        f"weight decay {step.weight_decay:g}" if step.weight_decay else "",
        step.memory_format,
        f"{step.accumulate} batches accumulated" if step.accumulate > 1 else "",
        "checkpointed by block" if step.checkpointing == "blocks" else "",
        engine_text(step.engine) if step.lean else "",
        step.precision if step.precision != "float32" else "",
        "foreach" if step.foreach else "",
        "fused" if step.fused else "",
        "optimizer in the backward pass" if step.optimizer_in_backward else "",
    )
    return ", ".join(phrase for phrase in phrases if phrase)


def regime(records: RunRecords) -> str:
    """Describe how the network is trained, which memory figures depend on."""
    training = records.study.training
    device = "" if training.device == "cpu" else f", on {training.device}"
    return (
        f"scheme {training.scheme}, batch {training.batch_size}, {image_size(records)}, "
        f"{optimizer_and_extras(StepSettings.of(training))}{device}"
    )


def task(records: RunRecords) -> str:
    """Describe task and loss, such as "segmentation, 3 classes, by cross-entropy"."""
    own = records.study.task
    phrases = [own.kind, records.outputs_text, f"by {own.loss_name}"]
    if own.label_smoothing:
        phrases.append(f"labels smoothed by {own.label_smoothing:g}")
    for name, weights in (("classes", own.class_weights), ("positives", own.positive_weights)):
        if weights:
            given = weights if isinstance(weights, str) else ", ".join(f"{w:g}" for w in weights)
            phrases.append(f"{name} weighted ({given})")
    if own.kind == "regression" and own.standardise:
        phrases.append("columns standardised")
    return ", ".join(phrases)


def image_size(records: RunRecords, candidate: Candidate | None = None) -> str:
    """Return the image size in pixels, or the shape of other samples, as text.

    Args:
        records: the run.
        candidate: a candidate that may have an image size of its own.
    """
    study = records.study
    data = (study if candidate is None else with_recipe(study, candidate)).data
    if data.input is not None and not data.resizable:
        return f"samples of {'x'.join(map(str, data.input))}"
    pixels = data.image_size
    return f"{pixels}\N{MULTIPLICATION SIGN}{pixels} px"


def origin(records: RunRecords) -> list[str]:
    """Return short phrases on what a plot shows and which settings its memory figures hold for."""
    study = records.study
    free = ", ".join(records.joint).replace("_", " ")
    return [
        study.name,
        f"{study.network.name} on {study.data.name}",
        f"unless noted: {regime(records)}" if free else regime(records),
        *([f"searched besides ratios: {free}"] if free else []),
        f"convention {records.convention}",
    ]


def short_recipe(candidate: Candidate) -> str:
    """Abbreviate how a recipe differs from the study's: "last, batch 8 x 4, 24 px, checkpointed".

    Returns:
        The text; empty if nothing differs.
    """
    size, batch, rate = candidate.image_size, candidate.batch_size, candidate.learning_rate
    times = f"\N{MULTIPLICATION SIGN}{candidate.accumulate}" if candidate.accumulate else ""
    phrases = (
        f"{len(left_out)} blocks less" if (left_out := dropped(candidate.drop)) else None,
        candidate.scheme,
        f"batch {batch or ''}{times}" if batch or times else None,
        None if size is None else f"{size} px",
        {"blocks": "checkpointed", "none": "not checkpointed"}.get(candidate.checkpointing or ""),
        None if candidate.engine is None else engine_text(candidate.engine),
        candidate.optimizer,
        None if rate is None else f"lr {rate:g}",
        candidate.importance,
        {True: "least squares", False: "no least squares", None: None}[candidate.reconstruct],
    )
    return ", ".join(phrase for phrase in phrases if phrase)


def seeds(records: RunRecords) -> str:
    """Describe the seeds that candidates are trained with, and their number."""
    own = f"study seed {records.study.seed}"
    return f"{own}, finalists on {final_seeds(records)}" if records.finals else own


def epochs(count: float) -> str:
    """Return a number of epochs as text."""
    return f"{count:g} epoch" if count == 1 else f"{count:g} epochs"


def short_and_full(records: RunRecords) -> str:
    """Explain why figures of the two fidelities aren't comparable."""
    proxy, metric = records.study.proxy, records.measure.title
    return (
        f"Short: {metric} on the selection part after {epochs(proxy.short_epochs)}, one seed. "
        f"Full: {metric} on the validation part after {epochs(proxy.full_epochs)}"
        f"{', ' + _mean_of(records) if records.finals else ''}. The images and the length of "
        "training differ: compare figures within a column, not across columns."
    )


def finalists_note(records: RunRecords) -> str:
    """Explain the finalists' figures, and which differences the seeds support."""
    if not records.finals:
        return "Nothing has been fine-tuned in full yet."
    images = records.class_images
    of = "" if images is None else f" of {sum(images.validation):,} images"
    text = (
        f"Fine-tuned in full, {_mean_of(records)}; the change is against the unpruned network, on "
        f"the validation part{of}. "
    )
    if not can_test(records.finals):
        return text + "A test of which of them differ needs at least two seeds."
    return text + (
        "Tied: Welch's t-test over the seeds finds no difference (5 %). It knows the scatter "
        "between trainings, but not how the figures would vary with other images."
    )


def _mean_of(records: RunRecords) -> str:
    seeds = final_seeds(records)
    return "1 seed" if seeds == "1 seed" else f"mean ± standard deviation over {seeds}"


def final_seeds(records: RunRecords) -> str:
    """Return the number of seeds of the finalists, such as "3 seeds" or "1 to 3 seeds"."""
    counts = sorted({len(final.accuracies) for final in records.finals})
    if counts == [1]:
        return "1 seed"
    return " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]])) + " seeds"


def size_label(size_bytes: int) -> str:
    """Return a budget as its author wrote it if that is short: "24 MiB", not "24.0 MiB"."""
    exact = str(exact_size(size_bytes))
    return exact if " " in exact and len(exact) <= _LONGEST_EXACT else format_size(size_bytes)
