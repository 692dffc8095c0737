"""Scratch buffers whose sizes follow from how oneDNN divides work: threads, caches, reductions."""

from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

import torch

from dse.errors import MemoryModelError

FLOAT = 4  # bytes
PAGE = 4096
USUAL_CACHE_BYTES = 512 * 1024  # where the system doesn't tell
CACHE_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
GEMM_THRESHOLD = 64 * 1024  # multiply-adds a thread below which oneDNN splits by images


@dataclass(frozen=True)
class Machine:
    """All of a machine that decides which scratch a kernel books.

    Attributes:
        threads: that an operator runs on.
        isa: the vector instructions that PyTorch uses, such as ``AVX2``.
        cache_bytes: of one core's second-level cache.
    """

    threads: int
    isa: str = "AVX2"
    cache_bytes: int = USUAL_CACHE_BYTES

    @property
    def slack(self) -> int:
        """Added to each booked buffer for its alignment."""
        return 128

    @property
    def brgemm_bytes(self) -> int:
        """Batch descriptors of the blocked matrix-product kernels."""
        return PAGE + self.threads * (PAGE + 24)

    def threads_of_gemm(
        self,
        *,
        pixels: int,
        input_pixels: int,
        taps: int,
        inputs: int,
        outputs: int,
        images: int,
        groups: int,
    ) -> int:
        """How many threads unfold images at once in the data's gradient."""
        by_image = images * groups
        by_pixel = ceil(input_pixels / 8) * ceil(inputs / 8)
        threads = self.threads
        balanced = _efficiency(by_image, threads) >= _efficiency(by_pixel, threads)
        small = input_pixels * inputs * outputs // threads < GEMM_THRESHOLD
        narrow = pixels // threads < 512 or taps < 64  # noqa: PLR2004  # oneDNN's own constants
        several = images != 1 or groups > 2  # noqa: PLR2004
        return threads if narrow and several and (balanced or small) else 1


def this_machine(*, threads: int | None = None) -> Machine:
    """The machine we run on.

    Args:
        threads: that operators will run on; PyTorch's current number if None.

    Raises:
        MemoryModelError: its instruction set is one whose kernels the rules don't know.
    """
    isa = torch.backends.cpu.get_cpu_capability()
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if isa != "AVX2" or not onednn:
        raise MemoryModelError(
            f"kernel workspace is known for oneDNN on AVX2, not on {isa}: run each operator alone "
            "(--probe), or set ATEN_CPU_CAPABILITY=avx2 and ONEDNN_MAX_CPU_ISA=AVX2"
        )
    return Machine(threads=threads or torch.get_num_threads(), cache_bytes=_cache_bytes())


def round_up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


def split_blocks(blocks: int, *, most: int) -> int:
    """How many blocks are worked on together: halved, or cut in three, until few enough."""
    while blocks > most:
        if blocks % 2 == 0:
            blocks //= 2
        elif blocks % 3 == 0:
            blocks //= 3
        else:
            break
    return blocks


def gemm_column_bytes(
    *,
    column: int,
    inputs: int,
    outputs: int,
    taps: int,
    pixels: int,
    images: int,
    steps: int,
    machine: Machine,
) -> int:
    """The unfolded image of a forward matrix product, as many channels as the cache takes.

    Args:
        column: bytes of the whole unfolded image.
        inputs: channels of one group.
        outputs: channels of one group.
        taps: positions of the kernel.
        pixels: of an output image.
        images: times groups.
        steps: product of the strides.
        machine: what runs it.
    """
    if not column:
        return 0
    cache = machine.cache_bytes // FLOAT
    each = max(1, min(pixels, ceil(pixels * images / machine.threads)))
    fitting = max(1, (cache - outputs * each) // ((steps + taps) * each + taps * outputs))
    channels = max(1, inputs // ceil(inputs / fitting))
    return machine.threads * channels * taps * each * FLOAT + machine.slack


def strided_scratch_bytes(
    *, outputs: int, window: tuple[int, int], odd: bool, machine: Machine
) -> int:
    """Of a strided convolution's data gradient: descriptors, and the output's gradient padded."""
    pages = 6 + 4 * (ceil(prod(window) * outputs / PAGE) - 1)
    base = 3
    if odd:  # rows of different parity are added up in a buffer of their own
        pages, base = pages + 4, 4
    return base * PAGE + machine.threads * (max(pages, 6) * PAGE + 24)


def reducer_bytes(
    *,
    input_blocks: int,
    output_blocks: int,
    together: tuple[int, int],
    images: int,
    bias: bool,
    machine: Machine,
) -> int:
    """What threads hold that compute one weight gradient from different images."""
    if machine.threads == 1:
        return 0
    job = prod(together) * 64
    jobs = ceil(input_blocks / together[0]) * ceil(output_blocks / together[1])
    groups, each, most = _balance(job=job, jobs=jobs, images=images, threads=machine.threads)
    total = 0
    if each > 1:
        total += groups * (each * most * job * FLOAT + 2 * PAGE) + machine.slack
    if bias:
        groups, each, most = _balance(
            job=8, jobs=output_blocks, images=images, threads=machine.threads
        )
        if each > 1:
            total += PAGE + groups * ((each - 1) * most * 8 * FLOAT + 2 * PAGE) + machine.slack
    return total


def _balance(*, job: int, jobs: int, images: int, threads: int) -> tuple[int, int, int]:
    """Groups of threads, threads in a group, and jobs of a group: oneDNN's search, repeated."""
    fewest = max(1, jobs // threads)
    most_together = 8
    groups = min(jobs // fewest, threads)
    each = min(threads // groups, images)
    best = (groups, each, ceil(jobs / groups))
    cost = jobs * job * images
    for count in range(fewest, jobs):
        groups = min(jobs // count, threads)
        each = min(threads // groups, images)
        most = ceil(jobs / groups)
        if each > 1 and most > most_together:
            continue
        current = job * most * (ceil(images / each) + (each != 1))
        if current < cost:
            best, cost = (groups, each, most), current
    return best


def _efficiency(work: int, threads: int) -> float:
    return work / round_up(work, threads)


def _cache_bytes() -> int:
    """Of one core's second-level cache, as Linux reports it; only unfolded images depend on it."""
    if not CACHE_SIZE.exists():
        return USUAL_CACHE_BYTES
    return int(CACHE_SIZE.read_text().strip().removesuffix("K")) * 1024
