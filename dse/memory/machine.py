"""Describe the properties of a machine that decide how much an operator allocates."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
PREFIXES = ("ATEN_", "CUBLAS", "CUDNN", "DNNL_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "TORCH_")
"""Prefixes of the environment variables by which libraries choose kernels."""


def machine_of(device: str) -> dict[str, str]:
    """Describe this machine, its libraries and PyTorch's current settings for one device.

    Two processes with equal descriptions run the same kernels for the same operator.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``. The device must exist on this machine.
    """
    common = {
        "device": torch.device(device).type,
        "torch": torch.__version__,
        "build": torch.__config__.show(),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "products": torch.get_float32_matmul_precision(),
        "environment": repr(_library_variables(os.environ)),
    }
    if common["device"] == "cuda":
        return common | _gpu(device)
    return common | _cpu()


def _library_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(environment.items()) if name.startswith(PREFIXES)}


def _cpu() -> dict[str, str]:
    return {
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": str(torch.backends.mkldnn.enabled),
        "processor": _processor(),
        "caches": _caches(),
    }


def _gpu(device: str) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "processor": f"{properties.name} {properties.major}.{properties.minor}",
        "memory": str(properties.total_memory),
        "cuda": str(torch.version.cuda),
        "cudnn": str(cudnn.version()),  # type: ignore[no-untyped-call]
        "cudnn_settings": f"{cudnn.enabled} {cudnn.benchmark} {cudnn.deterministic}",
        "tf32": f"{cudnn.allow_tf32} {products.allow_tf32}",
        "threads": str(torch.get_num_threads()),
    }


def processor_model() -> str | None:
    """Return the model of the first processor, as in "Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz".

    Returns:
        None if the system doesn't provide it.
    """
    return _cpu_info().get("model name") or platform.processor() or None


def _processor() -> str:
    """Return the first processor's model and instruction sets, or what Python knows of it."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")
    found = {name: value for name, value in _cpu_info().items() if name in wanted}
    return repr(found) if found else f"{platform.machine()} {platform.processor()}"


@cache
def _cpu_info() -> dict[str, str]:
    """Return the first processor's entries of /proc/cpuinfo. Empty on other systems."""
    try:
        text = CPU_INFO.read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", maxsplit=1)[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


@cache
def _caches() -> str:
    """Return the first processor's cache sizes, by which kernels partition their work."""
    sizes = []
    for file in sorted(CPU_CACHES.glob("index*/size")):
        try:
            sizes.append(file.read_text().strip())
        except OSError:
            continue
    return " ".join(sizes)
