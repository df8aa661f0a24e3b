"""fp32 or bf16: with `auto`, whichever is measured faster on this machine.

Measured once per machine, backbone and input size, on a step of the backbone, and kept beside the checkpoints, so
that the same command computes in the same precision again. Weights and their sums stay float32 in either.
"""

import time
from dataclasses import replace

import torch

from pipeline import backbones, cache
from pipeline.files import read_json, write_json
from pipeline.params import Params
from pipeline.runtime.devices import autocast, pick_device
from pipeline.runtime.distributed import agreed, share
from pipeline.training.checkpoint import environment

GAIN = 1.2
"""How many times faster bf16 must be: below, it is not worth the digits, and noise could choose."""
ROUNDS = 3


def resolved(params: Params) -> Params:
    """The params with `train.precision` fp32 or bf16; `auto` is measured, or remembered."""
    if params.train.precision != "auto":
        return params
    chosen = agreed(_faster(params) if share().leads else "")
    return replace(params, train=params.train.model_copy(update={"precision": chosen}))


def _faster(params: Params) -> str:
    device = pick_device(params.train.device)
    path = cache.store("precision.json")
    known = read_json(path) if path.exists() else {}
    machine = b" ".join(environment()).decode()
    key = f"{params.backbone} {params.input.crop} px, {device.type}, {machine}"
    if key not in known:
        seconds = measure(params.backbone, params.input.crop, device)
        faster = seconds["fp32"] >= GAIN * seconds["bf16"]
        known[key] = {"precision": "bf16" if faster else "fp32", "seconds": seconds}
        write_json(path, known)
    precision: str = known[key]["precision"]
    return precision


def measure(backbone: str, crop: int, device: torch.device) -> dict[str, float]:
    """Seconds of a step of the backbone, forward and backward, in each precision; the least of a few.

    On a CPU those of one thread, so that other work on the machine has no say.
    """
    on_cpu = device.type == "cpu"
    clock, threads = (time.thread_time if on_cpu else time.perf_counter), torch.get_num_threads()
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    torch.set_num_threads(1 if on_cpu else threads)
    try:
        with torch.random.fork_rng(devices=[]):
            model = backbones.build(backbone).train()
            images = torch.rand(2 if on_cpu else 32, 3, crop, crop)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(device, memory_format=torch.channels_last)
        for _ in range(1 + ROUNDS):
            for precision, taken in seconds.items():
                start = clock()
                with autocast(precision, device):
                    loss = model(images).float().mean()
                loss.backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                taken.append(clock() - start)
    finally:
        torch.set_num_threads(threads)
    return {precision: min(taken[1:]) for precision, taken in seconds.items()}
