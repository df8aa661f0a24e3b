"""What full supervision reaches on the drawn images: the bound that says they can be localized at all.

python -m benchmarks.supervised          written to benchmarks/supervised.json; a minute or two on a CPU

Trains vgg_small on the training images of the default synthetic set and their true boxes: each cell of
the last map says whether it lies in the box and, if so, how far the four sides are (FCOS, Tian et al.,
ICCV 2019, without its pyramid). The box of the surest cell is scored on the test images.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.boxes import machine
from pipeline import backbones, datasets, packed, params, prepare
from pipeline.datasets import synthetic
from pipeline.evaluation import evaluator, metrics
from pipeline.files import write_json
from pipeline.loading import geometry
from pipeline.loading.loader import Loader
from pipeline.params import Params

RATE = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/supervised.json"))
    options = parser.parse_args()
    settings = params.load()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepared_images(Path(scratch), settings)
        began = time.perf_counter()
        model = trained(prepared, settings, options.epochs)
        seconds = time.perf_counter() - began
        boxes, truth = predicted(model, prepared, settings), true_boxes(prepared, "test", settings)
        iou = metrics.best_iou(boxes, truth)
        centre = evaluator.centre_baseline(prepared, "test", settings.input)
    result = {
        "gt_known_loc_err": round(100 * float((iou < metrics.IOU_CORRECT).mean()), 2),
        "mean_iou": round(float(iou.mean()), 4),
        "centre_box_gt_known_loc_err": round(centre["gt_known_loc_err"], 2),
        "test_images": len(iou),
        "epochs": options.epochs,
        "seconds": round(seconds),
        "seed": settings.seed,
        "machine": machine(),
    }
    print(", ".join(f"{name} {value}" for name, value in result.items() if name != "machine"))
    write_json(options.out, result)


def prepared_images(root: Path, settings: Params) -> Path:
    """The synthetic set of params.yaml, drawn and packed as the stages do it."""
    assert isinstance(settings.data, synthetic.Params)
    raw, prepared = root / "raw", root / "prepared"
    raw.mkdir()
    prepared.mkdir()
    report = datasets.Report()
    synthetic.download(settings.data, raw, report)
    dataset = synthetic.read(settings.data, raw)
    prepare.prepare(dataset, settings.prepare, prepared, workers=1, report=report)
    return prepared


def true_boxes(prepared: Path, split: str, settings: Params) -> list[np.ndarray]:
    return evaluator.truth_on_grid(packed.Split.open(prepared, split), settings.input)


class Detector(nn.Module):
    """vgg_small and one convolution: [B, 3, S, S] → [B, 5, h, w], a logit and log distances in cells."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbones.build("vgg_small")
        self.answer = nn.Conv2d(self.backbone.out_channels, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.answer(self.backbone(images))
        return answer


def centres(count: int, side: int) -> tuple[Tensor, Tensor]:
    """x and y [count, count] of the cells' centres, in pixels of an input of `side`."""
    at = (torch.arange(count) + 0.5) * (side / count)
    y, x = torch.meshgrid(at, at, indexing="ij")
    return x, y


def trained(prepared: Path, settings: Params, epochs: int) -> Detector:
    torch.manual_seed(settings.seed)
    side, batch = settings.input.crop, settings.train.batch_size
    loader = _loader(prepared, "train", settings)
    boxes = torch.from_numpy(np.concatenate(true_boxes(prepared, "train", settings)))
    model = Detector().train()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, nesterov=True)
    steps = len(loader) // batch
    for epoch in range(epochs):
        order = torch.randperm(len(loader))[: steps * batch]
        for step, (images, _, indices) in enumerate(loader.batches(order)):
            share = (epoch * steps + step) / (epochs * steps)
            optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * share)) / 2
            inputs, wanted = geometry.test_batch(images, side), boxes[indices]
            if torch.rand(()) < 0.5:  # mirrored, and the boxes with it
                inputs, mirrored = inputs.flip(3), side - wanted[:, [2, 1, 0, 3]]
                wanted = torch.where(torch.tensor([True, False, True, False]), mirrored, wanted)
            optimizer.zero_grad()
            loss(model(inputs), wanted, side).backward()
            optimizer.step()
    return model.eval()


def loss(answer: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Cross-entropy of the cells in the inner half of the box, and L1 of their log distances.

    answer: [B, 5, h, w]; boxes: [B, 4] in pixels of the input.
    """
    cell = side / answer.shape[-1]
    x, y = centres(answer.shape[-1], side)
    x0, y0, x1, y1 = boxes.T[:, :, None, None]
    distances = torch.stack([x - x0, y - y0, x1 - x, y1 - y], 1)
    near = (x - (x0 + x1) / 2).abs() < (x1 - x0).clamp(min=2 * cell) / 4
    near &= (y - (y0 + y1) / 2).abs() < (y1 - y0).clamp(min=2 * cell) / 4
    near &= (distances > 0).all(1)
    away = (answer[:, 1:] - (distances.clamp(min=0.5) / cell).log()).abs().mean(1)
    return F.binary_cross_entropy_with_logits(answer[:, 0], near.float()) + 2 * away[near].mean()


@torch.no_grad()
def predicted(model: Detector, prepared: Path, settings: Params) -> np.ndarray:
    """One box per test image, float32 [n, 4], in pixels of the input."""
    side, found = settings.input.crop, []
    for images, _, _ in _loader(prepared, "test", settings).batches():
        answer = model(geometry.test_batch(images, side)).flatten(2)
        rows, best = torch.arange(len(answer)), answer[:, 0].argmax(1)
        cells = math.isqrt(answer.shape[2])
        left, up, right, down = (answer[rows, 1:, best].exp() * (side / cells)).T
        x, y = (at.flatten()[best] for at in centres(cells, side))
        found.append(torch.stack([x - left, y - up, x + right, y + down], 1).clamp(0, side))
    return torch.cat(found).numpy()


def _loader(prepared: Path, split: str, settings: Params) -> Loader:
    return Loader(
        prepared,
        split,
        (settings.input.crop, settings.input.crop),
        batch_size=settings.train.batch_size,
        workers=0,
        cache_mib=settings.train.cache_mib,
    )


if __name__ == "__main__":
    main()
