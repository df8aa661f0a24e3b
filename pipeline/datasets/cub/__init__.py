"""CUB-200-2011: 11,788 photographs of 200 kinds of birds, one box each.

C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie, "The Caltech-UCSD Birds-200-2011 Dataset",
Caltech CNS-TR-2011-001. The official split. Boxes refer to the pixels as stored.
Any archive of the same layout will do, such as one with some of the classes.
"""

import posixpath
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from pipeline import tables
from pipeline.cache import project_path
from pipeline.datasets import NO_BOXES, Dataset, Entry, Report
from pipeline.errors import UserError
from pipeline.params.section import DatasetSection, InputFile
from pipeline.raw import archives, coordinates
from pipeline.raw.download import fetch, is_url

ARCHIVE = "CUB_200_2011.tgz"
FOLDER = "CUB_200_2011"
INDEX = (
    "images.txt",
    "classes.txt",
    "image_class_labels.txt",
    "bounding_boxes.txt",
    "train_test_split.txt",
)
SHOWN = 10  # members named in a message, of however many

T = TypeVar("T")


class Params(DatasetSection):
    """Where the archive is."""

    archive: InputFile
    """An address (http, https) or a file; 1.1 GB as published."""
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None
    """Of the archive; null: not checked."""


def download(params: Params, out: Path, report: Report) -> None:
    """Put the archive into `out`, downloaded or copied, and check it."""
    target = out / ARCHIVE
    if is_url(params.archive):
        report.say(f"cub: downloading {params.archive}")
        fetch(params.archive, target, report)
    else:
        source = project_path(params.archive)
        if not source.is_file():
            raise UserError(
                f"params.yaml: datasets.cub.archive is {params.archive!r}, and there is no such file; "
                "allowed: an address (https://...) or an archive of CUB-200-2011's layout"
            )
        report.say(f"cub: copying {source}")
        # Not linked: DVC makes what it caches read-only, and this file is not ours.
        shutil.copyfile(source, target)
    if params.md5 is None:
        report.say("cub: MD5 not checked (datasets.cub.md5 is null)")
        return
    found = archives.md5(target, lambda done, total: report.progress(done, total, "B"))
    if found != params.md5:
        raise UserError(
            f"{params.archive}: its MD5 is {found}, and datasets.cub.md5 in params.yaml is "
            f"{params.md5}; take the archive again, or write its MD5 (or null) if it is another "
            "archive on purpose"
        )
    report.say(f"cub: MD5 {found} is right")


def read(params: Params, raw: Path) -> Dataset:
    """The dataset in `raw`; labels count the classes that are there, in the order of their names."""
    path = raw / ARCHIVE
    texts = _index_texts(path)
    names = _table(path, "classes.txt", texts, str)
    paths = _table(path, "images.txt", texts, str)
    labels = _table(path, "image_class_labels.txt", texts, str)
    trains = _table(path, "train_test_split.txt", texts, int)
    boxes = _table(path, "bounding_boxes.txt", texts, _box)
    _complete(path, "image_class_labels.txt", labels, paths)
    _complete(path, "train_test_split.txt", trains, paths)
    _complete(path, "bounding_boxes.txt", boxes, paths)
    _complete(path, "classes.txt", names, labels.values())

    valid = {key: box for key, box in boxes.items() if coordinates.valid(box).all()}
    # Of a box in shares, x + width and y + height are shares as well.
    if problem := coordinates.shares_suspected(box[0].tolist() for box in valid.values()):
        raise UserError(f"{path}: {FOLDER}/bounding_boxes.txt: {problem}")

    class_names = sorted({names[label] for label in labels.values()})
    number = {name: i for i, name in enumerate(class_names)}
    index = [
        Entry(
            id=image,
            label=number[names[labels[key]]],
            split="train" if trains[key] else "test",
            boxes=valid.get(key, NO_BOXES),
        )
        for image, key in sorted({image: key for key, image in paths.items()}.items())
    ]
    return Dataset(
        name="cub",
        source=str(path),
        class_names=class_names,
        index=index,
        checksum=archives.md5(path),
        has_boxes=True,
        published=True,
        examples=lambda wanted: _examples(
            path, {posixpath.normpath(f"{FOLDER}/images/{index[i].id}"): i for i in wanted}
        ),
        invalid_boxes={
            paths[key]: coordinates.shown(box)
            for key, box in boxes.items()
            if key in paths and key not in valid
        },
    )


def _examples(path: Path, missing: dict[str, int]) -> Iterator[tuple[int, bytes]]:
    """The members named, with their positions; none is left in `missing`."""
    for name, encoded in archives.files(path, missing.__contains__):
        yield missing.pop(name), encoded
    if missing:
        shown = ", ".join(sorted(missing)[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(
            f"{path}: listed in {FOLDER}/images.txt but not in the archive: {shown}{more}"
        )


def _index_texts(path: Path) -> dict[str, str]:
    """The five index files; the archive is read only as far as the last of them."""
    texts: dict[str, str] = {}
    wanted = {f"{FOLDER}/{file}": file for file in INDEX}
    for name, content in archives.files(path, wanted.__contains__, archives.LARGEST_TEXT):
        texts[wanted[name]] = tables.decode(content, f"{path}: {name}")
        if len(texts) == len(INDEX):
            return texts
    lacking = ", ".join(f"{FOLDER}/{file}" for file in INDEX if file not in texts)
    raise UserError(f"{path}: no member {lacking}; allowed: archives of CUB-200-2011's layout")


def _table(
    path: Path, file: str, texts: Mapping[str, str], parse: Callable[[str], T]
) -> dict[str, T]:
    """An index file of lines `<id> <value>`."""
    table = {}
    for number, line in enumerate(texts[file].splitlines(), 1):
        key, _, value = line.strip().partition(" ")
        if not key:
            continue
        try:
            table[key] = parse(value)
        except ValueError as error:
            raise UserError(
                f"{path}: {FOLDER}/{file} line {number} is {line!r}: {error}"
            ) from error
    return table


def _box(text: str) -> np.ndarray:
    """x, y, width, height → x0, y0, x1, y1, half-open; float32 [1, 4]."""
    x, y, width, height = (float(number) for number in text.split())
    with np.errstate(over="ignore"):  # what does not fit is infinite, and so no box
        return np.array([[x, y, x + width, y + height]], np.float64).astype(np.float32)


def _complete(path: Path, file: str, column: Mapping[str, object], keys: Iterable[str]) -> None:
    if lacking := [key for key in dict.fromkeys(keys) if key not in column]:
        raise UserError(
            f"{path}: {FOLDER}/{file} has no line for {', '.join(lacking[:SHOWN])}"
            + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")
        )
