"""Table of all DVC experiments: one row per dataset, backbone and method, averaged over seeds.

dvc exp run --queue -S 'method=cam,ass,ahd,rcam' -S 'seed=0,1,2' && dvc queue start
wsol experiments

Reads the DVC experiments on this commit (--all-commits: and on those before it), wherever their results are cached.
Experiments of one method that differ in more than their seed have a row each, which says in what.
"""

import argparse
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
from pipeline.evaluation import metrics
from pipeline.evaluation.formats import localization, per_image
from pipeline.files import write_csv

KEYS = ("dataset", "backbone", "method", "boxes", "settings")


@dataclass(frozen=True)
class Experiment:
    """What one experiment left."""

    name: str
    localization: dict[str, Any]
    images: per_image.Rows
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
        write_csv(options.out, rows, columns())
    print("\n".join(markdown(rows)))


def columns() -> list[str]:
    """Those of the table's CSV file; a mean over images has its interval beside it."""
    figures = [
        f"{metric.name}{suffix}"
        for metric in metrics.brief()
        for suffix in (("", "_low", "_high") if metric.is_mean else ("",))
    ]
    return [*KEYS, "seeds", "images", *figures, "minutes"]


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
                for file in (localization.FILE, per_image.FILE, "train.json")
            ]
            written = yaml.safe_load(dvc.api.read("params.yaml", rev=name))
        except Exception as error:  # an experiment without results, or not in this cache
            print(f"{name}: left out, its results are not here ({type(error).__name__})")
            continue
        yield Experiment(
            name,
            json.loads(texts[0]),
            per_image.parse(texts[1], f"{name}: {per_image.FILE}"),
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
    values: dict[str, Any] = dict(zip(KEYS, key, strict=True))
    images = sorted(group[0].images)
    values |= {"seeds": len(group), "images": len(images)}
    told = [metrics.per_image(per_image.scored(e.images, images)) for e in group]
    for metric in metrics.brief():
        name = metric.name
        if not metric.is_mean:
            found = [e.localization[name] for e in group if name in e.localization]
            values |= {name: round(float(np.mean(found)), 2)} if found else {}
            continue
        mean = np.mean([of[name] for of in told], axis=0)
        if np.isnan(mean).all():
            continue
        figure = metrics.mean(mean, bootstrap=bootstrap, seed=0)
        ends = zip(("", "_low", "_high"), np.round([*figure], 2).tolist(), strict=True)
        values |= {name + suffix: end for suffix, end in ends}
    values["minutes"] = round(float(np.mean([e.seconds for e in group])) / 60, 2)
    return values


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The table's lines: figures in percent, means over images with their intervals."""
    shown = metrics.brief()
    titles = [*KEYS, "seeds", *(f"{m.short} {m.arrow}" for m in shown), "training, min"]
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for values in rows:
        cells = [text.markdown(str(values[name])) for name in (*KEYS, "seeds")]
        for name in (metric.name for metric in shown):
            cell = f"{values[name]:.1f}" if name in values else "–"
            if f"{name}_low" in values:
                cell += f" [{values[f'{name}_low']:.1f}, {values[f'{name}_high']:.1f}]"
            cells.append(cell)
        yield f"| {' | '.join([*cells, str(values['minutes'])])} |"
