"""The table of metrics, and their statistics: figures in percent with 95 % bootstrap intervals over images.

A metric is a row of `METRICS`; files, tables, MLflow, report and comparison iterate over the table.
Boxes are x0, y0, x1, y1 half-open edges: area = (x1 − x0)(y1 − y0).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

IOU_CORRECT = 0.5
IOU_V2 = (0.3, 0.5, 0.7)  # MaxBoxAccV2, each at its own best threshold
INTERVAL = (2.5, 97.5)  # percentiles
RESAMPLES = 1000  # of a difference, in the report as in `wsol compare`

Values = NDArray[Any]
Weights = NDArray[np.float32]


class Figure(NamedTuple):
    """A value in percent (or percentage points) and its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scored:
    """How N images were answered; None: what the source does not tell. NaN: an image without a true box."""

    top1: NDArray[np.bool_] | None = None  # [N], the predicted class is the true one
    top5: NDArray[np.bool_] | None = None  # [N], the true class is among the first five
    iou_predicted: Values | None = None  # [N], of the predicted class's box with the best true box
    iou_true: Values | None = None  # [N], of the true class's box
    curve_largest: Values | None = None  # [N, T], IoU of the largest component at each threshold
    curve_any: Values | None = None  # [N, T], of the best component
    pixels: NDArray[np.int64] | None = None  # [N, 2, T + 2], counts of `wsoleval.count_pixels`

    def __len__(self) -> int:
        return next(len(values) for values in self._told().values())

    def where(self, images: NDArray[Any]) -> "Scored":
        """Those of `images`, a mask or indices."""
        return Scored(**{name: values[images] for name, values in self._told().items()})

    def _told(self) -> dict[str, Values]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes [..., 4], broadcast; two empty boxes have 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1)
    union = union - both
    return np.divide(both, union, out=np.zeros_like(union), where=union > 0)


def best_iou(boxes: NDArray[Any], truth: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Best IoU of each box [B, 4] with its image's ground-truth boxes [n, 4]; NaN without any."""
    return np.array(
        [iou(b, t).max() if len(t) else np.nan for b, t in zip(boxes, truth, strict=True)]
    )


def figures(
    scored: Scored, *, bootstrap: int, seed: int, table: "Sequence[Metric] | None" = None
) -> dict[str, Figure]:
    """The figure of each metric of `table` (by default METRICS) that `scored` tells of, in percent.

    Images of which a metric has nothing but NaN are left out of it; with no others it is absent.
    """
    known: dict[Metric, tuple[Values, NDArray[np.bool_]]] = {}
    for metric in METRICS if table is None else table:
        if (values := metric.per_image(scored)) is not None:
            counted = np.asarray(~np.isnan(values).reshape(len(values), -1).all(axis=1))
            if counted.any():
                known[metric] = values if counted.all() else values[counted], counted

    def of(weights: Weights) -> dict[str, NDArray[np.float64]]:
        return {
            metric.name: metric.figure(weights[:, counted], values)
            for metric, (values, counted) in known.items()
        }

    return with_intervals(of, len(scored), bootstrap=bootstrap, seed=seed)


def values(scored: Scored) -> dict[str, float]:
    """The figures without intervals."""
    return {name: of.value for name, of in figures(scored, bootstrap=0, seed=0).items()}


def box_accuracy(curve: NDArray[Any], delta: float) -> NDArray[np.float64]:
    """Percent of images with IoU ≥ `delta` at each threshold, [N, T] → [T]; NaN rows are left out."""
    boxed = curve[~np.isnan(curve[:, 0])]
    return share(np.ones((1, len(boxed)), np.float32), hits(boxed, delta))[0]


def hits(curve: NDArray[Any], delta: float) -> NDArray[np.bool_]:
    """IoU ≥ δ in the curve's own precision: the float32 nearest to 7 / 10 is below the double."""
    return np.asarray(curve >= np.asarray(delta, curve.dtype))


def mean(values: Values, *, bootstrap: int, seed: int) -> Figure:
    """Mean over images of values [N] in percent; NaN is left out."""
    known = ~np.isnan(values)

    def of(weights: Weights) -> dict[str, NDArray[np.float64]]:
        return {"mean": share(weights[:, known], values[known])}

    return with_intervals(of, len(values), bootstrap=bootstrap, seed=seed)["mean"]


def paired_difference(
    a: NDArray[Any], b: NDArray[Any], *, bootstrap: int, seed: int
) -> dict[str, Figure]:
    """Means of two runs' values [N] on the same images, in percent, and of b − a, image by image."""
    both = ~(np.isnan(a) | np.isnan(b))
    values = {"a": a[both], "b": b[both], "difference": b[both].astype(np.float64) - a[both]}

    def figures(weights: Weights) -> dict[str, NDArray[np.float64]]:
        return {name: share(weights, of) for name, of in values.items()}

    return with_intervals(figures, int(both.sum()), bootstrap=bootstrap, seed=seed)


def with_intervals(
    figures: Callable[[Weights], dict[str, NDArray[np.float64]]],
    images: int,
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Figure]:
    """Figures with their 95 % percentile intervals over images; all are of the same resamples.

    `figures` takes weights [R, N] and returns {name: [R]}; NaN, where a resample says nothing, is
    left out. Without resamples the interval is the value.
    """
    values = figures(np.ones((1, images), np.float32))
    drawn = [figures(weights) for weights in resamples(images, bootstrap, seed)] or [values]
    result = {}
    for name, (value,) in values.items():
        low, high = np.nanpercentile(np.concatenate([part[name] for part in drawn]), INTERVAL)
        result[name] = Figure(float(value), float(low), float(high))
    return result


def resamples(images: int, count: int, seed: int) -> Iterator[Weights]:
    """Yield `count` bootstrap resamples, up to 100 at a time: how often each image was drawn [R, N]."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, 100):
        drawn = generator.integers(0, images, (min(100, count - start), images))
        yield np.array([np.bincount(row, minlength=images) for row in drawn], np.float32)


def share(weights: Weights, values: NDArray[Any]) -> NDArray[np.float64]:
    """Weighted mean in percent of values [N] or [N, T], for each of weights [R, N] → [R] or [R, T].

    Counts stay exact in single precision (below 2²⁴); NaN where all weights are 0.
    """
    kind = np.float32 if values.dtype == bool else np.float64
    total = weights.sum(axis=1, dtype=np.float64).reshape(-1, *[1] * (values.ndim - 1))
    counts = (weights @ values.astype(kind)).astype(np.float64)
    return np.divide(100 * counts, total, out=np.full_like(counts, np.nan), where=total > 0)


# --- the table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A figure, defined once.

    per_image: what it needs of each image, [N, …], NaN where there is nothing to score, None if the
    source does not tell. figure: from that and weights [R, N] the value in percent of each resample [R].
    """

    name: str  # in files and in MLflow
    title: str
    per_image: Callable[[Scored], Values | None]
    better: Literal["lower", "higher"] = "lower"
    short: str = (
        ""  # the title where there is little room, which is given only to those that have one
    )
    oracle: bool = False  # it takes what is best on the test images themselves
    boxed: bool = True  # it needs true boxes, else the class alone
    figure: Callable[[Weights, Values], NDArray[np.float64]] = share

    @property
    def arrow(self) -> str:
        return "↓" if self.better == "lower" else "↑"

    @property
    def heading(self) -> str:
        """Of a column in a table of errors: marked where higher is better."""
        return self.short if self.better == "lower" else f"{self.short} {self.arrow}"

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over images, so that two runs can be compared image by image."""
        return self.figure is share


def _missed(named: Values | bool | None, overlap: Values | None) -> Values | None:
    """1 where the class was not named or the box misses, else 0; NaN without a true box."""
    if named is None or overlap is None:
        return None
    return np.where(np.isnan(overlap), np.nan, ~(named & hits(overlap, IOU_CORRECT)))


def _not(right: NDArray[np.bool_] | None) -> Values | None:
    return None if right is None else ~right


def _best_accuracy(weights: Weights, curve: Values) -> NDArray[np.float64]:
    """Box accuracy at the best threshold, which is found anew in each resample."""
    return np.asarray(share(weights, hits(curve, IOU_CORRECT)).max(axis=1))


def _best_accuracies(weights: Weights, curve: Values) -> NDArray[np.float64]:
    """The mean over IoU_V2, each at its own best threshold."""
    best = [share(weights, hits(curve, delta)).max(axis=1) for delta in IOU_V2]
    return np.asarray(np.mean(best, axis=0))


GT_KNOWN = Metric(
    "gt_known_loc_err",
    "GT-known localization error",
    lambda of: _missed(True, of.iou_true),
    short="GT-known",
)
METRICS: tuple[Metric, ...] = (
    Metric(
        "top1_cls_err",
        "Top-1 classification error",
        lambda of: _not(of.top1),
        short="Top-1 cls",
        boxed=False,
    ),
    Metric("top5_cls_err", "Top-5 classification error", lambda of: _not(of.top5), boxed=False),
    Metric(
        "top1_loc_err",
        "Top-1 localization error",
        lambda of: _missed(of.top1, of.iou_predicted),
        short="Top-1 loc",
    ),
    Metric("top5_loc_err", "Top-5 localization error", lambda of: _missed(of.top5, of.iou_true)),
    GT_KNOWN,
    Metric(
        "max_box_acc",
        "MaxBoxAcc",
        lambda of: of.curve_largest,
        better="higher",
        short="MaxBoxAcc",
        oracle=True,
        figure=_best_accuracy,
    ),
    Metric(
        "max_box_acc_v2",
        "MaxBoxAccV2",
        lambda of: of.curve_any,
        better="higher",
        short="V2",
        oracle=True,
        figure=_best_accuracies,
    ),
)


def improves(name: str, difference: Figure) -> bool | None:
    """Whether a difference of a metric is to the better; None where its interval holds zero."""
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return None
    better = next(metric.better for metric in METRICS if metric.name == name)
    return (difference.high < 0) == (better == "lower")


def brief(*, oracles: bool = True) -> list[Metric]:
    """The metrics to show where there is little room."""
    return [metric for metric in METRICS if metric.short and (oracles or not metric.oracle)]


def per_image(scored: Scored) -> Mapping[str, Values]:
    """Each metric that is a mean over images, image by image [N]: those that `scored` tells of."""
    found = {metric.name: metric.per_image(scored) for metric in METRICS if metric.is_mean}
    return {name: values for name, values in found.items() if values is not None}
