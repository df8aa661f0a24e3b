"""The contract of a localizer: fitted once to training images and their labels, never to a box.

    localizer.fit(training)                          # what is learned ends up in buffers or parameters
    maps = localizer.maps(features, outputs, classes)

Maps are raw: the box is that of the largest component above a threshold, 0 in the map's own units where
`unit` is `absolute`, a share of the map's range where it is `relative`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.boxes.rules.base import Unit
from pipeline.methods.base import Outputs
from pipeline.params import Section

LAST, DEEP = "last", "deep"

AT_ONCE = 32
"""Training images whose feature maps are in memory at a time."""

Rows = slice | Tensor
Maps = Callable[[str, Rows], Tensor]
"""Float32 feature maps [n, C, h, w] at a depth, of the given training images."""


class Depths(Protocol):
    """What a localizer needs to know of a backbone: its feature maps by depth."""

    @property
    def channels(self) -> Mapping[str, int]: ...
    @property
    def native(self) -> str:
        """The deepest map that has its native 1/16 resolution: behind it, a stride was removed."""


@dataclass(frozen=True)
class Training:
    """What a localizer is fitted to. There are no boxes in it.

    labels: int64 [N], of the training images or an even sample of each class; `trained` gives their
    feature maps by the trained trunk, `pretrained` by the trunk as it was loaded: the same where training
    left it alone, or where it was trained from random weights.
    """

    labels: Tensor
    classes: int
    trained: Maps
    pretrained: Maps
    seed: int

    def batches(self, of: Tensor | None = None) -> Iterator[Tensor]:
        """Indices int64 [n] of all images, or `of` these, a batch at a time."""
        yield from (torch.arange(len(self.labels)) if of is None else of).split(AT_ONCE)

    def generator(self) -> torch.Generator:
        """Random numbers, the same for the same seed."""
        return torch.Generator().manual_seed(self.seed)


class Localizer(nn.Module):
    """Reads the heatmap of a class off feature maps; what it has learned is its state dict."""

    unit: Unit = "absolute"
    threshold: float = 0.0
    """Of absolute maps: the border of the object."""
    regresses: bool = False
    """Whether it answers with `boxes` instead of `maps`."""
    depths: tuple[str, ...] = (LAST,)
    """Feature maps that `maps` is given, by the trained trunk."""
    pretrained_depths: tuple[str, ...] = ()
    """Feature maps that only `fit` looks at, by the trunk as it was loaded."""
    learns_from: tuple[str, ...] = ()
    """Other localizers whose boxes `fit` learns from; they are its submodules, by name."""
    needs_fit: bool = True

    def __init__(self, backbone: Depths, num_classes: int, params: Section) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.params: Section = params

    def needed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The depths that `fit` reads, with its teachers': by the trained trunk, and by the trunk as loaded."""
        every = [part for part in self.modules() if isinstance(part, Localizer)]
        trained = dict.fromkeys(depth for part in every for depth in part.depths)
        return tuple(trained), tuple(dict.fromkeys(d for p in every for d in p.pretrained_depths))

    def fit(self, training: Training) -> list[str]:
        """Learn from the training images; lines for the log."""
        return []

    def maps(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """Raw maps float32 [B, Q, h, w] of the asked `classes` int64 [B, Q].

        features: [B, C, h, w] by depth, those of `depths`; outputs: what the trained method says.
        """
        raise NotImplementedError

    def boxes(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """Boxes [B, Q, 4] as shares of the network's input: x0, y0, x1, y1 in 0 … 1."""
        raise NotImplementedError


def cells(features: Tensor) -> Tensor:
    """Feature maps [B, C, h, w] as a row per cell: float32 [B, h·w, C]."""
    return features.float().flatten(2).mT


def border(size: tuple[int, int], device: torch.device) -> Tensor:
    """Which cells of a map of (height, width) lie at its edge: bool [h, w]."""
    mask = torch.ones(size, dtype=torch.bool, device=device)
    mask[1:-1, 1:-1] = False
    return mask


def same_for_all(maps: Tensor, classes: Tensor) -> Tensor:
    """Class-agnostic maps [B, h, w] as the map of every asked class [B, Q]: [B, Q, h, w]."""
    return maps[:, None].expand(-1, classes.shape[1], -1, -1)
