"""Table of all DVC experiments: one row per dataset, backbone and method, averaged over seeds.

dvc exp run --queue -S 'method=cam,ass,ahd,rcam' -S 'seed=0,1,2' && dvc queue start
wsol experiments

Reads the DVC experiments on this commit (--all-commits: and on those before it), wherever their results are cached.
Experiments of one method that differ in more than their seed have a row each, which says in what.
"""

import argparse
import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline import text
from pipeline.errors import UserError
from pipeline.files import write_csv

FIGURES = ("top1_cls_err", "top1_loc_err", "gt_known_loc_err")
COLUMNS = ["dataset", "backbone", "method", "boxes", "settings", "seeds", "images"]
COLUMNS += [f"{figure}{suffix}" for figure in FIGURES for suffix in ("", "_low", "_high")]
COLUMNS += ["max_box_acc", "max_box_acc_v2", "minutes"]


@dataclass(frozen=True)
class Experiment:
    """What one experiment left: its localization.json, per_image.csv and train.json."""

    name: str
    localization: dict[str, Any]
    images: list[dict[str, str]]
    seconds: float
    params: dict[str, str]
    """Its params.yaml by dotted key: all that bears on its row but the seed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", help="only experiments on this dataset")
    parser.add_argument("--out", type=Path, help="write the table to this CSV file as well")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples for the intervals")
    parser.add_argument(
        "--all-commits",
        action="store_true",
        help="also the experiments on the commits before this one",
    )


def main(options: argparse.Namespace) -> None:
    every = experiments(all_commits=options.all_commits)
    found = [e for e in every if options.dataset in (None, e.localization["dataset"])]
    if not found:
        raise UserError(
            "no experiment with results here; make some: dvc exp run --queue -S "
            "'method=cam,ass,ahd,rcam' && dvc queue start"
        )
    rows = table(found, options.bootstrap)
    if options.out:
        write_csv(options.out, rows, COLUMNS)
    print("\n".join(markdown(rows)))


def experiments(*, all_commits: bool = False) -> Iterator[Experiment]:
    """Every DVC experiment that has results, and the workspace's last commit is not one."""
    import dvc.api

    for row in dvc.api.exp_show(num=-1 if all_commits else 1):
        name = row.get("Experiment")
        if not name:
            continue
        try:
            texts = [
                dvc.api.read(f"metrics/{file}", rev=name)
                for file in ("localization.json", "per_image.csv", "train.json")
            ]
            written = yaml.safe_load(dvc.api.read("params.yaml", rev=name))
        except Exception as error:  # an experiment without results, or not in this cache
            print(f"{name}: left out, its results are not here ({type(error).__name__})")
            continue
        yield Experiment(
            name,
            json.loads(texts[0]),
            list(csv.DictReader(io.StringIO(texts[1]))),
            json.loads(texts[2])["seconds"],
            settings_of(written),
        )


def settings_of(written: dict[str, Any]) -> dict[str, str]:
    """A params.yaml by dotted key, without the seed, the ablation and the sections that were not chosen."""
    chosen = {
        kind: written[name] for kind, name in (("datasets", "dataset"), ("methods", "method"))
    }
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if prefix not in chosen or key == chosen[prefix]:
                    walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = json.dumps(value)

    walk("", {key: value for key, value in written.items() if key not in ("seed", "ablate")})
    return flat


def table(found: list[Experiment], bootstrap: int) -> list[dict[str, Any]]:
    """One row per group of seeds: errors in percent, averaged over seeds, with 95 % intervals.

    The interval is over images: each image counts with its mean over the seeds. The same experiment
    run twice counts once.
    """
    kinds: dict[tuple[str, ...], list[Experiment]] = defaultdict(list)
    for experiment in found:
        what = experiment.localization
        key = tuple(what[name] for name in ("dataset", "backbone", "method", "selection"))
        kinds[key].append(experiment)
    rows = []
    for key, alike in sorted(kinds.items()):
        groups: dict[str, dict[int, Experiment]] = defaultdict(dict)
        for experiment in alike:
            said = differing(experiment, alike)
            groups[said][experiment.localization["seed"]] = experiment
        for said, group in sorted(groups.items()):
            rows.append(row((*key, said), list(group.values()), bootstrap))
    return rows


def differing(experiment: Experiment, alike: list[Experiment]) -> str:
    """The params of an experiment that are not the same in all of `alike`."""
    keys = sorted({key for other in alike for key in other.params})
    return ", ".join(
        f"{key}={experiment.params.get(key, '–')}"
        for key in keys
        if len({other.params.get(key) for other in alike}) > 1
    )


def row(key: tuple[str, ...], group: list[Experiment], bootstrap: int) -> dict[str, Any]:
    """The mean of one group's seeds."""
    values: dict[str, Any] = dict(zip(COLUMNS, key, strict=False))
    values |= {"seeds": len(group), "images": len(group[0].images)}
    wrong = {name: np.mean([errors(e)[name] for e in group], axis=0) for name in FIGURES}
    rng = np.random.default_rng(0)
    count = values["images"]
    weights = rng.multinomial(count, np.full(count, 1 / count), bootstrap) / count
    for name, mean in wrong.items():
        seen = ~np.isnan(mean)
        if not seen.any():
            continue
        means = weights[:, seen] @ mean[seen] / weights[:, seen].sum(1)
        values[name] = round(float(mean[seen].mean()), 2)
        values[f"{name}_low"], values[f"{name}_high"] = np.percentile(means, (2.5, 97.5)).round(2)
    for name in ("max_box_acc", "max_box_acc_v2"):
        if name in group[0].localization:
            values[name] = round(float(np.mean([e.localization[name] for e in group])), 2)
    values["minutes"] = round(float(np.mean([e.seconds for e in group])) / 60, 2)
    return values


def errors(experiment: Experiment) -> dict[str, np.ndarray]:
    """Per image, in percent: 0 right, 100 wrong, NaN without a true box; images ordered by id."""
    images = sorted(experiment.images, key=lambda image: image["id"])
    named = np.array([image["label"] == image["predicted"] for image in images])
    iou = {
        which: np.array([float(image[which] or "nan") for image in images])
        for which in ("iou_true", "iou_predicted")
    }
    located = named & (iou["iou_predicted"] >= 0.5)
    boxed = ~np.isnan(iou["iou_true"])
    return {
        "top1_cls_err": 100.0 * ~named,
        "top1_loc_err": np.where(boxed, 100.0 * ~located, np.nan),
        "gt_known_loc_err": np.where(boxed, 100.0 * (iou["iou_true"] < 0.5), np.nan),
    }


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The table's lines, errors with their intervals."""
    titles = [
        "dataset",
        "backbone",
        "method",
        "boxes",
        "settings",
        "seeds",
        "top-1 cls err",
        "top-1 loc err",
    ]
    titles += ["GT-known loc err", "MaxBoxAcc", "MaxBoxAccV2", "training, min"]
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for values in rows:
        cells = [text.markdown(str(values[name])) for name in COLUMNS[:6]]
        cells += [
            f"{values[name]:.1f} [{values[f'{name}_low']:.1f}, {values[f'{name}_high']:.1f}]"
            if name in values
            else "–"
            for name in FIGURES
        ]
        cells += [
            f"{values[n]:.1f}" if n in values else "–" for n in ("max_box_acc", "max_box_acc_v2")
        ]
        yield f"| {' | '.join([*cells, str(values['minutes'])])} |"
