"""What a convolution on the CPU allocates while it runs: layout copies and scratch, in bytes.

PyTorch hands convolutions to oneDNN, which picks a kernel by shape and layout. Most kernels want
channels in blocks of eight, so a contiguous image is copied into blocks and the result copied
back; channels-last images are taken as they are and only weights are copied. The rules here were
read off what every kernel allocates when run alone on AVX2 (oneDNN 3.12), and off oneDNN's
published sources where a buffer's size follows from a heuristic.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from dse.memory.scratch import (
    FLOAT,
    Machine,
    gemm_column_bytes,
    reducer_bytes,
    round_up,
    split_blocks,
    strided_scratch_bytes,
)

BLOCK = 8  # channels in a block on AVX2
FLAT_CHANNELS = 3  # images of three channels are read in place by the weights' gradient
LARGEST_PADDING = 3  # output columns that a kernel computes together
NATIVE_ELEMENTS = 20480  # a single image up to this size isn't worth oneDNN to PyTorch

ForwardKernel = Literal["blocked", "unit", "depthwise", "brgemm", "gemm"]
DataKernel = Literal["blocked", "unit", "depthwise", "brgemm", "strided", "gemm"]
WeightKernel = Literal["blocked", "unit", "depthwise", "gemm"]


@dataclass(frozen=True)
class Convolution:
    """One two-dimensional convolution in single precision.

    Attributes:
        batch, inputs, outputs, groups: images, channels in and out, and groups of them.
        kernel, stride, padding, image, result: (height, width).
        bias: whether it adds one.
        channels_last: whether oneDNN gets channels-last data.
        copied_inputs, copied_outputs, copied_weights: whether PyTorch first copies them into that
            layout.
    """

    batch: int
    inputs: int
    outputs: int
    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    image: tuple[int, int]
    result: tuple[int, int]
    bias: bool
    channels_last: bool
    copied_inputs: bool = False
    copied_outputs: bool = False
    copied_weights: bool = False

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Pixels of an output image."""
        return self.result[0] * self.result[1]

    @property
    def input_pixels(self) -> int:
        """Pixels of an input image."""
        return self.image[0] * self.image[1]

    @property
    def group_inputs(self) -> int:
        """Input channels of one group."""
        return self.inputs // self.groups

    @property
    def group_outputs(self) -> int:
        """Output channels of one group."""
        return self.outputs // self.groups

    @property
    def input_bytes(self) -> int:
        """Of the images."""
        return self.batch * self.inputs * self.input_pixels * FLOAT

    @property
    def output_bytes(self) -> int:
        """Of the result."""
        return self.batch * self.outputs * self.pixels * FLOAT

    @property
    def weight_bytes(self) -> int:
        """Of the weights."""
        return self.outputs * self.group_inputs * self.taps * FLOAT

    @property
    def bias_bytes(self) -> int:
        """Of the bias, 0 without one."""
        return self.outputs * FLOAT if self.bias else 0

    @property
    def blocked_input_bytes(self) -> int:
        """Of the images with channels in blocks."""
        return self.batch * round_up(self.inputs, BLOCK) * self.input_pixels * FLOAT

    @property
    def blocked_output_bytes(self) -> int:
        """Of the result with channels in blocks."""
        return self.batch * round_up(self.outputs, BLOCK) * self.pixels * FLOAT

    @property
    def copied_bytes(self) -> int:
        """Of what PyTorch copies into the layout before oneDNN begins."""
        return (
            self.copied_inputs * self.input_bytes
            + self.copied_outputs * self.output_bytes
            + self.copied_weights * self.weight_bytes
        )

    @property
    def depthwise(self) -> bool:
        """One channel a group, in and out."""
        return 1 < self.groups == self.inputs == self.outputs

    @property
    def dense(self) -> bool:
        """All outputs see all inputs."""
        return self.groups == 1

    @property
    def pointwise(self) -> bool:
        """A kernel of one tap."""
        return self.taps == 1

    @property
    def strided(self) -> bool:
        """Whether it skips positions."""
        return self.stride != (1, 1)

    @property
    def whole_blocks(self) -> bool:
        """Whether every group's channels fill blocks."""
        return self.group_inputs % BLOCK == 0 and self.group_outputs % BLOCK == 0

    @property
    def divides(self) -> bool:
        """One tap, no padding, and the image is a multiple of the stride."""
        steps = all(
            o * s == i for o, s, i in zip(self.result, self.stride, self.image, strict=True)
        )
        return self.pointwise and self.padding == (0, 0) and (steps or not self.strided)

    @property
    def column_bytes(self) -> int:
        """Of one image unfolded for a matrix product; none where it already is one."""
        if self.pointwise and not self.strided and self.image == self.result:
            return 0
        return self.group_inputs * self.taps * self.pixels * FLOAT


def uses_onednn(conv: Convolution, machine: Machine) -> bool:
    """Whether PyTorch hands this convolution to oneDNN or does it natively."""
    threaded = machine.threads > 1 or conv.batch >= 16  # noqa: PLR2004  # PyTorch's own constants
    worthwhile = threaded or conv.strided or not conv.pointwise
    elements = conv.batch * conv.inputs * conv.input_pixels
    large = min(conv.kernel) > 3 or conv.batch > 1 or elements > NATIVE_ELEMENTS  # noqa: PLR2004
    return worthwhile and (conv.groups > 1 or large)


@lru_cache(maxsize=2**18)
def forward_workspace(conv: Convolution, machine: Machine) -> int:
    """Most bytes that the forward operator holds beyond its inputs and its result.

    Args:
        conv: the convolution.
        machine: what runs it.
    """
    result = conv.output_bytes
    copies = conv.copied_bytes
    if not uses_onednn(conv, machine):
        return copies + _native_forward(conv) - result
    kernel = _forward_kernel(conv)
    if conv.channels_last:
        return (
            copies
            + _brgemm_weight_bytes(
                conv,
                outer=conv.outputs,
                inner=conv.group_inputs,
                columns=conv.result[1],
            )
            + (0 if conv.depthwise else machine.brgemm_bytes)
        )
    if kernel == "gemm":
        column = gemm_column_bytes(
            column=conv.column_bytes,
            inputs=conv.group_inputs,
            outputs=conv.group_outputs,
            taps=conv.taps,
            pixels=conv.pixels,
            images=conv.batch * conv.groups,
            steps=conv.stride[0] * conv.stride[1],
            machine=machine,
        )
        return copies + max(column, result)
    images, weights = conv.blocked_input_bytes, _blocked_weight_bytes(conv)
    if kernel == "blocked" and conv.dense and conv.inputs < BLOCK:
        images, weights = 0, conv.inputs * round_up(conv.outputs, BLOCK) * conv.taps * FLOAT
    scratch = _padded_bias_bytes(conv)
    if kernel == "unit" and conv.strided:
        reduced = machine.threads * round_up(conv.inputs, BLOCK) * conv.pixels * FLOAT
        scratch += reduced + machine.slack
    blocked = conv.blocked_output_bytes
    return copies + max(images + weights + scratch + blocked - result, blocked)


@lru_cache(maxsize=2**18)
def backward_workspace(
    conv: Convolution, machine: Machine, *, data: bool, weights: bool, bias: bool
) -> int:
    """Most bytes that the backward operator holds beyond its inputs and the gradients it returns.

    Args:
        conv: the convolution.
        machine: what runs it.
        data: whether the images' gradient is wanted; it is computed first.
        weights: whether the weights' is.
        bias: whether the bias's is.
    """
    copies = conv.copied_bytes
    kept = (conv.input_bytes if data else 0) + (conv.weight_bytes if weights else 0)
    kept += conv.bias_bytes if bias else 0
    if not uses_onednn(conv, machine):
        return copies + _native_backward(conv, data=data, weights=weights, bias=bias) - kept
    most = _data_bytes(conv, machine) if data else 0
    if weights or bias:
        first = conv.input_bytes if data else 0
        most = max(most, first + _weight_gradient_bytes(conv, machine))
    return copies + max(most, kept) - kept


def _forward_kernel(conv: Convolution) -> ForwardKernel:
    fits = conv.padding[1] <= min(conv.result[1], LARGEST_PADDING)
    if conv.channels_last:
        return "brgemm"
    if conv.depthwise:
        return "depthwise" if fits else "gemm"
    if conv.dense:
        return "unit" if conv.divides else "blocked" if fits else "gemm"
    return "blocked" if fits and conv.whole_blocks else "gemm"


def _data_kernel(conv: Convolution) -> DataKernel:
    if conv.depthwise:
        return "depthwise"
    if conv.dense and conv.strided:
        return "strided"
    if conv.channels_last:
        return "blocked" if conv.strided else "brgemm"
    if conv.dense:
        if conv.pointwise:
            return "unit"
        return "blocked" if conv.padding[1] <= min(conv.image[1], LARGEST_PADDING) else "gemm"
    return "blocked" if conv.whole_blocks else "gemm"


def _weight_kernel(conv: Convolution) -> WeightKernel:
    covered = conv.image[1] >= conv.kernel[1]
    if conv.depthwise:
        small = max(conv.kernel) <= 3 and covered  # noqa: PLR2004  # all that the kernel knows
        skips = conv.strided and (
            conv.pointwise or (conv.padding[1] == 1 and conv.image[1] == conv.kernel[1])
        )
        if small and not skips:
            return "depthwise"
        return "blocked" if conv.channels_last and covered else "gemm"
    if conv.dense and conv.divides:
        return "unit"
    if conv.dense:
        flat = not conv.channels_last and conv.pointwise and conv.inputs < BLOCK
        return "blocked" if covered and not flat else "gemm"
    if conv.channels_last:
        return "blocked" if covered and conv.group_inputs != FLAT_CHANNELS else "gemm"
    return "blocked" if covered and conv.whole_blocks else "gemm"


def _data_bytes(conv: Convolution, machine: Machine) -> int:
    """Most bytes while the data's gradient is computed, that gradient included."""
    kernel, gradient = _data_kernel(conv), conv.input_bytes
    if kernel == "strided":
        weights = _brgemm_weight_bytes(
            conv, outer=conv.inputs, inner=conv.outputs, columns=conv.result[1]
        )
        held = (
            gradient
            + weights
            + strided_scratch_bytes(
                outputs=conv.outputs,
                window=(
                    conv.result[0] + conv.kernel[0] - 1 - conv.padding[0],
                    conv.result[1] + conv.kernel[1] - 1 - conv.padding[1],
                ),
                odd=conv.image[1] % conv.stride[1] != 0,
                machine=machine,
            )
        )
        if conv.channels_last:
            return held
        copied = conv.output_bytes if conv.pixels > 1 else 0
        return max(held + copied, gradient * (3 if conv.input_pixels > 1 else 2))
    if kernel == "brgemm":
        weights = _brgemm_weight_bytes(
            conv, outer=conv.inputs, inner=conv.group_outputs, columns=conv.image[1]
        )
        return gradient + weights + machine.brgemm_bytes + machine.slack
    if kernel == "gemm":
        column = machine.threads_of_gemm(
            pixels=conv.pixels,
            input_pixels=conv.input_pixels,
            taps=conv.taps,
            inputs=conv.group_inputs,
            outputs=conv.group_outputs,
            images=conv.batch,
            groups=conv.groups,
        )
        scratch = column * conv.column_bytes + machine.slack if conv.column_bytes else 0
        return gradient + max(scratch, gradient)
    weights = _blocked_weight_bytes(conv)
    if conv.channels_last:
        return gradient + weights
    blocked = conv.blocked_input_bytes
    return max(conv.blocked_output_bytes + weights + blocked, blocked + gradient)


def _weight_gradient_bytes(conv: Convolution, machine: Machine) -> int:
    """Most bytes while the weights' gradient is computed, it and the bias's included."""
    kernel, gradient, bias = _weight_kernel(conv), conv.weight_bytes, conv.bias_bytes
    finished = 2 * bias + (2 if conv.channels_last else 1) * gradient
    if kernel == "gemm":
        scratch = _gemm_weight_scratch_bytes(conv, machine)
        return gradient + max(scratch + bias, finished)
    images = conv.blocked_input_bytes
    weights = (_block_weight_bytes if kernel == "blocked" else _blocked_weight_bytes)(conv)
    scratch = 0 if kernel == "depthwise" else _padded_bias_bytes(conv)
    if kernel == "blocked" and conv.dense and conv.inputs == FLAT_CHANNELS:
        images, weights = 0, conv.inputs * round_up(conv.outputs, BLOCK) * conv.taps * FLOAT
    if kernel == "unit":
        scratch += _unit_scratch_bytes(conv, machine)
    if conv.channels_last:
        return weights + max(scratch + bias, finished)
    return weights + max(conv.blocked_output_bytes + images + scratch + bias, finished)


def _gemm_weight_scratch_bytes(conv: Convolution, machine: Machine) -> int:
    """Unfolded images and each thread's own gradient, which oneDNN books four times too large."""
    threads = machine.threads
    if conv.pixels // threads >= 256 or (conv.batch == 1 and conv.groups <= 2):  # noqa: PLR2004
        threads = 1
    scratch = threads * FLOAT * conv.weight_bytes + machine.slack
    if conv.column_bytes:
        scratch += threads * conv.column_bytes + machine.slack
    if conv.channels_last:
        scratch += threads * conv.input_pixels * conv.group_inputs * FLOAT + machine.slack
    return scratch


def _unit_scratch_bytes(conv: Convolution, machine: Machine) -> int:
    """The strided image made dense, and what threads add up in the end."""
    input_blocks = round_up(conv.inputs, BLOCK) // BLOCK
    output_blocks = round_up(conv.outputs, BLOCK) // BLOCK
    together = split_blocks(input_blocks, most=9)
    scratch = 0
    if conv.strided:
        channels = conv.inputs if conv.channels_last else together * BLOCK
        scratch += machine.threads * channels * conv.pixels * FLOAT + machine.slack
    return scratch + reducer_bytes(
        input_blocks=input_blocks,
        output_blocks=output_blocks,
        together=(together, split_blocks(output_blocks, most=32)),
        images=conv.batch,
        bias=conv.bias,
        machine=machine,
    )


def _blocked_weight_bytes(conv: Convolution) -> int:
    if conv.depthwise:
        return round_up(conv.groups, BLOCK) * conv.taps * FLOAT
    return _block_weight_bytes(conv)


def _block_weight_bytes(conv: Convolution) -> int:
    """Both sides of every group in blocks, even where a group has one channel."""
    blocked = round_up(conv.group_inputs, BLOCK) * round_up(conv.group_outputs, BLOCK)
    return conv.groups * blocked * conv.taps * FLOAT


def _brgemm_weight_bytes(conv: Convolution, *, outer: int, inner: int, columns: int) -> int:
    """Weights with one side's channels in blocks.

    A dense convolution's block is the one thing here that is estimated: oneDNN scores 24 and 32
    by many costs, of which wasted channels and wasted registers decide nine times in ten.
    """
    if conv.depthwise:
        return round_up(conv.groups, BLOCK) * conv.taps * FLOAT
    if not conv.dense:
        side = round_up(outer // conv.groups, BLOCK) * conv.groups
    elif outer <= 4 * BLOCK:
        side = round_up(outer, BLOCK)
    else:
        wide, narrow = round_up(outer, 4 * BLOCK), round_up(outer, 3 * BLOCK)
        waste_wide, waste_narrow = wide**2 * round_up(columns, 3), narrow**2 * round_up(columns, 4)
        side = wide if waste_wide <= waste_narrow else narrow
    return side * inner * conv.taps * FLOAT


def _padded_bias_bytes(conv: Convolution) -> int:
    if not conv.bias:
        return 0
    if conv.depthwise and not conv.channels_last:
        padded = round_up(conv.outputs, BLOCK)
        return padded * FLOAT + 128 if padded != conv.outputs else 0
    if conv.group_outputs % BLOCK == 0:
        return 0
    return conv.groups * round_up(conv.group_outputs, BLOCK) * FLOAT + 128


def _native_forward(conv: Convolution) -> int:
    """PyTorch's own: unfold all images, or one group after the other and concatenate."""
    columns = conv.batch * conv.column_bytes
    if conv.dense:
        return columns + conv.output_bytes
    slices = conv.input_bytes // conv.groups
    return conv.output_bytes + max(columns + slices, conv.output_bytes)


def _native_backward(conv: Convolution, *, data: bool, weights: bool, bias: bool) -> int:
    columns = conv.batch * conv.column_bytes if weights else 0
    gradients = (conv.input_bytes if data else 0) + (conv.weight_bytes if weights else 0)
    gradients += conv.bias_bytes if bias else 0
    if conv.dense:
        return gradients + columns
    slices = (conv.input_bytes + conv.output_bytes) // conv.groups
    return max(2 * gradients, gradients + slices + columns)
