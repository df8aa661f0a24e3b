"""A trained model on a split: heatmaps, boxes and how well they fit, batch by batch.

Heatmaps are read, scored and let go, so a split of any size needs the memory of one batch.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline import boxes, packed
from pipeline.boxes import absolute, wsoleval
from pipeline.boxes.rules import val
from pipeline.evaluation import metrics
from pipeline.evaluation.formats import map_file
from pipeline.loading import geometry, placement
from pipeline.loading.loader import Loader
from pipeline.model.output_cache import Kept
from pipeline.model.reader import ClassMaps, Reader
from pipeline.params import Input, Params
from pipeline.runtime import distributed

Progress = Callable[[int, int], None]
SAMPLE = 256
"""Images, evenly spaced, whose maps say over which range absolute thresholds are tried."""


@dataclass(frozen=True)
class Scoring:
    """How a split is passed over and its threshold curve made; nothing here moves a box."""

    protocol: boxes.Protocol
    thresholds: int
    batch_size: int
    workers: int
    cache_mib: int

    @classmethod
    def of(cls, params: Params) -> "Scoring":
        return cls(
            params.box.protocol,
            params.evaluate.thresholds,
            params.evaluate.batch_size,
            params.train.workers,
            params.train.cache_mib,
        )


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
    maps: np.ndarray  # uint8 [N, h, w], of the predicted class, each in its own range
    map_low: np.ndarray  # float32 [N], what 0 stands for, in the unit of the raw maps
    map_high: np.ndarray  # float32 [N], what 255 stands for
    thresholds: np.ndarray  # float64 [T], of the curves: the same for every image

    @property
    def scored(self) -> metrics.Scored:
        """What the figures are made of."""
        hit = self.top == self.labels[:, None]
        return metrics.Scored(
            hit[:, 0],
            hit.any(axis=1),
            self.iou_predicted,
            self.iou_true,
            self.curve_largest,
            self.curve_any,
        )

    @classmethod
    def concatenate(cls, parts: list["Evaluation"]) -> "Evaluation":
        rows = [f.name for f in fields(cls) if f.name != "thresholds"]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in rows}
        return cls(**columns, thresholds=parts[0].thresholds)


def evaluate(
    reader: Reader,
    prepared: Path,
    split: str,
    scoring: Scoring,
    *,
    kept: Kept | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Every image of `split`: predicted- and true-class boxes, their IoU, and the threshold curve.

    kept: where the network's answers are taken from if they are there, and put if not.
    Under torch.distributed each process takes its share of the batches, and all return the whole.
    """
    images = packed.Split.open(prepared, split)
    truth = truth_on_grid(images, reader.reading.input)
    thresholds = curve_thresholds(reader, images, scoring)
    parts: list[tuple[list[int], Evaluation]] = []
    done, share = 0, distributed.share()
    for indices, maps in read(reader, prepared, split, scoring, kept):
        real = [truth[i] for i in indices]
        predicted, true = maps.boxes(0), maps.boxes(1)
        curve = threshold_curve(maps, images, indices, real, thresholds, scoring.protocol)
        shown = map_file.Maps.of(
            nn.functional.adaptive_avg_pool2d(
                maps.raw[:, 0], map_file.grid(len(images), *maps.raw.shape[2:])
            )
            .cpu()
            .numpy()
        )
        best, top = maps.logits.softmax(1).topk(min(5, maps.logits.shape[1]))
        scored = Evaluation(
            labels=images.labels[indices],
            top=top.cpu().numpy(),
            score=best[:, 0].cpu().numpy(),
            boxes_predicted=predicted.boxes,
            boxes_true=true.boxes,
            threshold=predicted.thresholds,
            found=predicted.found,
            iou_predicted=metrics.best_iou(predicted.boxes, real),
            iou_true=metrics.best_iou(true.boxes, real),
            curve_largest=curve.largest,
            curve_any=curve.any,
            maps=shown.values,
            map_low=shown.low,
            map_high=shown.high,
            thresholds=thresholds,
        )
        parts.append((indices, scored))
        done += len(indices)
        progress(min(done * share.processes, len(images)), len(images))
    every = sorted(chain(*distributed.gathered(parts)), key=lambda part: part[0])
    return Evaluation.concatenate([scored for _, scored in every])


def truth_on_grid(images: packed.Split, input: Input) -> list[np.ndarray]:
    """Each image's true boxes [n, 4] on the test grid."""
    return [
        placement.boxes_to_grid(images.boxes[i], tuple(images.sizes[i]), input)
        for i in range(len(images))
    ]


def read(
    reader: Reader, prepared: Path, split: str, scoring: Scoring, kept: Kept | None
) -> Iterator[tuple[list[int], ClassMaps]]:
    """The images' indices and maps of the predicted and the true class, batch by batch.

    From `kept` if it has what the reading needs; else by forward passes, which are then kept, unless
    processes share them: each has its share of the batches.
    """
    share, step = distributed.share(), scoring.batch_size
    names = reader.outputs
    if kept is not None and kept.missing(names) is None:
        kept.used()
        count = len(packed.Split.open(prepared, split))
        for start in range(0, count, step)[share.rank :: share.processes]:
            indices = list(range(start, min(start + step, count)))
            yield indices, reader.again(kept.rows(names, indices))
        return
    loader = Loader(
        prepared,
        split,
        placement.test_size(reader.reading.input),
        batch_size=step,
        workers=scoring.workers,
        cache_mib=scoring.cache_mib,
        pin=reader.device.type == "cuda",
    )
    own = torch.arange(len(loader)).split(step)[share.rank :: share.processes]
    order = torch.cat(own) if own else torch.arange(0)
    keeper = kept if share.processes == 1 else None
    with keeper.recording(len(loader)) if keeper else nullcontext() as recorder:
        for batch, labels, these in loader.batches(order):
            seen = reader.read(batch, labels)
            if recorder is not None:
                recorder.add(seen.rows)
            yield these.tolist(), seen


def curve_thresholds(reader: Reader, images: packed.Split, scoring: Scoring) -> np.ndarray:
    """The rising thresholds of the curve, float64 [T]: 0, 1/T, … below 1 of a map's range.

    Of absolute maps: evenly from the 1st to the 99th percentile of the true classes' maps, over a
    sample of images, with ends rounded to two digits of the range (so that the last bit of a
    heatmap moves no threshold). The benchmark's protocol scales every map to its own range.
    """
    count = scoring.thresholds
    reading = reader.reading
    if reading.unit == "relative" or scoring.protocol == "wsoleval":
        return np.arange(count, dtype=np.float64) / count
    values = []
    size = placement.test_size(reading.input)
    sample = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int))
    for some in np.array_split(sample, max(1, -(-len(sample) // scoring.batch_size))):
        batch = torch.stack([geometry.decode(images.encoded(int(i)), size) for i in some])
        seen = reader.read(batch, torch.from_numpy(images.labels[some]).long())
        values.append(seen.raw[:, 1].flatten().cpu().numpy())
    low, high = np.percentile(np.concatenate(values).astype(np.float64), (1, 99))
    digit = 10.0 ** (np.floor(np.log10(high - low)) - 1) if high > low else 1.0
    low, high = np.floor(low / digit) * digit, np.ceil(high / digit) * digit
    return np.linspace(low, max(high, low + digit), count)


def threshold_curve(
    maps: ClassMaps,
    images: packed.Split,
    indices: list[int],
    truth: list[np.ndarray],
    thresholds: np.ndarray,
    protocol: boxes.Protocol,
) -> boxes.Curve:
    """Best IoU at every threshold with the true class's maps.

    truth: the images' boxes on the test grid. `wsoleval` has its own resizing and truncation, so it
    starts again from the raw maps and the original boxes. A regressed box is the same at all thresholds.
    """
    if maps.regressed is not None:
        iou = metrics.best_iou(maps.boxes(1).boxes, truth).astype(np.float32)
        same = np.repeat(iou[:, None], len(thresholds), 1)
        return boxes.Curve(same, same)
    if protocol == "classic":
        curve = absolute.curve if maps.reading.unit == "absolute" else boxes.curve
        return curve(maps.maps[:, 1].cpu().numpy(), truth, thresholds)
    grid = (maps.reading.side, maps.reading.side)
    sizes = [(int(height), int(width)) for height, width in images.sizes[indices]]
    scaled = [
        wsoleval.scale(wsoleval.corners(images.boxes[i], size), size, grid)
        for i, size in zip(indices, sizes, strict=True)
    ]
    mapped = wsoleval.heatmaps(maps.raw[:, 1].double().cpu().numpy(), grid)
    return boxes.curve(mapped, scaled, thresholds, "wsoleval")


def best_threshold(evaluation: Evaluation) -> float:
    """The threshold whose true-class boxes are right (IoU ≥ 0.5) most often.

    Only ever called with the evaluation of `val`.
    """
    scored = ~np.isnan(evaluation.curve_largest).any(1)
    right = metrics.hits(evaluation.curve_largest[scored], metrics.IOU_CORRECT)
    return val.best_threshold(right, evaluation.thresholds)


def centre_boxes(count: int, side: int, share: float) -> np.ndarray:
    """The baseline that looks at nothing: a centred box of `share` of each side, float32 [count, 4]."""
    margin = side * (1 - share) / 2
    return np.tile(np.array([margin, margin, side - margin, side - margin], np.float32), (count, 1))


def centre_baseline(prepared: Path, split: str, input: Input) -> dict[str, float]:
    """GT-known error of a centred box of half the image's area, and MaxBoxAcc over all its sizes."""
    truth = truth_on_grid(packed.Split.open(prepared, split), input)
    side = input.crop
    shares = np.linspace(0.05, 1, 20)
    iou = np.stack(
        [metrics.best_iou(centre_boxes(len(truth), side, share), truth) for share in shares], 1
    )
    half = metrics.best_iou(centre_boxes(len(truth), side, float(np.sqrt(0.5))), truth)
    return metrics.values(metrics.Scored(iou_true=half, curve_largest=iou, curve_any=iou))


def predicted_maps(
    reader: Reader, images: packed.Split, indices: list[int], kept: Kept, batch_size: int
) -> np.ndarray:
    """The predicted class's maps in 0 … 1 of some images of the split that was `kept`, [len(indices), H, W]."""
    side, size = reader.reading.side, placement.test_size(reader.reading.input)
    parts = [np.empty((0, side, side), np.float32)]
    for start in range(0, len(indices), batch_size):
        some = indices[start : start + batch_size]
        if kept.missing(reader.outputs) is None:
            seen = reader.again(kept.rows(reader.outputs, some))
        else:
            seen = reader.read(
                torch.stack([geometry.decode(images.encoded(i), size) for i in some])
            )
        parts.append(seen.shown[:, 0].cpu().numpy())
    return np.concatenate(parts)
