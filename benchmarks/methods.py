"""The time of a training step of every method, relative to CAM's: same backbone, batch and run.

python -m benchmarks.methods                              vgg_small at 96 px, written to benchmarks/methods.json
python -m benchmarks.methods --backbone vgg16 --side 224 --precision bf16 --batch 32 --out other.json

Methods take turns, one step each, so that other work on the machine disturbs all alike; the figure is the
median step and the median of the ratios to CAM's step of the same turn. A step is what the training loop does:
`on_batch`, forward, loss, backward, SGD. Where new heads have a `width`, it is the backbone's in params.yaml.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from tqdm import trange

from benchmarks.boxes import machine
from pipeline import backbones, methods
from pipeline.files import write_json
from pipeline.methods.base import Method
from pipeline.runtime.devices import autocast, pick_device

CLASSES = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="methods; default: all")
    parser.add_argument("--backbone", default="vgg_small", choices=backbones.names())
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/methods.json"))
    options = parser.parse_args()
    device = pick_device("auto")
    names = ["cam", *(n for n in options.names or methods.names() if n != "cam")]
    steps = {name: Step(name, options, device) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in trange(options.turns + 3, desc="turns", leave=False):
        for name, step in steps.items():
            one = step()
            if turn >= 3:
                seconds[name].append(one)
    cam = np.array(seconds["cam"])
    rows = []
    for name, taken in seconds.items():
        ratios = np.array(taken) / cam
        low, high = np.percentile(ratios, (25, 75))
        rows.append(
            {
                "method": name,
                "ms": round(1000 * float(np.median(taken)), 2),
                "ratio": round(float(np.median(ratios)), 3),
                "ratio_quartiles": [round(float(low), 3), round(float(high), 3)],
            }
        )
        print(
            f"{name:8} {rows[-1]['ms']:9.2f} ms  {rows[-1]['ratio']:.3f} × cam  [{low:.3f}, {high:.3f}]"
        )
    settings = {k: getattr(options, k) for k in ("backbone", "side", "batch", "precision", "turns")}
    write_json(
        options.out, {"machine": machine(), "device": str(device), **settings, "steps": rows}
    )


class Step:
    """One training step of one method, on images that lie on the device."""

    def __init__(self, name: str, options: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        self.precision, self.device = options.precision, device
        self.model = build(name, options.backbone).to(device)
        self.model.to(memory_format=torch.channels_last)
        self.model.train()
        self.model.begin_epoch(0.5)
        images = torch.randn(options.batch, 3, options.side, options.side)
        self.images = images.to(device, memory_format=torch.channels_last)
        self.targets = torch.arange(options.batch, device=device) % CLASSES
        self.optimizer = torch.optim.SGD(self.model.parameter_groups(1e-4, 10), momentum=0.9)
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> float:
        self._wait()
        start = time.perf_counter()
        images, targets = self.model.on_batch(self.images, self.targets, self.generator)
        with autocast(self.precision, self.device):
            loss = self.model.loss(self.model(images, targets), targets, F.cross_entropy)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def build(name: str, backbone: str) -> Method:
    """The method as params.yaml sets it."""
    from importlib import import_module

    section: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text())["methods"][name]
    params = import_module(f"pipeline.methods.{name}").Params.model_validate(section)
    return methods.build(name, backbone, "none", CLASSES, params)


if __name__ == "__main__":
    main()
