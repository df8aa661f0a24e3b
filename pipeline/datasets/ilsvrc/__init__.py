"""ILSVRC 2012 CLS-LOC: 1.28 million training photographs of 1000 classes; its validation set is our test.

O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
The archives need an account and take 145 GB, so they are neither downloaded nor copied nor unpacked:
data/raw holds their sizes and checksums, and where in them each image lies, and the images are read
from where they are. Labels and boxes of the test images come from their XML files; no boxes of training
images are used. Boxes refer to the pixels as stored; their corners count pixels from 0 and belong to the
box (0, 0, 499, 374 is the whole of a 500 × 375 image), so one is added to xmax and ymax.
"""

import csv
import xml.etree.ElementTree as ElementTree
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from pipeline.cache import project_path
from pipeline.datasets import NO_BOXES, Dataset, Entry, Report, Slice
from pipeline.errors import UserError
from pipeline.files import read_json, whole_file, write_json
from pipeline.params.section import DatasetSection, InputArchives
from pipeline.raw import archives, coordinates

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
BOXES = "ILSVRC2012_bbox_val_v3.tgz"
MANIFEST = "ilsvrc.json"
INDEX = "images.csv"
COLUMNS = ("class", "image", "offset", "bytes")  # of an image of VAL, no class: BOXES says it
INCLUSIVE = np.array([0, 0, 1, 1])  # what the XML files' corners lack of half-open edges
WINDOW = 2048  # images that are read in the order in which they lie


class Params(DatasetSection):
    """Where the archives are."""

    root: InputArchives
    """The folder that holds the official archives."""

    def without_val_boxes(self) -> str | None:
        return "val is drawn from the training images of ilsvrc, of which no boxes are used"


def download(params: Params, out: Path, report: Report) -> None:
    """Check that the archives are there and whole; write to `out` what they are and what is in them."""
    root = project_path(params.root)
    lacking = [name for name in (TRAIN, VAL, BOXES) if not (root / name).is_file()]
    if lacking:
        raise UserError(
            [f"{root / name} is missing" for name in lacking]
            + [
                f"ILSVRC 2012 needs an account at image-net.org: put {TRAIN}, {VAL} and {BOXES} as "
                "they are into the folder that datasets.ilsvrc.root in params.yaml names "
                "(links will do); nothing is unpacked or copied"
            ]
        )
    report.say(f"ilsvrc: checking the archives in {root} by samples of 64 MiB each")
    write_json(out / MANIFEST, _fingerprints(root))
    report.say("ilsvrc: listing the images; of each only the header is read")
    with (
        whole_file(out / INDEX) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_images(root, report.progress))


def _fingerprints(root: Path) -> dict[str, dict[str, object]]:
    return {
        name: {
            "bytes": (root / name).stat().st_size,
            "sampled_sha256": archives.sampled_digest(root / name),
        }
        for name in (TRAIN, VAL, BOXES)
    }


def _images(
    root: Path, progress: Callable[[int, int, str], None]
) -> Iterator[tuple[str, str, int, int]]:
    """Of every image, class, file name and where it lies; `progress` receives how far the headers are read."""
    train, val = root / TRAIN, root / VAL
    total = train.stat().st_size + val.stat().st_size
    for name, inner in archives.slices(train):
        found = archives.slices(train, inner.offset, inner.offset + inner.size, name)
        empty = True
        for image, at in found:
            empty = False
            yield PurePosixPath(name).stem, PurePosixPath(image).name, at.offset, at.size
            progress(at.offset, total, "B")
        if empty:
            raise UserError(f"{train}: {name} has no image; {archives.AGAIN}")
    for image, at in archives.slices(val):
        yield "", PurePosixPath(image).name, at.offset, at.size
        progress(train.stat().st_size + at.offset, total, "B")


def read(params: Params, raw: Path) -> Dataset:
    """The dataset in the archives, unchanged since `download`, which listed what is in them."""
    root = project_path(params.root)
    _check_unchanged(root, raw)
    truth = dict(_truth(root / BOXES))
    ids: list[str] = []
    trained: set[str] = set()
    boxes: dict[int, np.ndarray] = {}  # of the test images
    invalid: dict[str, str] = {}
    at = array("q"), array("q")
    for wordnet_id, image, offset, size in _rows(raw / INDEX):
        if wordnet_id:
            trained.add(wordnet_id)
        else:  # of VAL, which the list has last
            key = PurePosixPath(image).stem
            wordnet_id, boxes[len(ids)], wrong = _true(truth, key, root)
            if len(wrong):
                invalid[f"{wordnet_id}/{image}"] = coordinates.shown(wrong)
            if wordnet_id not in trained:
                raise UserError(f"{root / BOXES}: {key} is of {wordnet_id}, which {TRAIN} has not")
        ids.append(f"{wordnet_id}/{image}")
        at[0].append(int(offset))
        at[1].append(int(size))
    edges = ((box - INCLUSIVE).tolist() for of in boxes.values() for box in of)
    if problem := coordinates.shares_suspected(edges):
        raise UserError(f"{root / BOXES}: {problem}")
    names = sorted(trained)
    number = {name: label for label, name in enumerate(names)}
    order = sorted(range(len(ids)), key=ids.__getitem__)
    index = [
        Entry(
            id=ids[i],
            label=number[ids[i].split("/")[0]],
            split="test" if i in boxes else "train",
            boxes=boxes.get(i, NO_BOXES),
        )
        for i in order
    ]
    offsets, sizes = (np.array(column)[order] for column in at)
    where = {"train": str(root / TRAIN), "test": str(root / VAL)}

    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, Slice]]:
        positions = np.fromiter(wanted, np.int64)
        for start in range(0, len(positions), WINDOW):
            window = positions[start : start + WINDOW]
            for i in window[offsets[window].argsort()].tolist():
                yield i, Slice(where[index[i].split], int(offsets[i]), int(sizes[i]))

    return Dataset(
        name="ilsvrc",
        source=str(root),
        class_names=names,
        index=index,
        checksum=archives.md5(raw / MANIFEST),
        has_boxes=True,
        published=True,
        examples=examples,
        invalid_boxes=invalid,
    )


def _check_unchanged(root: Path, raw: Path) -> None:
    try:
        known, found = read_json(raw / MANIFEST), _fingerprints(root)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing; put it back, or run `dvc repro -f download`"
        ) from error
    if changed := [str(root / name) for name in found if known.get(name) != found[name]]:
        raise UserError(
            f"{', '.join(changed)}: not the archive that was checked; if it changed on purpose, "
            "run `dvc repro -f download`"
        )


def _rows(path: Path) -> Iterator[list[str]]:
    """The lines of the list that `download` wrote."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            next(rows)
            yield from rows
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run `dvc repro -f download`") from error


class Truth(NamedTuple):
    """An image's class and its boxes of that class, float32 [n, 4], those left out that are no boxes."""

    wordnet_id: str
    boxes: np.ndarray
    invalid: np.ndarray


def _truth(path: Path) -> Iterator[tuple[str, Truth]]:
    """Of every XML file: the image's name, and what it says."""
    for name, text in archives.files(
        path, lambda name: name.endswith(".xml"), archives.LARGEST_HEADER
    ):
        try:
            objects = ElementTree.fromstring(text).findall("object")
            classes = [str(thing.findtext("name")) for thing in objects]
            boxes = [_box(thing) for thing in objects]
        except (ElementTree.ParseError, TypeError, ValueError) as error:
            raise UserError(f"{path}: {name} is no annotation of an image ({error})") from error
        if not classes:
            raise UserError(f"{path}: {name} has no object")
        mine = [box for box, label in zip(boxes, classes, strict=True) if label == classes[0]]
        with np.errstate(over="ignore"):  # what does not fit is infinite, and so no box
            found = np.array(mine, np.float64).astype(np.float32)
        valid = coordinates.valid(found)
        yield PurePosixPath(name).stem, Truth(classes[0], found[valid], found[~valid])


def _box(thing: ElementTree.Element) -> tuple[float, float, float, float]:
    """xmin … ymax, counted from 0 and inclusive → x0, y0, x1, y1, half-open."""
    xmin, ymin, xmax, ymax = (
        float(thing.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    return xmin, ymin, xmax + 1, ymax + 1


def _true(truth: Mapping[str, Truth], key: str, root: Path) -> Truth:
    if key not in truth:
        raise UserError(f"{root / BOXES}: no annotation of {key}, which is in {VAL}")
    return truth[key]
