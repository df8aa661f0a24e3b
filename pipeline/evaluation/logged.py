"""What an evaluation left, as it is handed to MLflow."""

import hashlib
from pathlib import Path

from pipeline.evaluation.formats import (
    localization,
    per_class,
    per_image,
    threshold_curve,
)
from pipeline.files import read_json
from pipeline.tracking import Outcome

SHA256 = "localization.sha256"  # the tag


def outcome(folder: Path) -> Outcome:
    """Figures `loc/<name>` in percent with the ends `_low` and `_high` of their intervals; the files."""
    values = read_json(folder / localization.FILE)
    figures: dict[str, float | None] = {}
    for name, (value, low, high) in localization.figures(values).items():
        figures |= {f"loc/{name}": value, f"loc/{name}_low": low, f"loc/{name}_high": high}
    names = (localization.FILE, per_image.FILE, per_class.FILE, threshold_curve.FILE)
    return Outcome(
        figures=figures,
        description=described(values),
        tables={"localization/per_class.json": per_class.read(folder / per_class.FILE)},
        files=[(folder / name, "localization") for name in names],
        tags={SHA256: sha256(folder)},
    )


def sha256(folder: Path) -> str:
    """By which results are known."""
    return hashlib.sha256((folder / localization.FILE).read_bytes()).hexdigest()


def described(values: localization.Values) -> str:
    """The figures as a Markdown table, for a run's description."""
    rows = [
        f"| {name} | {figure.value:.1f} | {figure.low:.1f} – {figure.high:.1f} |"
        for name, figure in localization.figures(values).items()
    ]
    centre = localization.centre_box(values)
    rows += [f"| {name}, centre box | {value:.1f} | |" for name, value in centre.items()]
    head = "| figure, percent | value | 95 % interval |\n|---|---:|---|"
    return "\n".join([head, *rows, "", "Pictures, tables and the threshold curve: see Artifacts."])
