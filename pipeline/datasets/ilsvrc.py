"""ILSVRC 2012 CLS-LOC: 1.28 million training photographs of 1000 classes; its validation set is our test.

O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
The archives need an account and take 145 GB, so they are neither downloaded nor copied: data/raw
holds their sizes and checksums, and the images are read from where they are. Labels and boxes of the
test images come from their XML files; no boxes of training images are used. Boxes refer to the pixels
as stored; their corners count pixels from 0 and belong to the box (0, 0, 499, 374 is the whole of a
500 × 375 image), so one is added to xmax and ymax.
"""

import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline import archives
from pipeline.datasets import NO_BOXES, Dataset, Entry, Report, project_path
from pipeline.errors import UserError
from pipeline.outputs import read_json, write_json
from pipeline.params.section import Section

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
BOXES = "ILSVRC2012_bbox_val_v3.tgz"
MANIFEST = "ilsvrc.json"


class Params(Section):
    """Where the archives are."""

    root: str
    """The folder that holds the official archives."""


def download(params: Params, out: Path, report: Report) -> None:
    """Check that the archives are there and write what they are to `out`."""
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


def _fingerprints(root: Path) -> dict[str, dict[str, object]]:
    return {
        name: {
            "bytes": (root / name).stat().st_size,
            "sampled_sha256": archives.sampled_digest(root / name),
        }
        for name in (TRAIN, VAL, BOXES)
    }


def read(params: Params, raw: Path) -> Dataset:
    """The dataset in the archives, unchanged since `download`; finds its way by headers alone."""
    root = project_path(params.root)
    try:
        same = read_json(raw / MANIFEST) == _fingerprints(root)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; run `dvc repro download`") from error
    if not same:
        raise UserError(
            f"the archives in {root} are not those that were checked; if they changed on purpose, "
            "run `dvc repro -f download`"
        )
    truth = dict(_truth(root / BOXES))
    trained = [name for name, _ in _train_images(root / TRAIN, read=False)]
    class_names = sorted({name.split("/")[0] for name in trained})
    number = {name: i for i, name in enumerate(class_names)}

    train = {name: Entry(name, number[name.split("/")[0]], "train", NO_BOXES) for name in trained}
    test: dict[str, Entry] = {}
    with archives.opened(root / VAL) as archive:
        for name, _ in archives.members(archive, root / VAL):
            key = PurePosixPath(name).stem
            wordnet_id, boxes = _true(truth, key, root)
            if wordnet_id not in number:
                raise UserError(f"{root / BOXES}: {key} is of {wordnet_id}, which {TRAIN} has not")
            test[name] = Entry(
                f"{wordnet_id}/{PurePosixPath(name).name}", number[wordnet_id], "test", boxes
            )

    def examples() -> Iterator[tuple[Entry, bytes]]:
        for name, encoded in _train_images(root / TRAIN, read=True):
            yield train[name], encoded
        for name, encoded in archives.files(root / VAL, test.__contains__):
            yield test[name], encoded

    return Dataset(
        name="ilsvrc",
        source=str(root),
        class_names=class_names,
        index=sorted([*train.values(), *test.values()], key=lambda entry: entry.id),
        checksum=archives.md5(raw / MANIFEST),
        has_boxes=True,
        published=True,
        examples=examples,
    )


def _train_images(path: Path, *, read: bool) -> Iterator[tuple[str, bytes]]:
    """Every (`<class>/<file>`, content) of the tar of tars; without `read`, contents are left out."""
    with archives.opened(path) as outer:
        for name, member in archives.members(outer, path):
            where = f"{path}: {name}"
            try:
                inner = tarfile.open(fileobj=outer.extractfile(member), mode="r:")  # noqa: SIM115
            except tarfile.TarError as error:
                raise UserError(f"{where}: no tar archive ({error})") from error
            with inner:
                for image, entry in archives.members(inner, where):
                    content = archives.content(inner, entry, where) if read else b""
                    yield f"{PurePosixPath(name).stem}/{PurePosixPath(image).name}", content


def _truth(path: Path) -> Iterator[tuple[str, tuple[str, np.ndarray]]]:
    """Of every XML file: the image's name, its class and the boxes of that class, float32 [n, 4]."""
    for name, text in archives.files(path, lambda name: name.endswith(".xml")):
        try:
            objects = ElementTree.fromstring(text).findall("object")
            classes = [str(thing.findtext("name")) for thing in objects]
            boxes = [_box(thing) for thing in objects]
        except (ElementTree.ParseError, TypeError, ValueError) as error:
            raise UserError(f"{path}: {name} is no annotation of an image ({error})") from error
        if not classes:
            raise UserError(f"{path}: {name} has no object")
        mine = [box for box, label in zip(boxes, classes, strict=True) if label == classes[0]]
        yield PurePosixPath(name).stem, (classes[0], np.array(mine, np.float32))


def _box(thing: ElementTree.Element) -> tuple[float, float, float, float]:
    """xmin … ymax, counted from 0 and inclusive → x0, y0, x1, y1, half-open."""
    xmin, ymin, xmax, ymax = (
        float(thing.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    return xmin, ymin, xmax + 1, ymax + 1


def _true(
    truth: Mapping[str, tuple[str, np.ndarray]], key: str, root: Path
) -> tuple[str, np.ndarray]:
    if key not in truth:
        raise UserError(f"{root / BOXES}: no annotation of {key}, which is in {VAL}")
    return truth[key]
