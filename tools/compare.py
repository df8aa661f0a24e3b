"""Compare two runs: paired differences on the same images, with 95 % bootstrap intervals.

wsol compare before/metrics metrics

A and B are per_image.csv files, or folders that hold one. The errors come from its columns: label and
predicted (top-1), in_top5, iou_true (GT-known), iou_predicted.
"""

import argparse
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.evaluation.formats.per_image import Rows, read, scored
from pipeline.evaluation.metrics import Figure
from pipeline.files import write_json


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
        "--bootstrap", type=int, default=metrics.RESAMPLES, help="resamples (default %(default)s)"
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
            f"{name:18}{of['a'].value:7.2f} → {of['b'].value:5.2f}  {d.value:+6.2f} "
            f"({d.low:+.2f} … {d.high:+.2f})  {verdict(name, d)}"
        )
    if options.out:
        values = {
            name: {key: figure._asdict() for key, figure in of.items()}
            | {"verdict": verdict(name, of["difference"])}
            for name, of in result.items()
        }
        write_json(
            options.out,
            {"a": str(options.a), "b": str(options.b), "n": len(images), "errors": values},
        )


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
) -> dict[str, dict[str, Figure]]:
    """For each metric that both files tell of: a, b and the difference b − a, image by image."""
    before, after = (metrics.per_image(scored(rows, images)) for rows in (a, b))
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


def verdict(name: str, difference: Figure) -> str:
    """What the interval says."""
    if (better := metrics.improves(name, difference)) is not None:
        return "B is better" if better else "B is worse"
    return "no difference shown: the interval holds 0"
