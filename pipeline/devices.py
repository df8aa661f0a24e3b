"""Where and in which precision to compute."""

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
