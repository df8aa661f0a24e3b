"""Where and in which precision to compute, and what that takes."""

import contextlib
import resource
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from pipeline.errors import UserError


def pick_device(name: str) -> torch.device:
    """The named device, or with `auto` the best one here. Raises UserError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, there in available.items() if there), "cpu")
    elif not available.get(name, True):
        raise UserError(
            f"params.yaml: train.device is {name}, which this machine does not have; allowed: auto, cpu"
        )
    return torch.device(name)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A block that computes in bf16 where asked to; weights stay fp32. See `pipeline.precision` for auto."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def make_deterministic(device: torch.device) -> None:
    """Same seed, same machine, same bytes; an operation that cannot says so in a warning."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


class Meter:
    """What a device has used since the meter was made: hours, peak memory, and energy where the driver tells."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._began = device, time.perf_counter()
        self._energy = energy(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, float]:
        """`device_hours`, `peak_memory_mib` (of the process, or of PyTorch on the GPU), `energy_wh`."""
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device) / 2**20
        else:
            unit = 2**20 if sys.platform == "darwin" else 2**10
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        used = {
            "device_hours": (time.perf_counter() - self._began) / 3600,
            "peak_memory_mib": peak,
        }
        if self._energy is not None and (now := energy(self._device)) is not None:
            used["energy_wh"] = (now - self._energy) / 3600
        return used


def energy(device: torch.device) -> float | None:
    """Joules the GPU has used since its driver was loaded; None where nobody counts them."""
    if device.type != "cuda":
        return None
    with contextlib.suppress(Exception):  # any driver trouble: a figure less, no training lost
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None
