"""Your own images: `<images>/<class>/<image>`, at any depth below the class.

Boxes and splits come from CSV files, whose image_id is the path below `images`. Boxes are half-open
edges in pixels of the image as people see it, after its EXIF orientation. The images stay where they
are: data/raw holds the list of them, with the checksum of each, and the boxes.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from pipeline.cache import project_path
from pipeline.datasets import NO_BOXES, Dataset, Entry, Report, SplitName, draw
from pipeline.errors import UserError
from pipeline.files import write_csv
from pipeline.params.section import Section
from pipeline.params.settings import Seed
from pipeline.raw import images

MANIFEST = "images.csv"
BOXES = "boxes.csv"
BOX_COLUMNS = ("image_id", "x0", "y0", "x1", "y1")
SPLIT_COLUMNS = ("image_id", "split")
T = TypeVar("T")

SPLITS: tuple[SplitName, ...] = ("train", "test", "val")
SHOWN = 20  # problems of a file that are told, of however many
CHANGED = "if this is on purpose, run `dvc repro -f download`"


class Params(Section):
    """Where the images are, and how they are split."""

    images: str
    """A folder of one folder per class."""
    boxes: str | None
    """CSV of image_id, x0, y0, x1, y1, a line per box; null: no box scores."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)]
    """Of each class, drawn from the images that the CSV `split` does not name."""
    split: str | None
    """CSV of image_id and split (train, test, or val for a held-out part of your own)."""
    split_seed: Seed


def download(params: Params, out: Path, report: Report) -> None:
    """List the images, with checksum and split, and the boxes; everything that is wrong at once."""
    root = project_path(params.images)
    ids, others = _find(root, params)
    report.say(f"folder: {len(ids)} images in {root}; {others} other files are left out")
    known = set(ids)
    problems: list[str] = []
    boxes = _read_boxes(params.boxes, known, problems)
    splits = _read_splits(params.split, known, problems)
    if problems:
        raise UserError(problems)
    splits |= _drawn(ids, splits, params)
    rows = []
    for image_id in ids:
        content = (root / image_id).read_bytes()
        rows.append(
            {
                "image_id": image_id,
                "split": splits[image_id],
                "bytes": len(content),
                "md5": _md5(content),
            }
        )
        report.progress(len(rows), len(ids), "image")
    write_csv(out / MANIFEST, rows, list(rows[0]))
    if boxes is not None:
        write_csv(out / BOXES, boxes, BOX_COLUMNS)


def read(params: Params, raw: Path) -> Dataset:
    """The dataset as `download` found it; an image that changed since is an error when it is read."""
    root = project_path(params.images)
    rows = _rows(raw / MANIFEST)
    boxes: dict[str, list[list[str]]] = {}
    has_boxes = (raw / BOXES).exists()
    for row in _rows(raw / BOXES) if has_boxes else []:
        boxes.setdefault(row["image_id"], []).append([row[edge] for edge in BOX_COLUMNS[1:]])
    class_names = sorted({_class_of(row["image_id"]) for row in rows})
    number = {name: i for i, name in enumerate(class_names)}
    digests = {row["image_id"]: row["md5"] for row in rows}
    index = [
        Entry(
            id=row["image_id"],
            label=number[_class_of(row["image_id"])],
            split=_split(row["split"]),
            boxes=np.array(boxes.get(row["image_id"], NO_BOXES), np.float32),
        )
        for row in rows
    ]

    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for position in wanted:
            entry = index[position]
            path = root / entry.id
            try:
                content = path.read_bytes()
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}; {CHANGED}") from error
            if _md5(content) != digests[entry.id]:
                raise UserError(f"{path} is not the file it was at download; {CHANGED}")
            yield position, content

    lists = [raw / MANIFEST, *([raw / BOXES] if has_boxes else [])]
    return Dataset(
        name="folder",
        source=str(root),
        class_names=class_names,
        index=index,
        checksum=_md5(b"".join(path.read_bytes() for path in lists)),
        has_boxes=has_boxes,
        published=False,
        examples=examples,
    )


def _find(root: Path, params: Params) -> tuple[list[str], int]:
    """The sorted ids of all images below `root`, and the number of files that are none."""
    if not root.is_dir():
        raise UserError(
            f"params.yaml: datasets.folder.images is {params.images!r}, and there is no such folder; "
            "allowed: a folder of one folder of images per class"
        )
    paths = [path.relative_to(root) for path in _walk(root)]
    found = [path for path in paths if path.suffix.lower() in images.EXTENSIONS]
    problems = [
        f"{root / path} is in no class; move it into {root}/<class>/"
        for path in found
        if len(path.parts) == 1
    ][:SHOWN]
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    classes = {path.parts[0] for path in found if len(path.parts) > 1}
    problems += [
        f"{root / name} has no image; allowed: files ending in {' '.join(images.EXTENSIONS)}"
        for name in folders
        if name not in classes
    ]
    problems += [
        f"{root}/{ascii(path.as_posix())[1:-1]}: its name is not UTF-8; rename it"
        for path in found
        if not _is_text(path)
    ][:SHOWN]
    if not problems and len(classes) < 2:
        problems.append(f"{root} has {len(classes)} class folders; allowed: at least two")
    if problems:
        raise UserError(problems)
    return sorted(path.as_posix() for path in found), len(paths) - len(found)


def _is_text(path: Path) -> bool:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every file below `folder`, through links too (but no loops); what is hidden is left out."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, above | {real})
        else:
            yield path


def _drawn(ids: Sequence[str], given: dict[str, SplitName], params: Params) -> dict[str, SplitName]:
    """The splits of the images that have none yet."""
    groups: dict[str, list[str]] = {}
    for image_id in ids:
        if image_id not in given:
            groups.setdefault(_class_of(image_id), []).append(image_id)
    test = {
        image_id
        for group in groups.values()
        for image_id in draw(group, params.test_fraction, params.split_seed)
    }
    return {
        image_id: "test" if image_id in test else "train"
        for group in groups.values()
        for image_id in group
    }


def _read_boxes(
    text: str | None, known: set[str], problems: list[str]
) -> list[dict[str, object]] | None:
    """The boxes of the CSV, sorted by image; None where there is no CSV."""
    if text is None:
        return None

    def parse(row: dict[str, str]) -> dict[str, object]:
        x0, y0, x1, y1 = (float(row[edge]) for edge in BOX_COLUMNS[1:])
        if not (x0 < x1 < np.inf and y0 < y1 < np.inf):
            raise ValueError("allowed: x0 < x1 and y0 < y1")
        return {"image_id": row["image_id"], "x0": x0, "y0": y0, "x1": x1, "y1": y1}

    rows = _read_csv("boxes", text, BOX_COLUMNS, known, parse, problems)
    return sorted(rows, key=lambda row: str(row["image_id"]))


def _read_splits(text: str | None, known: set[str], problems: list[str]) -> dict[str, SplitName]:
    """The splits the CSV gives, by image."""
    splits: dict[str, SplitName] = {}

    def parse(row: dict[str, str]) -> None:
        if row["image_id"] in splits:
            raise ValueError("the image has a line already")
        splits[row["image_id"]] = _split(row["split"])

    if text is not None:
        _read_csv("split", text, SPLIT_COLUMNS, known, parse, problems)
    return splits


def _read_csv(
    key: str,
    text: str,
    columns: Sequence[str],
    known: set[str],
    parse: Callable[[dict[str, str]], T],
    problems: list[str],
) -> list[T]:
    """The parsed lines of a CSV that params.yaml names; what is wrong is added to `problems`."""
    path = project_path(text)
    if not path.is_file():
        problems.append(f"params.yaml: datasets.folder.{key} is {text!r}: there is no such file")
        return []
    parsed, wrong = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        if not set(columns) <= set(lines.fieldnames or ()):
            problems.append(
                f"{path}: its columns are {', '.join(lines.fieldnames or ())}; "
                f"allowed: {', '.join(columns)}"
            )
            return []
        for row in lines:
            where = f"{path} line {lines.line_num}"
            values = ", ".join(str(row[column]) for column in columns)
            if row["image_id"] not in known:
                wrong.append(f"{where}: {row['image_id']!r} is no image of datasets.folder.images")
                continue
            try:
                parsed.append(parse(row))
            except (TypeError, ValueError) as error:
                wrong.append(f"{where} is {values}: {error}")
    problems += wrong[:SHOWN]
    if len(wrong) > SHOWN:
        problems.append(f"{path}: and {len(wrong) - SHOWN} more lines like these")
    return parsed


def _rows(path: Path) -> list[dict[str, str]]:
    """The lines of a list that `download` wrote."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run `dvc repro download`") from error


def _split(text: str) -> SplitName:
    if text not in SPLITS:
        raise ValueError(f"allowed: {', '.join(SPLITS)}")
    return SPLITS[SPLITS.index(text)]


def _class_of(image_id: str) -> str:
    return image_id.split("/")[0]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
