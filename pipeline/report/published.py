"""The thesis's result tables as data, and which of our variants stands beside which row."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.evaluation.metrics import GT_KNOWN, METRICS, Metric
from pipeline.evaluation.runs import Results, Run

TABLE = Path(__file__).with_suffix(".csv")
TITLES = {
    1: "ASS: where it is plugged in",
    2: "ASS: hiding every time or by strategy",
    3: "ASS among other methods, CUB-200-2011",
    4: "ASS among other methods, ILSVRC",
    5: "AHD among other methods, CUB-200-2011",
    6: "AHD among other methods, ILSVRC",
    7: "AHD: where it is plugged in",
    8: "AHD: what is hidden",
    9: "GT-known localization",
    10: "RCAM among other methods, CUB-200-2011",
}
NAMES = {
    "acol": "ACoL",
    "cutmix": "CutMix",
    "danet": "DANet",
    "has": "HaS",
    "nl_ccam": "NL-CCAM",
}  # the others: in capitals
TEST_IMAGES = {"cub": 5794, "ilsvrc": 50_000}  # of the whole sets, which the thesis scores on

# (table, published variant) → the key of ablate.variants that makes the same change; rows without
# a variant stand beside methods-<method>.
VARIANTS = {
    (1, "conv5_3"): "positions_ass-conv5_3",
    (1, "conv5_3+pool4"): "positions_ass-pool4",
    (1, "conv5_3+pool4+pool3"): "methods-ass",
    (1, "conv5_3+pool4+pool3+pool2"): "positions_ass-pool2",
    (1, "conv5_3+pool4+pool3+pool2+pool1"): "positions_ass-pool1",
    (2, "always hide M_drop1"): "selection-always",
    (2, "selection strategy"): "methods-ass",
    (7, "conv5_3"): "positions_ahd-conv5_3",
    (7, "conv5_3+pool4"): "positions_ahd-pool4",
    (7, "conv5_3+pool4+pool3"): "methods-ahd",
    (7, "conv5_3+pool4+pool3+pool2"): "positions_ahd-pool2",
    (7, "conv5_3+pool4+pool3+pool2+pool1"): "positions_ahd-pool1",
    (8, "attention mask"): "masks-attention",
    (8, "attention mask + top-1 spatial"): "masks-attention_spatial",
    (8, "attention mask + top-1 spatial + top-1 channel"): "methods-ahd",
    (8, "attention mask + top-2 spatial"): "masks-spatial2",
    (8, "attention mask + top-2 channel"): "masks-channel2",
    (10, "multi-module"): "methods-meil",  # the figures are those of MEIL's paper
}


@dataclass(frozen=True)
class Row:
    """One printed row; `figures` keeps the digits as printed, percent, without the empty ones."""

    table: int
    dataset: str
    backbone: str
    method: str
    variant: str
    figures: dict[str, str]

    @property
    def key(self) -> str:
        """The variant of `ablate` that belongs beside this row."""
        return VARIANTS.get((self.table, self.variant), f"methods-{self.method}")


@cache
def printed() -> tuple[Metric, ...]:
    """The metrics that the thesis prints: columns of published.csv."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    return tuple(metric for metric in METRICS if metric.name in header)


@cache
def rows() -> tuple[Row, ...]:
    """All rows of all tables, in the thesis's order."""
    names = [metric.name for metric in printed()]
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(
            Row(
                int(line["table"]),
                line["dataset"],
                line["backbone"],
                line["method"],
                line["variant"],
                {name: line[name] for name in names if line[name]},
            )
            for line in csv.DictReader(file)
        )


def tables(dataset: str) -> dict[int, list[Row]]:
    """The tables to show beside a run on `dataset`: those of ILSVRC (4, 6) only beside ILSVRC."""
    shown: dict[int, list[Row]] = {}
    for row in rows():
        if dataset == "ilsvrc" or row.dataset != "ilsvrc":
            shown.setdefault(row.table, []).append(row)
    return shown


def contradiction() -> str:
    """Why the thesis's rows of CAM on CUB-200-2011 and VGG16 cannot be of one model."""
    cam = [r for r in rows() if (r.dataset, r.backbone, r.method) == ("cub", "vgg16", "cam")]
    first, ninth = (next(r.figures for r in cam if r.table == number) for number in (5, 9))
    wrong, known = first["top1_cls_err"], ninth[GT_KNOWN.name]
    bound = float(wrong) + float(known)
    return (
        "The thesis's CAM rows contradict each other. Where the predicted class is right, top-1 and "
        "GT-known localization read the same box, so that CAM's top-1 localization error is at most "
        f"{wrong} + {known} = {bound:.2f} by tables 5 and 9; printed is {first['top1_loc_err']}. Other "
        "reruns of CAM on VGG16 have 55.8."
    )


def name(method: str) -> str:
    """The method's name as papers print it."""
    return NAMES.get(method, method.upper())


def name_of(run: Run) -> str:
    """The name of a run's method, and whether its file is a reconstruction."""
    note = " (reconstruction)" if run.values.get("reconstruction") else ""
    return name(run.values["method"]) + note


def beside(results: Results, rows: Sequence[Row]) -> list[tuple[Row, Run | None]]:
    """A table's rows, each with our run of the same method and change, or None.

    A run stands beside the rows of its own backbone; where the table has none, beside VGG16's.
    """
    printed = {row.backbone for row in rows}
    return [(row, _run_for(results, row, printed)) for row in rows]


def _run_for(results: Results, row: Row, printed: set[str]) -> Run | None:
    exact = results.variants.get(row.key)
    runs = [exact] if exact else []
    if row.key == f"methods-{row.method}":
        runs += [run for run in results.variants.values() if run.study == "methods"]
        runs += [results.main]
    for run in runs:
        backbone = run.values["backbone"]
        if backbone not in printed:
            backbone = "vgg16"
        if run.values["method"] == row.method and backbone == row.backbone:
            return run
    return None


def same_setting(row: Row, run: Run) -> bool:
    """Whether dataset (all of its test images), backbone and starting weights are the thesis's."""
    dataset, backbone, weights, _, n = run.setting
    ours = (dataset, backbone, weights, n)
    return ours == (row.dataset, row.backbone, "imagenet", TEST_IMAGES[row.dataset])
