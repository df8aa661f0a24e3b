"""A params.yaml with made-up datasets, methods and backbones, for tests of what is said about it."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from pipeline import params
from pipeline.errors import UserError
from pipeline.params import DatasetSection, Section
from pipeline.params.plug_points import PlugPoints

TEXT = """
dataset: made
method: hide
backbone: small
weights: none
seed: 0
localizer: plain_map
heatmap: cam
datasets:
  made: {classes: 8}
  other: {folder: a, boxes: null}
prepare: {short_side: 128, jpeg_quality: 95, val_fraction: 0.1, val_seed: 0, skip_unreadable: false}
input: {resize: 144, crop: 128, test: squash}
train:
  trunk: tuned
  epochs: 14
  min_steps: 0
  batch_size: 32
  learning_rate: 0.02
  head_multiplier: 1
  momentum: 0.9
  weight_decay: 0.0005
  schedule: cosine
  step_epochs: 15
  warmup_epochs: 1
  loss: cross_entropy
  batchnorm: train
  precision: auto
  compile: false
  device: auto
  processes: 1
  workers: 2
  cache_mib: 2048
  per_method:
    plain: {learning_rate_scale: 0.1, epochs_scale: 2.0, batch_size_scale: 1.0, step_share: null}
heatmaps: {layer: last, samples: 8, noise: 0.15, channels: 64, batch_size: 64}
box:
  normalise: min_max
  ivr_quantile: 0.45
  selection: auto
  threshold: 0.2
  two_stage: {step: 0.05, min_seeds: 4, seeds: sides, center: true}
  protocol: classic
localize: {features_mib: 64}
evaluate: {batch_size: 64, thresholds: 100, bootstrap: 1000, pictures: 8, keep_mib: 64}
localizers:
  plain_map: {}
  taught: {teacher: cells}
  cells: {rounds: 1}
methods:
  plain: {}
  hide: {plug_points: [pool4, last], threshold: 0.8, how: hard}
ablate:
  run: [methods]
  core: [methods-plain, hide-late]
  variants:
    methods-plain: {method: plain}
    hide-late: {method: hide, set: {methods.hide.plug_points: [last]}}
    hide-soft: {method: hide, backbone: big, set: {methods.hide.how: soft, train.epochs: 3}}
"""


class Made(DatasetSection):
    classes: Annotated[int, Field(ge=2)]


class Other(DatasetSection):
    folder: str
    boxes: Annotated[str, Field(pattern="csv$")] | None

    own_val = True

    def without_val_boxes(self) -> str | None:
        return None if self.boxes else "datasets.other.boxes is null"


class Hide(Section):
    plug_points: PlugPoints
    threshold: Annotated[float, Field(ge=0, le=1)]
    how: Literal["hard", "soft"]


class Taught(Section):
    teacher: str


class Cells(Section):
    rounds: Annotated[int, Field(ge=0)]


SECTIONS: dict[str, dict[str, type[Section]]] = {
    "datasets": {"made": Made, "other": Other},
    "localizers": {"plain_map": type("PlainMap", (Section,), {}), "taught": Taught, "cells": Cells},
    "methods": {"hide": Hide, "plain": type("Plain", (Section,), {})},
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a params.yaml whose datasets, methods and backbones are made up."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(TEXT)
    monkeypatch.setattr(params, "names", lambda kind: sorted(SECTIONS[kind]))
    backbones = ModuleType("backbones")
    backbones.problems = lambda name, weights: (  # type: ignore[attr-defined]
        [] if name in ("small", "big") else [f"backbone is {name!r}; allowed: small, big"]
    )
    monkeypatch.setitem(sys.modules, "pipeline.backbones", backbones)
    for kind, sections in SECTIONS.items():
        for name, section in sections.items():
            module = ModuleType(name)
            module.Params = section  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, f"pipeline.{kind}.{name}", module)


def write(changes: Mapping[str, object]) -> None:
    """params.yaml with other values at dotted keys; `...` takes the key out."""
    values = yaml.safe_load(TEXT)
    for key, value in changes.items():
        section = values
        *parents, last = key.split("/") if "/" in key else key.split(".")
        for parent in parents:
            section = section[parent]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def told(read: Callable[[], object]) -> list[str]:
    """The problems that `read` raises, without the file's name before each."""
    with pytest.raises(UserError) as error:
        read()
    assert all(problem.startswith("params.yaml: ") for problem in error.value.problems)
    return [problem.removeprefix("params.yaml: ") for problem in error.value.problems]
