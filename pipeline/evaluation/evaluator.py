"""A trained model on a split: heatmaps, boxes and how well they fit, batch by batch.

Heatmaps are read, scored and let go, so a split of any size needs the memory of one batch.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline import boxes, packed
from pipeline import heatmaps as generators
from pipeline.boxes import wsoleval
from pipeline.boxes.rules import two_stage
from pipeline.evaluation import metrics
from pipeline.loading import geometry
from pipeline.loading.loader import Loader
from pipeline.methods.base import Method
from pipeline.model.output_cache import Kept
from pipeline.params import Box, Params, TwoStage
from pipeline.params import Heatmaps as HeatmapSettings
from pipeline.runtime import distributed
from pipeline.runtime.devices import autocast

Progress = Callable[[int, int], None]


class Reading(Protocol):
    """Which heatmap is read, and how it is normalised."""

    @property
    def heatmap(self) -> str: ...
    @property
    def heatmaps(self) -> HeatmapSettings: ...
    @property
    def box(self) -> Box: ...


@dataclass(frozen=True)
class Heatmaps:
    """What the network says of a batch.

    logits [B, K]; `raw` float32 [B, Q, h, w], the heatmaps of Q classes as read off the network;
    `size` of the test grid (H, W); `box` with the normalisation; `features` [B, C, h, w], the last feature map
    (None where nobody asked).
    """

    logits: Tensor
    raw: Tensor
    size: tuple[int, int]
    box: Box
    features: Tensor | None

    @cached_property
    def maps(self) -> Tensor:
        """The heatmaps float32 [B, Q, H, W] in 0…1 on the test grid."""
        flat = boxes.resize(self.raw.flatten(0, 1), self.size)
        ivr = self.box.normalise == "ivr"
        flat = boxes.ivr(flat, self.box.ivr_quantile) if ivr else boxes.normalise(flat)
        return flat.unflatten(0, self.raw.shape[:2])


@dataclass(frozen=True)
class Evaluation:
    """One row per image. Boxes are on the test grid (crop × crop), half-open; IoU is NaN without a true box.

    `curve_largest` and `curve_any` [N, T]: best IoU at each of `thresholds` with the true class's map.
    `found` says whether the selection chose a threshold by itself or fell back to the fixed one.
    """

    labels: np.ndarray  # int64 [N]
    top: np.ndarray  # int64 [N, ≤5], best first
    score: np.ndarray  # float32 [N], probability of the predicted class
    boxes_predicted: np.ndarray  # float32 [N, 4]
    boxes_true: np.ndarray  # float32 [N, 4]
    threshold: np.ndarray  # float32 [N], of the predicted class's box
    found: np.ndarray  # bool [N]
    iou_predicted: np.ndarray  # float32 [N]
    iou_true: np.ndarray  # float32 [N]
    curve_largest: np.ndarray  # float32 [N, T]
    curve_any: np.ndarray  # float32 [N, T]

    @classmethod
    def concatenate(cls, parts: list["Evaluation"]) -> "Evaluation":
        columns = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)
        }
        return cls(**columns)


def thresholds_of(params: Params) -> np.ndarray:
    """The thresholds of the curve: 0, 1/T, … below 1."""
    return np.arange(params.evaluate.thresholds, dtype=np.float64) / params.evaluate.thresholds


def selection_of(box: Box, method: Method) -> str:
    """How boxes are chosen: `fixed`, `val` or `two_stage`; `auto` is the method's own way."""
    return method.box_selection if box.selection == "auto" else box.selection


@torch.no_grad()
def heatmaps(
    method: Method,
    inputs: Tensor,
    labels: Tensor | None,
    params: Reading,
    precision: str = "fp32",
) -> Heatmaps:
    """Maps of the predicted class and, where `labels` are given, of the true class.

    inputs: float32 [B, 3, H, W], normalised. The model must be in evaluation mode.
    """
    with autocast(precision, inputs.device):
        outputs = method(inputs.contiguous(memory_format=torch.channels_last))
    logits = outputs.logits.float()
    asked = logits.argmax(1, keepdim=True)
    if labels is not None:
        asked = torch.cat([asked, labels[:, None]], 1)
    how = (params.heatmap, params.heatmaps)
    raw = generators.class_maps(*how, method, inputs, outputs, asked).float()
    size = (inputs.shape[2], inputs.shape[3])
    return Heatmaps(logits, raw, size, params.box, outputs.features.float())


def choose_boxes(
    maps: Tensor, features: Tensor | None, selection: str, threshold: float, settings: TwoStage
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One box per map [B, H, W]: (boxes float32 [B, 4], thresholds float32 [B], found bool [B]).

    features: of the same images; only `two_stage` looks at them.
    """
    batch = maps.cpu().numpy()
    if selection != "two_stage":
        chosen = np.full(len(batch), threshold, np.float32)
        return boxes.boxes_at(batch, threshold), chosen, np.ones(len(batch), bool)
    assert features is not None, "two_stage looks at features"
    picked, levels, found = (x.cpu().numpy() for x in two_stage.select(maps, features, settings))
    fallback = boxes.boxes_at(batch, threshold)
    return (
        np.where(found[:, None], picked, fallback).astype(np.float32),
        np.where(found, levels, threshold).astype(np.float32),
        found,
    )


def evaluate(
    method: Method,
    prepared: Path,
    split: str,
    params: Params,
    *,
    selection: str,
    threshold: float,
    kept: Kept | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Every image of `split`: predicted- and true-class boxes, their IoU, and the threshold curve.

    kept: where the network's answers are taken from if they are there, and put if not.
    Under torch.distributed each process takes its share of the batches, and all return the whole.
    """
    images = packed.Split.open(prepared, split)
    truth = [
        geometry.boxes_to_grid(images.boxes[i], tuple(images.sizes[i]), params.input)
        for i in range(len(images))
    ]
    parts: list[tuple[list[int], Evaluation]] = []
    done, share = 0, distributed.share()
    for indices, maps in read(method, prepared, split, params, kept, names_needed(selection)):
        predicted, true = maps.maps.unbind(1)
        real = [truth[i] for i in indices]
        how = selection, threshold, params.box.two_stage
        box_p, level, found = choose_boxes(predicted, maps.features, *how)
        box_t, _, _ = choose_boxes(true, maps.features, *how)
        curve = threshold_curve(maps, images, indices, real, params)
        best, top = maps.logits.softmax(1).topk(min(5, maps.logits.shape[1]))
        scored = Evaluation(
            labels=images.labels[indices],
            top=top.cpu().numpy(),
            score=best[:, 0].cpu().numpy(),
            boxes_predicted=box_p,
            boxes_true=box_t,
            threshold=level,
            found=found,
            iou_predicted=metrics.best_iou(box_p, real),
            iou_true=metrics.best_iou(box_t, real),
            curve_largest=curve.largest,
            curve_any=curve.any,
        )
        parts.append((indices, scored))
        done += len(indices)
        progress(min(done * share.processes, len(images)), len(images))
    every = sorted(chain(*distributed.gathered(parts)), key=lambda part: part[0])
    return Evaluation.concatenate([scored for _, scored in every])


def names_needed(selection: str) -> tuple[str, ...]:
    """The readings that boxes are chosen by, by name."""
    return ("logits", "raw", "features") if selection == "two_stage" else ("logits", "raw")


def read(
    method: Method,
    prepared: Path,
    split: str,
    params: Params,
    kept: Kept | None,
    names: tuple[str, ...],
) -> Iterator[tuple[list[int], Heatmaps]]:
    """The images' indices and heatmaps of the predicted and the true class, batch by batch.

    From `kept` if it has the named readings; else by forward passes, which are then kept, unless
    processes share them: each has its share of the batches.
    """
    device = next(method.parameters()).device
    size = (params.input.crop, params.input.crop)
    share, step = distributed.share(), params.evaluate.batch_size
    if kept is not None and kept.missing(names) is None:
        kept.used()
        count = len(packed.Split.open(prepared, split))
        for start in range(0, count, step)[share.rank :: share.processes]:
            indices = list(range(start, min(start + step, count)))
            rows = {name: t.to(device) for name, t in kept.rows(names, indices).items()}
            yield (
                indices,
                Heatmaps(rows["logits"], rows["raw"], size, params.box, rows.get("features")),
            )
        return
    method.eval()
    generators.check(params.heatmap, params.heatmaps)
    loader = test_loader(prepared, split, params, pin=device.type == "cuda")
    own = torch.arange(len(loader)).split(step)[share.rank :: share.processes]
    order = torch.cat(own) if own else torch.arange(0)
    keeper = kept if share.processes == 1 else None
    with keeper.recording(len(loader)) if keeper else nullcontext() as recorder:
        for batch, labels, these in loader.batches(order):
            batch = batch.to(device, non_blocking=True)
            inputs = geometry.test_batch(batch, params.input.crop)
            seen = heatmaps(method, inputs, labels.to(device), params, params.train.precision)
            if recorder is not None and seen.features is not None:
                recorder.add({"logits": seen.logits, "raw": seen.raw, "features": seen.features})
            yield these.tolist(), seen


def threshold_curve(
    maps: Heatmaps,
    images: packed.Split,
    indices: list[int],
    truth: list[np.ndarray],
    params: Params,
) -> boxes.Curve:
    """Best IoU at every threshold with the true class's maps, under `box.protocol`.

    truth: the images' boxes on the test grid. `wsoleval` has its own resizing and truncation, so it
    starts again from the raw maps and the original boxes.
    """
    thresholds = thresholds_of(params)
    if params.box.protocol == "classic":
        return boxes.curve(maps.maps[:, 1].cpu().numpy(), truth, thresholds)
    grid = (params.input.crop, params.input.crop)
    sizes = [(int(height), int(width)) for height, width in images.sizes[indices]]
    scaled = [
        wsoleval.scale(wsoleval.corners(images.boxes[i], size), size, grid)
        for i, size in zip(indices, sizes, strict=True)
    ]
    mapped = wsoleval.heatmaps(maps.raw[:, 1].double().cpu().numpy(), grid)
    return boxes.curve(mapped, scaled, thresholds, "wsoleval")


def best_threshold(evaluation: Evaluation, thresholds: np.ndarray) -> float:
    """The threshold whose true-class boxes are right (IoU ≥ 0.5) most often; the lowest of equals.

    Only ever called with the evaluation of `val`.
    """
    scored = ~np.isnan(evaluation.curve_largest).any(1)
    return float(thresholds[(evaluation.curve_largest[scored] >= 0.5).mean(0).argmax()])


def test_loader(prepared: Path, split: str, params: Params, *, pin: bool = False) -> Loader:
    """The split at the test geometry, decoded as it is passed over, once."""
    return Loader(
        prepared,
        split,
        geometry.test_size(params.input),
        batch_size=params.evaluate.batch_size,
        workers=params.train.workers,
        cache_mib=params.train.cache_mib,
        pin=pin,
    )


def centre_boxes(count: int, side: int, share: float) -> np.ndarray:
    """The baseline that looks at nothing: a centred box of `share` of each side, float32 [count, 4]."""
    margin = side * (1 - share) / 2
    return np.tile(np.array([margin, margin, side - margin, side - margin], np.float32), (count, 1))


def centre_baseline(prepared: Path, split: str, params: Params) -> dict[str, float]:
    """GT-known error of a centred box of half the image's area, and MaxBoxAcc over all its sizes."""
    images = packed.Split.open(prepared, split)
    truth = [
        geometry.boxes_to_grid(images.boxes[i], tuple(images.sizes[i]), params.input)
        for i in range(len(images))
    ]
    side = params.input.crop
    shares = np.linspace(0.05, 1, 20)
    iou = np.stack(
        [metrics.best_iou(centre_boxes(len(truth), side, share), truth) for share in shares], 1
    )
    half = metrics.best_iou(centre_boxes(len(truth), side, float(np.sqrt(0.5))), truth)
    scored = ~np.isnan(half)
    if not scored.any():
        return {}
    accuracy = [(iou[scored] >= delta).mean(0).max() * 100 for delta in (0.3, 0.5, 0.7)]
    return {
        "gt_known_loc_err": float(100 * (1 - (half[scored] >= 0.5).mean())),
        "max_box_acc": float(accuracy[1]),
        "max_box_acc_v2": float(np.mean(accuracy)),
    }


def predicted_maps(
    method: Method, images: packed.Split, indices: list[int], params: Params, kept: Kept
) -> np.ndarray:
    """The predicted class's heatmaps of some images of the split that was `kept`, [len(indices), H, W]."""
    side, parts = params.input.crop, [np.empty((0, params.input.crop, params.input.crop))]
    device = next(method.parameters()).device
    for start in range(0, len(indices), params.evaluate.batch_size):
        some = indices[start : start + params.evaluate.batch_size]
        if kept.missing(("logits", "raw")) is None:
            rows = kept.rows(("logits", "raw"), some)
            seen = Heatmaps(**rows, size=(side, side), box=params.box, features=None)
        else:
            size = geometry.test_size(params.input)
            batch = torch.stack([geometry.decode(images.encoded(i), size) for i in some])
            seen = heatmaps(method, geometry.test_batch(batch.to(device), side), None, params)
        parts.append(seen.maps[:, 0].cpu().numpy())
    return np.concatenate(parts)
