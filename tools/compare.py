"""Compare two runs: paired differences on the same images, with 95 % bootstrap intervals.

wsol compare before/metrics metrics

A and B are per_image.csv files, or folders that hold one. The errors come from its columns: label and
predicted (top-1), in_top5, iou_true (GT-known), iou_predicted.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.files import write_json

Rows = dict[str, dict[str, str]]  # by image


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="per_image.csv, or the folder it is in")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument(
        "--common",
        action="store_true",
        help="compare on the images that both have, if not the same",
    )
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="resamples (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the resamples (default %(default)s)"
    )


def main(options: argparse.Namespace) -> None:
    if options.bootstrap < 1:
        raise UserError(f"--bootstrap is {options.bootstrap}; allowed: 1 or more")
    a, b = (read(path) for path in (options.a, options.b))
    images = images_of(a, b, options)
    result = compare(a, b, images, bootstrap=options.bootstrap, seed=options.seed)
    print(f"{len(images)} images; errors in percent, B − A with its 95 % interval over images")
    for name, of in result.items():
        d = of["difference"]
        print(
            f"{name:18}{of['a']['value']:7.2f} → {of['b']['value']:5.2f}  {d['value']:+6.2f} "
            f"({d['low']:+.2f} … {d['high']:+.2f})  {verdict(d)}"
        )
    if options.out:
        values = {name: {**of, "verdict": verdict(of["difference"])} for name, of in result.items()}
        write_json(
            options.out,
            {"a": str(options.a), "b": str(options.b), "n": len(images), "errors": values},
        )


def read(path: Path) -> Rows:
    """The rows of a per_image.csv by image."""
    path = path / "per_image.csv" if path.is_dir() else path
    rows = [line.values for line in tables.read(path, ["id"])]
    if not rows:
        raise UserError(f"{path} has no rows; needed: a per_image.csv of evaluate")
    by_image = {row["id"]: row for row in rows}
    if len(by_image) < len(rows):
        raise UserError(f"{path} has {len(rows) - len(by_image)} images more than once")
    return by_image


def images_of(a: Rows, b: Rows, options: argparse.Namespace) -> list[str]:
    """The images to compare on; UserError unless both runs have the same, labelled the same."""
    common = [image for image in a if image in b]
    problems = []
    for path, mine, other in ((options.a, a, b), (options.b, b, a)):
        only = [image for image in mine if image not in other]
        if only and not options.common:
            problems.append(
                f"{len(only)} images are only in {path}: {', '.join(only[:3])}, …; "
                "--common compares on the others"
            )
    if not common:
        problems.append(f"{options.a} and {options.b} have no image in common")
    relabelled = [i for i in common if a[i].get("label") != b[i].get("label")]
    if relabelled:
        problems.append(
            f"{len(relabelled)} images have another label in {options.b}, as {relabelled[0]}: "
            "other data, or a per_image.csv of another kind"
        )
    if problems:
        raise UserError(problems)
    return common


def compare(
    a: Rows, b: Rows, images: list[str], *, bootstrap: int, seed: int
) -> dict[str, dict[str, metrics.Figure]]:
    """For each error that both files tell of: a, b and the difference b − a, image by image."""
    before, after = errors(a, images), errors(b, images)
    result = {
        name: metrics.paired_difference(before[name], after[name], bootstrap=bootstrap, seed=seed)
        for name in before
        if name in after and not np.isnan(before[name] + after[name]).all()
    }
    if not result:
        raise UserError(
            "the two files have no error in common; needed: label and predicted, in_top5, or iou_true"
        )
    return result


def errors(rows: Rows, images: list[str]) -> dict[str, NDArray[np.float64]]:
    """Each error the columns tell of: 1 wrong, 0 right, NaN without a box to tell by; [N]."""
    known = rows[images[0]]
    columns = {name: np.array([rows[image][name] for image in images]) for name in known}
    hits: dict[str, NDArray[np.bool_]] = {}
    if "label" in known and "predicted" in known:
        hits["top1_cls_err"] = columns["label"] == columns["predicted"]
    if "in_top5" in known:
        hits["top5_cls_err"] = columns["in_top5"] == "1"
    result = {name: np.where(hit, 0.0, 1.0) for name, hit in hits.items()}
    if "iou_predicted" in known and "top1_cls_err" in hits:
        result["top1_loc_err"] = missed(columns["iou_predicted"], hits["top1_cls_err"])
    if "iou_true" in known:
        if "top5_cls_err" in hits:
            result["top5_loc_err"] = missed(columns["iou_true"], hits["top5_cls_err"])
        result["gt_known_loc_err"] = missed(columns["iou_true"], np.ones(len(images), np.bool_))
    return result


def missed(iou: NDArray[np.str_], named: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 where the class was not named or the box missed, else 0; NaN where the IoU is left empty."""
    values = np.where(iou == "", "nan", iou).astype(np.float64)
    return np.where(np.isnan(values), np.nan, ~(named & (values >= metrics.IOU_CORRECT)))


def verdict(difference: metrics.Figure) -> str:
    """What the interval says."""
    if difference["low"] > 0:
        return "B is worse"
    if difference["high"] < 0:
        return "B is better"
    return "no difference shown: the interval holds 0"
