"""The CSV files that give a user's images boxes and splits; image_id is the path below `images`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar
from unicodedata import normalize

from pipeline import tables
from pipeline.cache import project_path
from pipeline.datasets import SplitName
from pipeline.errors import UserError
from pipeline.raw import coordinates

BOX_COLUMNS = ("image_id", "x0", "y0", "x1", "y1")
SPLIT_COLUMNS = ("image_id", "split")
SPLITS: tuple[SplitName, ...] = ("train", "test", "val")
T = TypeVar("T")


class Ids:
    """The ids of all images, found however a list spells them: Unicode form, `\\`, a leading `./`."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = set(ids)
        self._spelled: dict[str, list[str]] = {}
        for image_id in self._ids:
            self._spelled.setdefault(normalize("NFC", image_id), []).append(image_id)

    def __getitem__(self, text: str) -> str:
        """The id that is meant; ValueError where it is none or could be several."""
        if text in self._ids:
            return text
        plain = normalize("NFC", text.replace("\\", "/").removeprefix("./"))
        meant = self._spelled.get(plain, [])
        if len(meant) > 1:
            raise ValueError(
                f"{text!r} is the name of {len(meant)} images of datasets.folder.images"
            )
        if not meant:
            raise ValueError(f"{text!r} is not an image of datasets.folder.images")
        return meant[0]


def boxes(text: str, ids: Ids, problems: list[str]) -> list[dict[str, object]]:
    """The boxes of the CSV `text` of params.yaml, sorted by image; mistakes are added to `problems`."""

    def parse(image_id: str, row: tables.Row) -> tuple[str, list[float]]:
        x0, y0, x1, y1 = edges = [tables.number(row[edge]) for edge in BOX_COLUMNS[1:]]
        if not (x0 < x1 and y0 < y1):
            raise ValueError("allowed: x0 < x1 and y0 < y1")
        return image_id, edges

    found = _read("boxes", text, BOX_COLUMNS, ids, parse, problems)
    if problem := coordinates.shares_suspected(edges for _, edges in found):
        problems.append(f"{project_path(text)}: {problem}")
    found.sort(key=lambda line: line[0])
    return [dict(zip(BOX_COLUMNS, (image, *edges), strict=True)) for image, edges in found]


def splits(text: str, ids: Ids, problems: list[str]) -> dict[str, SplitName]:
    """The splits that the CSV `text` of params.yaml gives, by image; as `boxes`."""
    found: dict[str, SplitName] = {}

    def parse(image_id: str, row: tables.Row) -> None:
        if image_id in found:
            raise ValueError("the image has a line already")
        found[image_id] = split(row["split"])

    _read("split", text, SPLIT_COLUMNS, ids, parse, problems)
    return found


def split(text: str) -> SplitName:
    if text not in SPLITS:
        raise ValueError(f"allowed: {', '.join(SPLITS)}")
    return SPLITS[SPLITS.index(text)]


def _read(
    key: str,
    text: str,
    columns: Sequence[str],
    ids: Ids,
    parse: Callable[[str, tables.Row], T],
    problems: list[str],
) -> list[T]:
    """The parsed lines of the CSV that datasets.folder.`key` names."""
    path: Path = project_path(text)
    if not path.is_file():
        problems.append(f"params.yaml: datasets.folder.{key} is {text!r}: there is no such file")
        return []
    try:
        lines = tables.read(path, columns)
    except UserError as error:
        problems += error.problems
        return []
    parsed, wrong = [], []
    for line in lines:
        where = f"{path} line {line.number}"
        try:
            image_id = ids[line.values["image_id"]]
        except ValueError as error:
            wrong.append(f"{where}: {error}")
            continue
        try:
            parsed.append(parse(image_id, line.values))
        except ValueError as error:
            values = ", ".join(line.values[column] for column in columns)
            wrong.append(f"{where} is {values}: {error}")
    problems += tables.shortened(wrong)
    return parsed
