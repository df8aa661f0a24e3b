"""Where and in which precision to compute."""

import ctypes
import sys
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
    if name == "cpu":
        keep_freed_memory()
    return torch.device(name)


def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed tensors (up to 2 GiB at the end of the heap).

    glibc hands feature maps back to the system and asks for them again, page by page, in every pass; on a
    CPU that is nearly half of the time. Other C libraries lack `mallopt`, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A block that computes in bf16 where asked to; weights stay fp32. See `pipeline.runtime.precision` for auto."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def make_deterministic(device: torch.device) -> None:
    """Same seed, same machine, same bytes; an operation that cannot says so in a warning."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
