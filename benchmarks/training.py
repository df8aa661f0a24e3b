"""Our training against a plain loop, as the peers of this field write it: images per second, in one run.

python -m benchmarks.training                                     ASS on MobileNetV2, 224 px, batch 32
python -m benchmarks.training --backbone vgg16 --precision bf16 --out benchmarks/training-gpu.json

Both train the same network with the same method on the same JPEG files, 341 × 256 px, drawn on the spot. The
plain loop reads them from a folder: PIL transforms per image in worker processes, NCHW, fp32, masks by a loop
over the batch's images. Ours reads them packed, transforms batches on the device, channels-last, in --precision.

loader   images per second without a network: theirs; ours decoding for every pass; ours from memory
step     of the training step on a batch that is there; its TFLOP/s, and those of a matrix product here
whole    both together, an epoch each in turns, ours decoding; how much of it ours waited for data

Rounds take turns, so that other work on the machine disturbs all alike; the figure is the median.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as peer_transforms
from torchvision.datasets import ImageFolder

from benchmarks.boxes import machine
from benchmarks.methods import CLASSES, build
from pipeline import backbones, packed, params
from pipeline.datasets import NO_BOXES, Entry
from pipeline.files import write_json
from pipeline.loading import geometry
from pipeline.loading.loader import Loader
from pipeline.methods import ass
from pipeline.runtime import precision
from pipeline.runtime.devices import autocast, pick_device
from pipeline.training import loop

RESIZE, CROP, LONG = 256, 224, 341


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="mobilenet_v2", choices=backbones.names())
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/training.json"))
    options = parser.parse_args()
    device = pick_device("auto")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        draw(root, options.images)
        settings = precision.resolved(our_params(root, options))
        chosen = settings.train.precision
        result: dict[str, Any] = {
            "machine": machine(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            **{k: getattr(options, k) for k in ("backbone", "batch", "images", "workers")},
            "method": "ass",
            "precision": chosen,
        }
        peer, ours = Peer(root, options, device), Ours(root, settings, device)
        plain = ours if chosen == "fp32" else Ours(root, with_precision(settings, "fp32"), device)
        result["loader"] = rates(
            {
                "theirs": lambda: exhaust(peer.batches()),
                "ours, decoding": lambda: exhaust(ours.decoding.batches()),
                "ours, from memory": lambda: exhaust(ours.kept.batches()),
            },
            options,
            options.images,
        )
        steps = {"theirs": peer.step, "ours, fp32": plain.step, f"ours, {chosen}": ours.step}
        result["step"] = rates(steps, options, options.batch)
        result["step"]["TFLOP/s"] = achieved(peer, options, result["step"]["images per second"])
        result["step"]["peak TFLOP/s"] = {p: peak(device, p) for p in ("fp32", "bf16")}
        epochs = {"theirs": peer.epoch, "ours, fp32": plain.epoch, f"ours, {chosen}": ours.epoch}
        result["whole"] = rates(epochs, options, options.images)
        result["whole"]["data wait, %"] = round(float(np.median(ours.waits)), 2)
    for part in ("loader", "step", "whole"):
        shown = ", ".join(f"{k} {v:.1f}" for k, v in result[part]["images per second"].items())
        print(f"{part}: {shown} images/s; times theirs: {result[part]['times theirs']}")
    write_json(options.out, result)


def draw(root: Path, images: int) -> None:
    """Soft noise as JPEG files in class folders, and the very same bytes packed."""
    rng = np.random.default_rng(0)
    entries, encoded = [], []
    for i in range(images):
        label = i % 8
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((LONG, RESIZE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
        path = root / "files" / f"class{label}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
        entries.append(Entry(f"class{label}/{i:05d}.jpg", label, "train", NO_BOXES))
        encoded.append(file.getvalue())
    prepared = root / "prepared"
    prepared.mkdir()
    for split in ("train", "val", "test"):
        with packed.Writer(prepared, split, entries if split == "train" else []) as writer:
            for i, content in enumerate(encoded if split == "train" else []):
                writer.add(i, content, (RESIZE, LONG))


def our_params(root: Path, options: argparse.Namespace) -> params.Params:
    """params.yaml with the benchmark's sizes."""
    values = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    values |= {"backbone": options.backbone, "method": "cam"}
    values["input"] |= {"resize": RESIZE, "crop": CROP}
    values["train"] |= {
        "batch_size": options.batch,
        "workers": options.workers,
        "precision": options.precision,
        "learning_rate": 0.0001,
    }
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return params.load(root / "params.yaml")


def with_precision(settings: params.Params, name: str) -> params.Params:
    return replace(settings, train=settings.train.model_copy(update={"precision": name}))


class Ours:
    """The training loop's own epoch, and its parts."""

    def __init__(self, root: Path, settings: params.Params, device: torch.device) -> None:
        self.settings, self.device = settings, device
        torch.manual_seed(0)
        self.model = build("ass", settings.backbone)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(self.model.parameter_groups(1e-4, 10), momentum=0.9)
        self.module = loop.Step(self.model, settings.train, device)
        on_gpu = device.type == "cuda"

        def loader(cache_mib: int) -> Loader:
            return Loader(
                root / "prepared",
                "train",
                (RESIZE, RESIZE),
                batch_size=settings.train.batch_size,
                workers=settings.train.workers,
                cache_mib=cache_mib,
                pin=on_gpu,
            )

        self.decoding, self.kept = loader(0), loader(4096)
        self.batch = next(iter(self.kept.batches()))
        self.waits: list[float] = []

    def step(self) -> None:
        images, labels, _ = self.batch
        self.model.train()
        generator = torch.Generator().manual_seed(0)
        inputs = geometry.train_batch(images.to(self.device), CROP, generator)
        inputs, targets = self.model.on_batch(inputs, labels.to(self.device), generator)
        loss, _ = self.module(inputs.contiguous(memory_format=torch.channels_last), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        wait(self.device)

    def epoch(self) -> None:
        record = loop._epoch(
            self.model,
            self.module,
            self.optimizer,
            self.decoding,
            self.settings,
            1,
            self.device,
            loop.Progress(),
        )
        self.waits.append(record["data_wait"])


class Peer:
    """The plain loop."""

    def __init__(self, root: Path, options: argparse.Namespace, device: torch.device) -> None:
        self.device = device
        normalise = peer_transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        steps = [
            peer_transforms.Resize((RESIZE, RESIZE)),
            peer_transforms.RandomCrop(CROP),
            peer_transforms.RandomHorizontalFlip(),
            peer_transforms.ToTensor(),
            normalise,
        ]
        self.loader = DataLoader(
            ImageFolder(str(root / "files"), peer_transforms.Compose(steps)),
            batch_size=options.batch,
            shuffle=True,
            drop_last=True,
            num_workers=options.workers,
            pin_memory=device.type == "cuda",
        )
        torch.manual_seed(0)
        ours = build("ass", options.backbone)
        assert isinstance(ours.params, ass.Params)
        self.model = PeerASS(ours.backbone, CLASSES, ours.params).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-4, momentum=0.9)
        self.batch = next(iter(self.loader))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.loader

    def step(self, batch: tuple[Tensor, Tensor] | None = None) -> None:
        images, labels = (x.to(self.device) for x in batch or self.batch)
        self.model.train()
        loss = F.cross_entropy(self.model(images, labels).logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()  # every peer prints its loss

    def epoch(self) -> None:
        for batch in self.batches():
            self.step(batch)


class PeerASS(ass.Method):
    """Algorithm 1 as one would write it: image by image."""

    def on_feature(
        self, point: str, features: Tensor, targets: Tensor | None, ratio: float
    ) -> Tensor:
        if point not in self.params.plug_points:
            return features
        attention = features.mean(1, keepdim=True).detach()
        mask = torch.ones_like(attention)
        p = self.params
        for i in range(len(features)):
            a = attention[i, 0]
            top = a.max()
            peak, target = a >= p.hide_threshold * top, a >= p.target_threshold * top
            ys, xs = torch.nonzero(peak, as_tuple=True)
            spread = ys.float().var(unbiased=False) + xs.float().var(unbiased=False)
            count, area = peak.sum().item(), target.sum().item()
            few, wide = ratio**2 * p.min_peak_pixels, ratio**2 * p.dispersion_threshold
            if count >= few and spread.item() >= wide:
                mask[i, 0][peak | (a < p.background_threshold * top)] = 0
            elif area / a.numel() < p.small_target or count / area > p.peak_proportion:
                continue
            else:
                mask[i, 0][peak] = 0
        return features * mask


def rates(
    contenders: dict[str, Callable[[], None]], options: argparse.Namespace, images: int
) -> dict[str, Any]:
    """Images per second of each, in turns after one of warm-up, and how many times the first one's."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    median = {name: images / float(np.median(of)) for name, of in seconds.items()}
    first = next(iter(median.values()))
    return {
        "images per second": {name: round(rate, 2) for name, rate in median.items()},
        "times theirs": {name: round(rate / first, 2) for name, rate in median.items()},
    }


def achieved(peer: Peer, options: argparse.Namespace, per_second: dict[str, float]) -> Any:
    """TFLOP/s of the step at these images per second: three forward passes' worth, as is the custom.

    Counted so since PyTorch's counter takes the backward pass of grouped convolutions for that of full ones.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        peer.model(peer.batch[0].to(peer.device), peer.batch[1].to(peer.device))
    per_image = 3 * counter.get_total_flops() / options.batch
    return {name: round(rate * per_image / 1e12, 4) for name, rate in per_second.items()}


def peak(device: torch.device, name: str) -> float:
    """TFLOP/s of a matrix product: the best of five."""
    side = 8192 if device.type == "cuda" else 1536
    with autocast(name, device):
        a, b = torch.rand(2, side, side, device=device)
        best = 0.0
        for _ in range(6):
            wait(device)
            start = time.perf_counter()
            a @ b
            wait(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - start) / 1e12)
    return round(best, 3)


def exhaust(batches: Iterator[Any]) -> None:
    for _ in batches:
        pass


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
