"""Localizers on real photographs: rows of localizer × trunk × backbone, appended to benchmarks/photographs.csv.

python -m benchmarks.photographs --cub FILE --ilsvrc FOLDER \\
    --weights mobilenet_v2=FILE --weights timm:tf_efficientnet_lite0=FILE

Runs the stages as they are, in --work, with the preset `birds` or `ilsvrc-small` and what the row changes. A row that
the table has is not run again. Trainings and feature maps are shared by the rows of one network.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import presets
from pipeline.evaluation import metrics
from pipeline.evaluation.formats import per_image
from pipeline.files import read_json, write_csv
from pipeline.params import CLASS_MAP, names, yamlfile

ROOT = Path(__file__).parents[1]
KEYS = ("data", "backbone", "trunk", "localizer", "seed")
ERRORS = ("top1_cls_err", "top1_loc_err", "gt_known_loc_err")
COLUMNS = [
    *KEYS,
    "n",
    *(f"{error}{end}" for error in ERRORS for end in ("", "_low", "_high")),
    *("max_box_acc_v2", "centre_box_gt_known_err"),
    *("gt_known_minus_class_map", "difference_low", "difference_high", "minutes"),
]
STAGES = ("train", "localize", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cub", type=Path, help="an archive of CUB-200-2011's layout")
    parser.add_argument("--ilsvrc", type=Path, help="the folder of ILSVRC's archives")
    parser.add_argument("--weights", action="append", default=[], metavar="BACKBONE=FILE")
    parser.add_argument("--trunks", nargs="+", default=["frozen", "tuned"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--localizers", nargs="+", default=names("localizers"))
    parser.add_argument("--work", type=Path, default=Path(".photographs"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/photographs.csv"))
    options = parser.parse_args()
    weights = dict(pair.split("=", 1) for pair in options.weights)
    data = {"birds": options.cub, "ilsvrc-small": options.ilsvrc}
    order = sorted(options.localizers, key=lambda n: (n != CLASS_MAP, n != "foreground", n))
    for name, source in data.items():
        for backbone, file in weights.items() if source else ():
            for trunk in options.trunks:
                for seed in options.seeds:
                    folder = options.work / name / backbone.replace(":", "-") / f"{trunk}-{seed}"
                    prepare(folder, name, source, backbone, Path(file), trunk, seed)
                    for localizer in order:
                        key = (source.name, backbone, trunk, localizer, str(seed))
                        rows = table(options.out)
                        if key in {tuple(row[k] for k in KEYS) for row in rows}:
                            continue
                        row = measured(folder, localizer)
                        rows.append(dict(zip(KEYS, key, strict=True)) | row)
                        write_csv(options.out, rows, COLUMNS)
                        print(*key, *(row[error] for error in ERRORS), flush=True)


def table(path: Path) -> list[dict[str, Any]]:
    """The rows so far."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prepare(
    folder: Path, preset: str, source: Path, backbone: str, weights: Path, trunk: str, seed: int
) -> None:
    """A folder with the params and the prepared images of one network's rows."""
    given = "datasets.cub.archive" if preset == "birds" else "datasets.ilsvrc.root"
    own = {
        given: str(source.resolve()),
        "backbone": backbone,
        "weights": str(weights.resolve()),
        "train.trunk": trunk,
        "seed": seed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".dvc").mkdir(exist_ok=True)  # a project of its own
    raw = yamlfile.parse((ROOT / "pipeline/presets/default.yaml").read_text("utf-8"), "default")
    (folder / "params.yaml").write_text(presets.applied(preset, raw, own), encoding="utf-8")
    if not (folder / "data" / "prepared").exists():
        for stage in ("download", "preprocess"):
            run(folder, stage)


def run(folder: Path, stage: str) -> None:
    """One stage in the folder, without tracking."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WSOL_TRACKING": "off"}
    environment.pop("DVC_ROOT", None)
    with (folder / f"{stage}.log").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", f"stages.{stage}"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            check=True,
        )


def measured(folder: Path, localizer: str) -> dict[str, Any]:
    """The row of one localizer: the stages run, their figures, and the difference to the class map's."""
    text = (folder / "params.yaml").read_text("utf-8")
    lines = [
        f"localizer: {localizer}" if line.startswith("localizer:") else line
        for line in text.splitlines()
    ]
    (folder / "params.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    start = time.perf_counter()
    for stage in STAGES:
        run(folder, stage)
    minutes = (time.perf_counter() - start) / 60
    figures = read_json(folder / "metrics" / "localization.json")
    row: dict[str, Any] = {"n": figures["n"], "minutes": round(minutes, 1)}
    for error in ERRORS:
        low, high = figures["intervals"][error]
        row |= {error: round(figures[error], 1)}
        row |= {f"{error}_low": round(low, 1), f"{error}_high": round(high, 1)}
    row["max_box_acc_v2"] = round(figures["max_box_acc_v2"], 1)
    row["centre_box_gt_known_err"] = round(
        figures["baselines"]["centre_box"]["gt_known_loc_err"], 1
    )
    wrong = missed(folder / "metrics" / "per_image.csv")
    if localizer == CLASS_MAP:
        shutil.copyfile(folder / "metrics" / "per_image.csv", folder / "class_map.csv")
    if (folder / "class_map.csv").exists():
        base = missed(folder / "class_map.csv")
        found = metrics.paired_difference(base, wrong, bootstrap=1000, seed=0)["difference"]
        names = ("gt_known_minus_class_map", "difference_low", "difference_high")
        row |= dict(zip(names, np.round([*found], 1).tolist(), strict=True))
    return row


def missed(path: Path) -> np.ndarray:
    """Per image 1 where the true class's box is wrong, 0 where it is right, NaN without a true box."""
    rows = per_image.read(path)
    return metrics.per_image(per_image.scored(rows, list(rows)))[metrics.GT_KNOWN.name]


if __name__ == "__main__":
    main()
