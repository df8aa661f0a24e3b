"""fp32 or bf16: `auto` takes bf16 where the device computes it natively. Weights stay float32 in either."""

from dataclasses import replace

import torch

from pipeline.params import Params
from pipeline.runtime.devices import pick_device
from pipeline.runtime.distributed import agreed, share

NATIVE_ON_CPU = ("amx_bf16", "avx512_bf16", "bf16")
"""Any of these instruction sets: x86, x86, ARM, by PyTorch's names."""


def resolved(params: Params) -> Params:
    """The params with `train.precision` fp32 or bf16, the same in all processes that share the work."""
    if params.train.precision != "auto":
        return params
    native = share().leads and has_native_bf16(pick_device(params.train.device))
    chosen = agreed("bf16" if native else "fp32")
    return replace(params, train=params.train.model_copy(update={"precision": chosen}))


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware: CUDA from capability 8.0, CPUs with such instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in NATIVE_ON_CPU)
    return False
