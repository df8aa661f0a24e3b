"""localization.json: the figures of an evaluation with all that is needed to read them rightly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.evaluation.metrics import Figure
from pipeline.files import read_json, write_json

FILE = "localization.json"
NEEDED = ("dataset", "method", "backbone", "weights", "seed", "n")
Values = Mapping[str, Any]


def of_figures(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures as they are written: values by name, and `intervals` by name."""
    intervals = {name: [figure.low, figure.high] for name, figure in figures.items()}
    return {**{name: figure.value for name, figure in figures.items()}, "intervals": intervals}


def figure(values: Values, name: str) -> Figure | None:
    """The named figure; None where it does not exist (no boxes to score against)."""
    if values.get(name) is None:
        return None
    return Figure(values[name], *values.get("intervals", {}).get(name, (None, None)))


def figures(values: Values) -> dict[str, Figure]:
    """Every figure that has an interval."""
    return {name: Figure(values[name], *ends) for name, ends in values["intervals"].items()}


def centre_box(values: Values) -> dict[str, float]:
    """Figures of the baseline that looks at nothing; empty where there are no boxes."""
    found: dict[str, float] = values.get("baselines", {}).get("centre_box", {})
    return found


def write(path: Path, values: Values) -> None:
    write_json(path, values)


def exists(folder: Path) -> bool:
    return (folder / FILE).exists()


def below(folder: Path) -> list[Path]:
    """The folders two levels below that hold one."""
    return sorted(path.parent for path in folder.glob(f"*/*/{FILE}"))


def read(folder: Path) -> dict[str, Any]:
    """Read it; UserError if the evaluation has not been run or the file is not what it should be."""
    path = folder / FILE
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro evaluate` writes it") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from error
    if missing := [name for name in NEEDED if name not in values]:
        raise UserError(f"{path} has no {', '.join(missing)}; delete it and run `dvc repro`")
    return values
