"""Your own images: `<images>/<class>/<image>`, or `<images>/<split>/<class>/<image>`: see layout.py.

Boxes and splits may come from CSV files: see lists.py. Boxes are half-open edges in pixels of the image
as people see it, after its EXIF orientation. The images stay where they are: data/raw holds the list of
them, with the class, split and checksum of each, and the boxes.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline import tables
from pipeline.cache import project_path
from pipeline.datasets import NO_BOXES, Dataset, Entry, Report, SplitName, draw
from pipeline.datasets.folder import layout, lists
from pipeline.errors import UserError
from pipeline.files import write_csv
from pipeline.params.section import DatasetSection, InputFile, InputFolder
from pipeline.params.settings import Seed

MANIFEST = "images.csv"
COLUMNS = ("image_id", "class", "split", "bytes", "md5")
BOXES = "boxes.csv"
CHANGED = "if this is on purpose, run `dvc repro -f download`"


class Params(DatasetSection):
    """Where the images are, and how they are split."""

    own_val = True

    images: InputFolder
    """A folder of one folder per class, or of the splits train, val and test with these."""
    boxes: InputFile | None
    """CSV of image_id, x0, y0, x1, y1, a line per box; null: no box scores."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)]
    """Of each class, drawn from the images whose split neither a folder nor the CSV `split` says."""
    split: InputFile | None
    """CSV of image_id and split (train, test, or val for a held-out part of your own)."""
    split_seed: Seed

    def without_val_boxes(self) -> str | None:
        if self.boxes is None:
            return "datasets.folder.boxes is null"
        try:
            empty = not tables.read(project_path(self.boxes), lists.BOX_COLUMNS)
        except UserError:
            return None  # `download` tells what is wrong with it
        return f"{self.boxes} has no box" if empty else None


def download(params: Params, out: Path, report: Report) -> None:
    """List the images, with checksum and split, and the boxes; everything that is wrong at once."""
    root = project_path(params.images)
    if not root.is_dir():
        raise UserError(
            f"params.yaml: datasets.folder.images is {params.images!r}, and there is no such folder; "
            "allowed: a folder of one folder of images per class"
        )
    images = layout.find(root, report.say)
    ids = lists.Ids(image.id for image in images)
    problems: list[str] = []
    boxes = lists.boxes(params.boxes, ids, problems) if params.boxes else []
    splits = _given(images, params, ids, problems)
    if problems:
        raise UserError(problems)
    if params.boxes and not boxes:
        report.say(f"folder: {params.boxes} has no box; there will be no box scores")
    if "test" not in splits.values() and splits:
        report.say(f"folder: test is drawn: {params.test_fraction:g} of each class of the others")
    splits |= _drawn(images, splits, params)
    rows: list[dict[str, object]] = []
    for image in images:
        content = _content(root / image.id)
        values = image.id, image.class_name, splits[image.id], len(content), _md5(content)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        report.progress(len(rows), len(images), "image")
    for warning in _repeated(rows):
        report.say(f"folder: {warning}")
    write_csv(out / MANIFEST, rows, COLUMNS)
    if boxes:
        write_csv(out / BOXES, boxes, lists.BOX_COLUMNS)


def read(params: Params, raw: Path) -> Dataset:
    """The dataset as `download` found it; an image that changed since is an error when it is read."""
    root = project_path(params.images)
    rows = _rows(raw / MANIFEST)
    boxes: dict[str, list[list[str]]] = {}
    has_boxes = (raw / BOXES).exists()
    for row in _rows(raw / BOXES) if has_boxes else []:
        boxes.setdefault(row["image_id"], []).append([row[edge] for edge in lists.BOX_COLUMNS[1:]])
    class_names = sorted({row["class"] for row in rows})
    number = {name: i for i, name in enumerate(class_names)}
    digests = {row["image_id"]: row["md5"] for row in rows}
    index = [
        Entry(
            id=row["image_id"],
            label=number[row["class"]],
            split=lists.split(row["split"]),
            boxes=np.array(boxes.get(row["image_id"], NO_BOXES), np.float32),
        )
        for row in rows
    ]

    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for position in wanted:
            entry = index[position]
            content = _content(root / entry.id)
            if _md5(content) != digests[entry.id]:
                raise UserError(f"{root / entry.id} is not the file it was at download; {CHANGED}")
            yield position, content

    made = [raw / MANIFEST, *([raw / BOXES] if has_boxes else [])]
    return Dataset(
        name="folder",
        source=str(root),
        class_names=class_names,
        index=index,
        checksum=_md5(b"".join(path.read_bytes() for path in made)),
        has_boxes=has_boxes,
        published=False,
        examples=examples,
    )


def _given(
    images: Sequence[layout.Image], params: Params, ids: lists.Ids, problems: list[str]
) -> dict[str, SplitName]:
    """The splits that folders or the CSV say; where no folder is `test`, those of train are drawn again."""
    by_folder = {image.id: image.split for image in images if image.split}
    if by_folder and params.split:
        problems.append(
            f"params.yaml: datasets.folder.split is {params.split!r}, and the folders of "
            "datasets.folder.images give the splits already; allowed: null"
        )
    elif params.split:
        return lists.splits(params.split, ids, problems)
    drawn_from = set() if "test" in by_folder.values() else {"train"}
    return {image_id: split for image_id, split in by_folder.items() if split not in drawn_from}


def _drawn(
    images: Sequence[layout.Image], given: Mapping[str, SplitName], params: Params
) -> dict[str, SplitName]:
    """The splits of the images that have none yet."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.id not in given:
            groups[image.class_name].append(image.id)
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


def _repeated(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Warnings of pictures that lie, byte for byte the same, in two splits or in two classes."""
    same: defaultdict[object, list[Mapping[str, object]]] = defaultdict(list)
    for row in rows:
        same[row["md5"]].append(row)
    for key, meaning in (
        ("split", "errors on test are then too low; put each picture in one split"),
        ("class", "one of the labels is then wrong"),
    ):
        groups = [group for group in same.values() if len({str(row[key]) for row in group}) > 1]
        if groups:
            first = ", ".join(f"{row['image_id']} ({row[key]})" for row in groups[0][:3])
            yield f"{len(groups)} pictures are in more than one {key}, such as {first}; {meaning}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {CHANGED}") from error


def _rows(path: Path) -> list[dict[str, str]]:
    """The lines of a list that `download` wrote."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run `dvc repro download`") from error


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
