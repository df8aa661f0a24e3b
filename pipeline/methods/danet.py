"""Divergent activation: heads for order, family and species, and a penalty on similar maps of one class.

H. Xue, C. Liu, F. Wan, J. Jiao, X. Ji, Q. Ye, "DANet: Divergent Activation for Weakly Supervised Object
Localization", ICCV 2019. The heatmap of a class is the sum of the maps of its species, family and order
(the authors' code takes family and order by the rank of their own predictions). The species' head reads the
last feature map, behind conv6 on VGG; ports to backbones other than VGG16 are ours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline import tables
from pipeline.backbones import Backbone
from pipeline.errors import UserError
from pipeline.layers import class_maps
from pipeline.layers.conv_head import conv_head
from pipeline.methods import base
from pipeline.methods.base import Criterion, Images, Outputs
from pipeline.params import FilePath, Section
from pipeline.params.plug_points import PlugPoints

LEVELS = ("order", "family", "species")
COLUMNS = ("class", "family", "order")


class Params(Section):
    plug_points: Annotated[PlugPoints, Field(min_length=2, max_length=2)]
    """The maps that the order's and the family's heads read, by depth. Published: conv3, conv4 of VGG16
    (the authors' code)."""
    hierarchy: FilePath | None
    """CSV of class, family, order (CUB's: data/cub_taxonomy.csv). null: clusters of the classes' mean features.
    DVC does not watch the file: after an edit, `dvc repro -f train`."""
    families: Annotated[int, Field(ge=1)]
    """At most so many. CUB has 37 (the paper's count, too)."""
    orders: Annotated[int, Field(ge=1)]
    """At most so many. CUB has 13 by today's taxonomy (the paper: 11)."""
    maps: Annotated[int, Field(ge=2)]
    """R, the maps of each class at each level. Published: 8 for VGG16 (the authors' code)."""
    discrepancy_weight: Annotated[float, Field(ge=0)]
    """λ. Published: 0.01 (the authors' CUB script)."""
    width: Annotated[int, Field(ge=2)]
    """Channels inside a head; the order's has half. Published: 1024 (the authors' code)."""


def discrepancy(maps: Tensor) -> Tensor:
    """Eq. 4: |Σ_{i<j} cos(v_i, v_j)| over the pairs, mean over images; [B, n, h·w] → []."""
    unit = maps / (maps.square().sum(2, keepdim=True) + 1e-8).sqrt()
    cosines = (unit @ unit.mT).triu(1).sum((1, 2))
    count = maps.shape[1]
    return (cosines.abs() / (count * (count - 1) / 2)).mean()


class Method(base.Method):
    params: Params
    family: Tensor
    order: Tensor

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.points = [p for p in backbone.points if p in params.plug_points]
        self.sizes = {
            "order": min(params.orders, num_classes),
            "family": min(params.families, num_classes),
            "species": num_classes,
        }
        channels = [*(backbone.channels[p] for p in self.points), backbone.out_channels]
        widths = (params.width // 2, params.width, params.width)
        self.heads = nn.ModuleDict(
            {
                level: conv_head(c, width, self.sizes[level] * params.maps)
                for level, c, width in zip(LEVELS, channels, widths, strict=True)
            }
        )
        for level in ("family", "order"):  # which of them each class belongs to
            self.register_buffer(level, torch.arange(num_classes) % self.sizes[level])
        self._chosen = torch.arange(3 * params.maps // 2)

    def add_head(self, channels: int, num_classes: int) -> None:
        """Heads need the plug points and are built in __init__."""

    def begin_training(self, class_names: list[str], images: Images) -> list[str]:
        limits = self.sizes["family"], self.sizes["order"]
        file = self.params.hierarchy
        if file is None:
            found = clustered(self._class_features(images), limits)
        else:
            found = hierarchy_of(class_names, file, limits)
        for name in ("family", "order"):
            self.get_buffer(name).copy_(torch.tensor(getattr(found, name)))
        return [f"danet: {found.source}; {found.counts()}"]

    @torch.no_grad()
    def _class_features(self, images: Images) -> Tensor:
        """Each class's mean feature vector, float32 [K, C]."""
        total = torch.zeros(self.num_classes, self.backbone.out_channels)
        count = torch.zeros(self.num_classes, 1)
        for batch, labels in images():
            vectors = self.backbone(batch).mean((2, 3)).float().cpu()
            total.index_add_(0, labels.cpu(), vectors)
            count.index_add_(0, labels.cpu(), torch.ones(len(labels), 1))
        return total / count.clamp_min(1)

    def on_batch(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw the half of the 3R maps of a class that are compared in a step."""
        drawn = torch.randperm(3 * self.params.maps, generator=generator)
        self._chosen = drawn[: 3 * self.params.maps // 2].to(images.device, non_blocking=True)
        return images, targets

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Outputs:
        seen: list[Tensor] = []

        def at(point: str, features: Tensor) -> Tensor:
            if point in self.points:
                seen.append(features)
            return features

        outputs = self.head(self.backbone(images, at), targets)
        for level, features in zip(LEVELS[:2], seen, strict=True):
            outputs.extras[level] = self._maps(level, features)
        return outputs

    def head(self, features: Tensor, targets: Tensor | None) -> Outputs:
        """The species' logits; families and orders are computed from their plug points."""
        maps = self._maps("species", features)
        return Outputs(_logits(maps), features, {"species": maps})

    def _maps(self, level: str, features: Tensor) -> Tensor:
        maps: Tensor = self.heads[level](features)
        return maps.unflatten(1, (self.sizes[level], -1))

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        """L = ½ (L_order + L_family + L_species) + λ·L_discrepancy."""
        total = self.params.discrepancy_weight * self._discrepancy(outputs, targets)
        for level in LEVELS:
            labels = targets if level == "species" else self.get_buffer(level)[targets]
            total = total + criterion(_logits(outputs.extras[level]), labels) / 2
        return total

    def _discrepancy(self, outputs: Outputs, targets: Tensor) -> Tensor:
        maps = self._of_class(outputs, targets[:, None], corners=True).flatten(1, 3)
        return discrepancy(maps[:, self._chosen].flatten(2))

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        """Σ over levels of the mean of the class's R rectified maps."""
        return self._of_class(outputs, classes, corners=False, rectified=True).mean(3).sum(2)

    def _of_class(
        self, outputs: Outputs, classes: Tensor, *, corners: bool, rectified: bool = False
    ) -> Tensor:
        """The R maps of each asked class at each level, at the first level's size: [B, Q, 3, R, h, w]."""
        size, found = outputs.extras["order"].shape[3:], []
        for level in LEVELS:
            groups = classes if level == "species" else self.get_buffer(level)[classes]
            maps = class_maps.of_class(outputs.extras[level].float(), groups)
            maps = maps.relu() if rectified else maps
            flat = F.interpolate(
                maps.flatten(0, 1), size=size, mode="bilinear", align_corners=corners
            )
            found.append(flat.unflatten(0, classes.shape))
        return torch.stack(found, 2)


def _logits(maps: Tensor) -> Tensor:
    """The mean of each class's maps: [B, n, R, h, w] → float32 [B, n]."""
    return maps.mean((2, 3, 4), dtype=torch.float32)


@dataclass(frozen=True)
class Hierarchy:
    """Index of each class's family and order, and their source."""

    family: list[int]
    order: list[int]
    source: str

    def counts(self) -> str:
        return (
            f"{len(self.family)} classes, {len(set(self.family))} families, "
            f"{len(set(self.order))} orders"
        )


def hierarchy_of(class_names: list[str], file: str, limits: tuple[int, int]) -> Hierarchy:
    """The families and orders of `class_names` in the CSV `file`.

    limits: the most families and orders. Raises UserError for a table that lacks a class or has more.
    """
    path = Path(file)
    where = f"{path} (params.yaml: methods.danet.hierarchy)"
    rows = [line.values for line in tables.read(path, COLUMNS, where)]
    table = {row["class"]: (row["family"], row["order"]) for row in rows}
    if missing := [name for name in class_names if name not in table]:
        raise UserError(f"{where} lacks {len(missing)} classes (first: {missing[0]})")
    families, orders = zip(*(table[name] for name in class_names), strict=True)
    for kind, names, limit in (("families", families, limits[0]), ("orders", orders, limits[1])):
        if len(set(names)) > limit:
            raise UserError(
                f"{where} has {len(set(names))} {kind}; params.yaml: methods.danet.{kind} allows {limit}"
            )
    return Hierarchy(
        _numbered(families), _numbered(orders), f"families and orders from {path.name}"
    )


def _numbered(names: tuple[str, ...]) -> list[int]:
    index = {name: k for k, name in enumerate(sorted(set(names)))}
    return [index[name] for name in names]


def clustered(features: Tensor, limits: tuple[int, int]) -> Hierarchy:
    """Ward clusters of the classes' feature vectors [K, C], and clusters of those: K/5 and K/15 of them."""
    vectors = features.numpy().astype(np.float64)
    count = len(vectors)
    family = _clusters(vectors, min(limits[0], -(-count // 5)))
    centres = np.stack([vectors[family == k].mean(0) for k in range(family.max() + 1)])
    order = _clusters(centres, min(limits[1], -(-len(centres) // 3)))[family]
    return Hierarchy(family.tolist(), order.tolist(), "families and orders by clustering features")


def _clusters(vectors: np.ndarray, count: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering  # here, since it takes long to import

    if count < 2 or len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    labels: np.ndarray = AgglomerativeClustering(count).fit_predict(vectors)
    return labels
