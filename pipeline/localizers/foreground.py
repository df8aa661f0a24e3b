"""Foreground: a linear classifier of middle-depth cells, taught by the class activation map and then by itself.

The last feature map X says what and only roughly where; a map E of middle depth, at its native 1/16 resolution, says
precisely where, but not what. So the class activation map of X names seeds, and a logistic regression
g(e) = a·e + b on the cells of E, fitted to them, draws the object. Image labels are all that is used.

1. A softmax regression on the pooled last map of the trunk as it was loaded; M = Σ_c max(w_yc, 0) · X_c.
2. Per image, seeds: object at and above M's quantile `object_quantile`, background at and below
   `background_quantile`, and nothing in between.
3. g on the principal components of E's standardised cells, both sides with half of the loss: one g per class, or
   one for all.
4. `rounds` times: with t Otsu's threshold of g over all cells and s its deviation, cells above
   t + `object_margin` · s are object, below t − `background_margin` · s background; fitted again.
5. Of several maps E, the mean of g in units of its deviation over the training cells.

The object is where g > 0. Relatives: SPG and SPOL learn foreground from seeds inside the network.
"""

from collections.abc import Mapping
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
SAMPLE = 128
"""Training images whose cells give mean, deviation and principal components."""


class Params(Section):
    """Seeds, and the classifier of cells."""

    maps: Annotated[tuple[Literal["middle", "deep"], ...], Field(min_length=1)]
    """E: the deepest map of native 1/16 resolution, and the expansion two blocks behind it, where there is one."""
    per: Literal["class", "dataset"]
    """Whether each class has a classifier of cells, or all share one."""
    probe_penalty: Annotated[float, Field(ge=0)]
    """Of the seeds' softmax regression, on the squared weights of standardised channels."""
    object_quantile: Share
    background_quantile: Share
    components: Annotated[int, Field(ge=1)]
    penalty: Annotated[float, Field(ge=0)]
    """Of the classifier of cells, whose seeds are noisy."""
    iterations: Annotated[int, Field(ge=1)]
    """Of L-BFGS, in each fit."""
    rounds: Annotated[int, Field(ge=0)]
    """Fits to its own answers."""
    object_margin: Annotated[float, Field(ge=0)]
    background_margin: Annotated[float, Field(ge=0)]

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

    def __init__(self, backbone: base.Depths, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        middle = backbone.native
        asked = {"middle": middle, "deep": base.DEEP if base.DEEP in backbone.channels else middle}
        self.depths = tuple(dict.fromkeys(asked[name] for name in params.maps))
        for depth in self.depths:
            channels = backbone.channels[depth]
            self.register_buffer(f"weight_{depth}", torch.zeros(num_classes, channels))
            self.register_buffer(f"bias_{depth}", torch.zeros(num_classes))

    def maps(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """The mean over depths of g of the class at every cell, on the first depth's grid."""
        total = torch.zeros(())
        for depth in self.depths:
            g = weighted_maps(features[depth], self.get_buffer(f"weight_{depth}")[classes])
            g = g + self.get_buffer(f"bias_{depth}")[classes][:, :, None, None]
            if total.dim() and g.shape != total.shape:
                g = interpolate(g, size=total.shape[2:], mode="bilinear", align_corners=False)
            total = total.to(g.device) + g / len(self.depths)
        return total

    @torch.no_grad()
    def fit(self, training: base.Training) -> list[str]:
        seeds = seed_maps(training, self.params)
        for depth in self.depths:
            weight, bias = fitted(training, depth, seeds, self.params)
            self.get_buffer(f"weight_{depth}").copy_(weight)
            self.get_buffer(f"bias_{depth}").copy_(bias)
        return []


def seed_maps(training: base.Training, params: Params) -> Tensor:
    """M [N, h, w]: the positive part of each image's class activation map."""
    pooled = [training.pretrained(base.LAST, some).mean((2, 3)) for some in training.batches()]
    labels = training.labels.to(pooled[0].device)
    weight, _ = logistic.multinomial(
        torch.cat(pooled),
        labels,
        training.classes,
        penalty=params.probe_penalty,
        iterations=2 * params.iterations,
    )
    maps = [
        weighted_maps(training.pretrained(base.LAST, some), weight[labels[some]][:, None].relu())
        for some in training.batches()
    ]
    return torch.cat(maps)[:, 0]


def marked(M: Tensor, object_quantile: float, background_quantile: float) -> Tensor:
    """Seeds of maps [B, n]: int8 [B, n], 1 object, −1 background, 0 neither. A constant map gives none."""
    levels = torch.tensor([object_quantile, background_quantile], device=M.device)
    high, low = torch.quantile(M, levels, dim=1, keepdim=True)
    marks = torch.ge(M, high).char() - torch.le(M, low).char()
    return marks * (high > low)


def fitted(
    training: base.Training, depth: str, seeds: Tensor, params: Params
) -> tuple[Tensor, Tensor]:
    """Weight [K, D] and bias [K] of g for raw cells of a depth, in units of g's deviation.

    Classes without images have weight 0 and bias 0: no cell of theirs is object.
    """
    basis = Basis(training, depth, params.components)
    # The components of all cells fit in memory, in half precision.
    cells = torch.cat([basis(training.trained(depth, some)).half() for some in training.batches()])
    M = interpolate(seeds[:, None], size=basis.size, mode="bilinear", align_corners=False)
    marks = marked(M.flatten(1), params.object_quantile, params.background_quantile)
    weight = cells.new_zeros(training.classes, cells.shape[2], dtype=torch.float32)
    bias = weight.new_zeros(training.classes)
    present = training.labels.unique()
    groups = [present] if params.per == "dataset" else list(present[:, None])
    answers = []
    for labels in groups:
        own = torch.isin(training.labels, labels)
        x, own_marks = cells[own].float(), marks[own]
        for last in (*[False] * params.rounds, True):
            a, b = classifier(x, own_marks, params)
            g = x @ a + b
            if not last:
                own_marks = relabelled(g, params)
        weight[labels], bias[labels] = a, b
        answers.append(g.flatten())
    scale = torch.cat(answers).std(correction=0).clamp_min(1e-6)
    return basis.raw(weight / scale, bias / scale)


class Basis:
    """Principal components of the standardised cells of a depth, from a sample of images."""

    def __init__(self, training: base.Training, depth: str, components: int) -> None:
        count = len(training.labels)
        sample = torch.randperm(count, generator=training.generator())[:SAMPLE].sort().values
        maps = torch.cat([training.trained(depth, some) for some in training.batches(sample)])
        self.size = maps.shape[2], maps.shape[3]
        rows = base.cells(maps).flatten(0, 1)
        self.mean, deviation = rows.mean(0), rows.std(0, correction=0)
        # A channel that is nearly dead stays silent.
        self.scale = deviation.clamp_min(0.05 * deviation.median()).clamp_min(1e-6)
        Z = (rows - self.mean) / self.scale
        vectors = torch.linalg.eigh(Z.mT @ Z / len(Z)).eigenvectors
        self.vectors = vectors[:, -min(components, vectors.shape[1]) :].flip(1)

    def __call__(self, features: Tensor) -> Tensor:
        """Feature maps [B, D, h, w] → [B, h·w, components]."""
        return ((base.cells(features) - self.mean) / self.scale) @ self.vectors

    def raw(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight [K, D] and bias [K] for cells as they are, from those for components."""
        return logistic.folded(weight @ self.vectors.mT, bias, self.mean, self.scale)


def classifier(cells: Tensor, marks: Tensor, params: Params) -> tuple[Tensor, Tensor]:
    """Weight [D] and bias [] of the classifier of the marked cells; cells [n, h·w, D], marks int8 [n, h·w].

    Where one side has no cells, weight 0 and bias −1 or 1: all is of the other.
    """
    on = marks != 0
    rows, positive = cells[on], marks[on] > 0
    objects = int(positive.sum())
    if objects in (0, len(positive)):
        return cells.new_zeros(cells.shape[2]), cells.new_tensor(1.0 if objects else -1.0)
    each = torch.where(positive, 0.5 / objects, 0.5 / (len(positive) - objects))
    return logistic.binary(
        rows, positive, each, penalty=params.penalty, iterations=params.iterations
    )


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
