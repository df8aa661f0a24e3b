"""What computing takes: hours, memory, energy."""

import contextlib
import resource
import sys
import time

import torch


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
