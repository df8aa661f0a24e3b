"""What the stages measured, read back from metrics/: the main run, the ablations, differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation import metrics
from pipeline.evaluation.formats import localization, per_image
from pipeline.evaluation.metrics import Figure


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
        return localization.centre_box(self.values)

    def figure(self, name: str) -> Figure | None:
        """The named figure; None where it does not exist (no boxes to score against)."""
        return localization.figure(self.values, name)

    @cached_property
    def images(self) -> per_image.Rows:
        """The rows of each image; empty where their file is absent."""
        path = self.folder / per_image.FILE
        return per_image.read(path) if path.exists() else {}


@dataclass(frozen=True)
class Results:
    """All that metrics/ holds; `missing`: variants without results."""

    main: Run
    variants: Mapping[str, Run]
    missing: Sequence[str]

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
    """Read `metrics`: the variants of `changes`, or all there are.

    changes: each variant's own values by `<name in ablate.run>/<variant>`.

    Raises UserError when the evaluation has not been run or a file is not what it should be.
    """
    folder = metrics / "ablation"
    if changes is None:
        found = localization.below(folder)
        changes = {path.relative_to(folder).as_posix(): {} for path in found}
    variants: dict[str, Run] = {}
    missing: list[str] = []
    for place, own in changes.items():
        key = place.rpartition("/")[2]
        if localization.exists(folder / place):
            variants[key] = Run(key, folder / place, localization.read(folder / place), own)
        else:
            missing.append(key)
    return Results(Run("", metrics, localization.read(metrics)), variants, missing)


def difference(run: Run, other: Run, name: str) -> Figure | None:
    """`run` minus `other` in percentage points, with the interval that `wsol compare` prints.

    Over images scored by both (paired), it is much narrower than the two runs' own intervals suggest.
    Without one where their images are not the same.
    """
    mine, theirs = run.figure(name), other.figure(name)
    if mine is None or theirs is None:
        return None
    value = mine.value - theirs.value
    images = list(other.images)
    if not images or run.images.keys() != other.images.keys():
        return Figure(value)
    scored = (per_image.scored(of.images, images) for of in (other, run))
    a, b = (metrics.per_image(of).get(name) for of in scored)
    if a is None or b is None or (np.isnan(a) != np.isnan(b)).any() or np.isnan(a).all():
        return Figure(value)
    found = metrics.paired_difference(a, b, bootstrap=metrics.RESAMPLES, seed=0)["difference"]
    return Figure(value, found.low, found.high)
