"""Foreground: a linear classifier of middle-depth cells, taught by the class activation map and then by itself.

The last feature map X says what and only roughly where; a map E of middle depth, at its native 1/16 resolution, says
precisely where, but not what. So the class activation map of X names seeds, and a logistic regression
g(e) = a·e + b on the cells of E, fitted to them, draws the object. Image labels are all that is used.

1. A softmax regression on the pooled last map of the trunk as it was loaded, of the images and their mirrored
   copies; M = Σ_c max(w_yc, 0) · X_c, with X the mean over both views.
2. Per image, seeds: object at and above M's quantile `object_quantile`, background at and below
   `background_quantile`, and nothing in between.
3. g on E's standardised cells, both sides with half of the loss: one g per class, or one for all.
4. `rounds` times: with t Otsu's threshold of g over all cells and s its deviation, cells above
   t + `object_margin` · s are object, below t − `background_margin` · s background; fitted again.

The object is where g > 0. Relatives: SPG and SPOL learn foreground from seeds inside the network.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.layers import logistic
from pipeline.localizers import base
from pipeline.methods.base import Outputs, weighted_maps
from pipeline.params import Section

Share = Annotated[float, Field(ge=0, le=1)]
BINS = 256


class Params(Section):
    """Seeds, and the classifier of cells."""

    per: Literal["class", "dataset"]
    """Whether each class has a classifier of cells, or all share one."""
    probe_penalty: Annotated[float, Field(ge=0)]
    """Of the seeds' softmax regression, on the squared weights of standardised channels."""
    object_quantile: Share
    background_quantile: Share
    penalty: Annotated[float, Field(ge=0)]
    """Of the classifier of cells."""
    iterations: Annotated[int, Field(ge=1)]
    """Of L-BFGS, in each fit."""
    rounds: Annotated[int, Field(ge=0)]
    """Fits to its own answers."""
    object_margin: Annotated[float, Field(ge=0)]
    background_margin: Annotated[float, Field(ge=0)]
    cells: Annotated[int, Field(ge=1000)]
    """The most cells that one fit sees; of more, an even sample."""

    @model_validator(mode="after")
    def _seeds_are_apart(self) -> "Params":
        if self.background_quantile >= self.object_quantile:
            raise ValueError(
                f"background_quantile is {self.background_quantile}; allowed: less than "
                f"object_quantile, which is {self.object_quantile}"
            )
        return self


class Localizer(base.Localizer):
    params: Params
    pretrained_depths = (base.LAST,)
    weight: Tensor
    bias: Tensor

    def __init__(self, backbone: base.Depths, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.middle = base.middle(backbone)
        self.depths = (self.middle,)
        self.register_buffer("weight", torch.zeros(num_classes, backbone.channels[self.middle]))
        self.register_buffer("bias", torch.zeros(num_classes))

    def maps(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """g of the class at every cell of E."""
        g = weighted_maps(features[self.middle], self.weight[classes])
        return g + self.bias[classes][:, :, None, None]

    @torch.no_grad()
    def fit(self, training: base.Training) -> list[str]:
        E = Cells(training, self.middle)
        marks = seeds(training, self.params, E.size)
        labels = training.labels
        for rows, images in (
            [(slice(None), torch.arange(len(labels)))]
            if self.params.per == "dataset"
            else [(k, (labels == k).nonzero()[:, 0]) for k in labels.unique().tolist()]
        ):
            weight, bias = E.fitted(images, marks[images], self.params)
            for _ in range(self.params.rounds):
                own = relabelled(E.logits(images, weight, bias), self.params)
                weight, bias = E.fitted(images, own, self.params)
            raw = logistic.folded(weight[None], bias[None], E.mean, E.scale)
            self.weight[rows], self.bias[rows] = raw[0][0], raw[1][0]
        return []


def seeds(training: base.Training, params: Params, size: tuple[int, int]) -> Tensor:
    """Marks of every cell of E's grid of `size`, int8 [N, h·w]: 1 object, −1 background, 0 neither."""
    views = (training.pretrained, training.mirrored)
    pooled = [view(base.LAST, some).mean((2, 3)) for view in views for some in training.batches()]
    labels = training.labels.to(pooled[0].device)
    weight, _ = logistic.multinomial(
        torch.cat(pooled),
        labels.repeat(len(views)),
        training.classes,
        penalty=params.probe_penalty,
        iterations=2 * params.iterations,
    )
    marks = []
    for some in training.batches():
        X = torch.stack([view(base.LAST, some) for view in views]).mean(0)
        M = weighted_maps(X, weight[labels[some]][:, None].relu())
        if M.shape[2:] != size:
            M = interpolate(M, size=size, mode="bilinear", align_corners=False)
        marks.append(marked(M.flatten(1), params.object_quantile, params.background_quantile))
    return torch.cat(marks)


def marked(M: Tensor, object_quantile: float, background_quantile: float) -> Tensor:
    """Seeds of maps [B, n]: int8 [B, n]. A constant map, which says nothing, gives none."""
    levels = torch.tensor([object_quantile, background_quantile], device=M.device)
    high, low = torch.quantile(M, levels, dim=1, keepdim=True)
    marks = torch.ge(M, high).char() - torch.le(M, low).char()
    return marks * (high > low)


class Cells:
    """The cells of E in all training images, read in batches and standardised as they are read."""

    def __init__(self, training: base.Training, depth: str) -> None:
        self._training, self._depth = training, depth
        first = training.trained(depth, torch.zeros(1, dtype=torch.int64))
        self.size = first.shape[2], first.shape[3]
        self.mean, self.scale = torch.zeros(()), torch.ones(())
        self.mean, self.scale = self._statistics()

    def fitted(self, images: Tensor, marks: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Weight [D] and bias [] of the classifier of the images' marked cells; marks int8 [n, h·w].

        Where one side has no cells, weight 0 and bias −1 or 1: all is of the other.
        """
        rows, positive = self._marked(images, marks, params.cells)
        objects = int(positive.sum())
        if objects in (0, len(positive)):
            return torch.zeros_like(self.mean), self.mean.new_tensor(1.0 if objects else -1.0)
        each = torch.where(positive, 0.5 / objects, 0.5 / (len(positive) - objects))
        return logistic.binary(
            rows, positive, each, penalty=params.penalty, iterations=params.iterations
        )

    def logits(self, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """g at every cell of the images: [n, h·w]."""
        return torch.cat([rows @ weight + bias for _, rows in self._read(images)])

    def _read(self, images: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Which of the images, and their cells [b, h·w, D]."""
        done = 0
        for some in self._training.batches(images):
            rows = base.cells(self._training.trained(self._depth, some))
            yield slice(done, done + len(some)), (rows - self.mean) / self.scale
            done += len(some)

    def _marked(self, images: Tensor, marks: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """Rows [m, D] of the marked cells, at most `limit` of them, and which are object, bool [m]."""
        count = int((marks != 0).sum())
        if count > limit:
            drawn = torch.rand(marks.shape, generator=self._training.generator())
            marks = marks * (drawn < limit / count).to(marks)
        kept = [rows[marks[part] != 0] for part, rows in self._read(images)]
        return torch.cat(kept), marks[marks != 0] > 0

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and scale [D] over all cells."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for _, rows in self._read(None):
            flat = rows.flatten(0, 1)
            count += len(flat)
            total = total.to(flat.device) + flat.sum(0).double()
            squares = squares.to(flat.device) + flat.square().sum(0).double()
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        return mean.float(), (deviation + 1e-3 * deviation.mean() + 1e-6).float()


def relabelled(g: Tensor, params: Params) -> Tensor:
    """Marks int8 [n, h·w] by the classifier's own logits."""
    t, s = otsu(g), g.std(correction=0)
    above, below = g > t + params.object_margin * s, g < t - params.background_margin * s
    return above.char() - below.char()


def otsu(values: Tensor) -> Tensor:
    """The threshold [] that separates values [...] into two groups of the greatest variance between them.

    N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979, on a histogram of 256 bins.
    """
    flat = values.flatten().float().cpu()
    counts, edges = torch.histogram(flat, BINS)
    centres, p = (edges[1:] + edges[:-1]).double() / 2, counts.double() / len(flat)
    below, mean = p.cumsum(0)[:-1], (p * centres).cumsum(0)
    between = (mean[-1] * below - mean[:-1]).square() / (below * (1 - below)).clamp_min(1e-12)
    return centres[between.argmax()].to(values)
