"""Localizers as params.yaml sets them, and training images whose feature maps are made up."""

from functools import cache
from importlib import import_module
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from pipeline import localizers
from pipeline.localizers import base
from pipeline.methods.base import Outputs
from pipeline.params import Section
from tests.imports import ROOT

CLASSES = 3
CHANNELS = {"stride16_early": 4, "stride16_late": 6, "deep": 5, "last": 8}
GRID = (8, 12)  # not square


@cache
def _raw() -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "params.yaml").read_text())[
        "localizers"
    ]
    return sections


def params(name: str, **changes: Any) -> Any:
    """The localizer's section of params.yaml with some values changed."""
    section: type[Section] = import_module(f"pipeline.localizers.{name}").Params
    return section.model_validate({**_raw()[name], **changes})


class Trunk:
    """Feature maps by depth, each a tensor of its own."""

    def __init__(self) -> None:
        self.channels = dict(CHANNELS)
        self.native = "stride16_late"


def build(name: str, **changes: Any) -> Any:
    sections = {other: params(other) for other in localizers.names()}
    return localizers.build(name, Trunk(), CLASSES, {**sections, name: params(name, **changes)})


def photographs(
    count: int, seed: int = 0, grid: tuple[int, int] = GRID
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Feature maps by depth, labels [n] and the objects' masks bool [n, h, w].

    Each class has a channel of its own where the object is, blurred at the last depth; another channel is on
    wherever there is no object.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    masks = torch.zeros(count, *grid, dtype=torch.bool)
    for mask in masks:
        top, left = (int(torch.randint(1, side - 4, (), generator=generator)) for side in grid)
        mask[top : top + 3, left : left + 4] = True
    features = {}
    for depth, channels in CHANNELS.items():
        x = torch.rand(count, channels, *grid, generator=generator) * 0.2
        x[:, CLASSES] += (~masks).float()
        x[torch.arange(count), labels] += 2 * masks.float()
        if depth == "last":
            x = avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        features[depth] = x
    return features, labels, masks


def training(features: dict[str, Tensor], labels: Tensor) -> base.Training:
    def maps(depth: str, rows: base.Rows) -> Tensor:
        return features[depth][rows]

    return base.Training(labels, CLASSES, maps, maps, seed=0)


def read(localizer: Any, features: dict[str, Tensor], classes: Tensor) -> Tensor:
    """Maps or boxes as evaluation asks for them: of the localizer's own depths only."""
    given = {depth: features[depth] for depth in localizer.depths}
    logits = torch.zeros(len(classes), CLASSES)
    read_off = localizer.boxes if localizer.regresses else localizer.maps
    with torch.no_grad():
        found: Tensor = read_off(given, Outputs(logits, features["last"]), classes)
    return found
