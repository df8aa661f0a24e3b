"""What the stages measured, read back from metrics/: the main run, the ablations, differences."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import UserError
from pipeline.files import read_json


class Figure(NamedTuple):
    """A value in percent (or percentage points) and its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Run:
    """One evaluated model: the folder of its files and what localization.json says.

    `key` is `<study>-<variant>` of ablate.variants, or "" for the run of the top of params.yaml;
    `changes` are the variant's own values by dotted key.
    """

    key: str
    folder: Path
    values: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def study(self) -> str:
        return self.key.partition("-")[0]

    @property
    def variant(self) -> str:
        return self.key.partition("-")[2]

    @property
    def setting(self) -> tuple[str, str, str, int, int]:
        """What must be equal for two runs' figures to be comparable, the method apart."""
        names = ("dataset", "backbone", "weights", "seed", "n")
        dataset, backbone, weights, seed, n = (self.values[name] for name in names)
        return dataset, backbone, weights, seed, n

    def described(self) -> str:
        """The setting in words."""
        dataset, backbone, weights, seed, n = self.setting
        return f"{dataset}, {backbone}, weights {weights}, seed {seed}, {n:,} test images"

    def boxes(self) -> str:
        """How a heatmap became a box: `fixed 0.2`, `val 0.35`, `two_stage`."""
        label: str = self.values.get("boxes", {}).get("label", "unknown")
        return label

    @property
    def threshold(self) -> float | None:
        """The one threshold of all images; None where each image has its own."""
        return None if self.values.get("boxes", {}).get("per_image") else self.values["threshold"]

    @property
    def centre_box(self) -> dict[str, float]:
        """Figures of the baseline that looks at nothing; empty where there are no boxes."""
        figures: dict[str, float] = self.values.get("baselines", {}).get("centre_box", {})
        return figures

    def figure(self, name: str) -> Figure | None:
        """The named figure; None where it does not exist (no boxes to score against)."""
        if self.values.get(name) is None:
            return None
        low, high = self.values.get("intervals", {}).get(name, (None, None))
        return Figure(self.values[name], low, high)

    @cached_property
    def wrong(self) -> dict[str, dict[str, float]]:
        """Per figure and image id, 100 where the model is wrong and 0 where it is right.

        From per_image.csv; images without a true box are left out of the box figures. Empty where
        the file is absent.
        """
        path = self.folder / "per_image.csv"
        if not path.exists():
            return {}
        wrong: dict[str, dict[str, float]] = {
            "top1_cls_err": {},
            "top1_loc_err": {},
            "gt_known_loc_err": {},
        }
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                miss = row["predicted"] != row["label"]
                wrong["top1_cls_err"][row["id"]] = 100.0 * miss
                if row["iou_true"]:
                    off = miss or float(row["iou_predicted"]) < 0.5
                    wrong["top1_loc_err"][row["id"]] = 100.0 * off
                    wrong["gt_known_loc_err"][row["id"]] = 100.0 * (float(row["iou_true"]) < 0.5)
        return wrong


@dataclass(frozen=True)
class Results:
    """All that metrics/ holds; `skipped`: variants by the switch that is off, "" without results."""

    main: Run
    variants: Mapping[str, Run]
    skipped: Mapping[str, Sequence[str]]

    def plain(self, method: str, like: Run) -> Run | None:
        """`method` as params.yaml sets it, in the same setting as `like`."""
        study = [run for run in self.variants.values() if run.study == "methods"]
        for run in (*study, self.main):
            if run.values["method"] == method and run.setting == like.setting:
                return run
        return None

    def baseline(self, study: str, run: Run) -> Run | None:
        """What a row of `study` is compared with: its own row `<study>-cam` (CAM at the same rate), else
        CAM for methods and the unchanged method for others.

        A study's method is that of its first variant; the baseline itself has none.
        """
        own = self.variants.get(f"{study}-cam")
        if own is not None and own.setting == run.setting:
            return None if own is run else own
        method = "cam"
        if study != "methods":
            method = next(r.values["method"] for r in self.variants.values() if r.study == study)
        other = self.plain(method, run)
        return None if other is run else other


def read(metrics: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Results:
    """Read `metrics`: the variants of `changes` (each one's own values), or all there are.

    Raises UserError when the evaluation has not been run or a file is not what it should be.
    """
    folder = metrics / "ablation"
    if changes is None:
        found = sorted(path.parent.name for path in folder.glob("*/localization.json"))
        changes = {key: {} for key in found}
    variants: dict[str, Run] = {}
    skipped: dict[str, list[str]] = {}
    for key, own in changes.items():
        if not (folder / key / "localization.json").exists():
            skipped.setdefault("", []).append(key)
            continue
        values = _localization(folder / key)
        if values.get("run") is False:
            skipped.setdefault(values.get("when", "ablate"), []).append(key)
        else:
            variants[key] = Run(key, folder / key, values, own)
    return Results(Run("", metrics, _localization(metrics)), variants, skipped)


def columns(path: Path) -> dict[str, np.ndarray]:
    """A CSV file of numbers by column, NaN where a cell is empty; {} where the file is absent."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows or [{}])[0]
    }


def _localization(folder: Path) -> dict[str, Any]:
    path = folder / "localization.json"
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro evaluate` writes it") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from error
    needed = ("dataset", "method", "backbone", "weights", "seed", "n")
    missing = [name for name in needed if name not in values]
    if missing and values.get("run") is not False:
        raise UserError(f"{path} has no {', '.join(missing)}; delete it and run `dvc repro`")
    return values


def difference(run: Run, other: Run, name: str) -> Figure | None:
    """`run` minus `other` in percentage points.

    The interval is the normal approximation over images scored by both (paired): much narrower than
    the two runs' own intervals suggest. Without one where their images are not the same.
    """
    mine, theirs = run.figure(name), other.figure(name)
    if mine is None or theirs is None:
        return None
    value = mine.value - theirs.value
    a, b = run.wrong.get(name), other.wrong.get(name)
    if not a or not b or a.keys() != b.keys() or len(a) < 2:
        return Figure(value)
    per_image = np.array([a[key] - b[key] for key in a])
    spread = 1.96 * float(per_image.std(ddof=1)) / math.sqrt(len(per_image))
    return Figure(value, value - spread, value + spread)
