"""Beetles on dull ground, drawn on the spot from a seed: see pipeline/datasets/synthetic/objects.py.

Each image is a function of (seed, species, number) alone: more images or more classes leave those
there were as they are. data/raw holds one tar of JPEGs, with an index of their boxes at its end.
"""

import csv
import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from pipeline.datasets import Dataset, Entry, Report
from pipeline.datasets.synthetic import objects
from pipeline.params.section import DatasetSection
from pipeline.params.settings import Positive, Seed
from pipeline.raw import archives

ARCHIVE = "synthetic.tar"
INDEX = "index.csv"
COLUMNS = ["id", "split", "x0", "y0", "x1", "y1"]
LONGEST = 1.6  # long side of the images that are not square, in short sides, at most
QUALITY = 95


class Params(DatasetSection):
    """How many pictures, of how many species, how large."""

    classes: Annotated[int, Field(ge=2, le=len(objects.HUES) * len(objects.TEXTURES))]
    train_per_class: Positive
    test_per_class: Positive
    side: Annotated[int, Field(ge=32, le=2048)]
    """Pixels: the short side of every image."""
    seed: Seed


def download(params: Params, out: Path, report: Report) -> None:
    """Draw the dataset into one tar in `out`; the same params give the same bytes."""
    kinds = sorted(objects.species(params.classes), key=lambda kind: kind.name)
    numbers = range(params.train_per_class + params.test_per_class)
    total = len(kinds) * len(numbers)
    report.say(f"synthetic: drawing {total} pictures of {len(kinds)} species")
    rows: list[list[object]] = []
    with tarfile.open(out / ARCHIVE, "w", format=tarfile.USTAR_FORMAT) as archive:
        for kind in kinds:
            for number in numbers:
                encoded, box = _picture(kind, number, params)
                name = f"{kind.name}/{number:05d}.jpg"
                split = "train" if number < params.train_per_class else "test"
                rows.append([name, split, *box.astype(int).tolist()])
                _add(archive, f"images/{name}", encoded)
                report.progress(len(rows), total, "image")
        _add(archive, INDEX, _csv(rows))


def _picture(kind: objects.Species, number: int, params: Params) -> tuple[bytes, np.ndarray]:
    rng = np.random.default_rng([params.seed, *kind.name.encode(), number])
    height = width = params.side
    if rng.random() < 0.5:
        longer = round(params.side * rng.uniform(1.1, LONGEST))
        height, width = (longer, width) if rng.random() < 0.4 else (height, longer)
    image, box = objects.draw(kind, height, width, rng)
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue(), box


def _csv(rows: list[list[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    return text.getvalue().encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no owner and no time: the same bytes whenever it is made
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def read(params: Params, raw: Path) -> Dataset:
    """The dataset that `download` left in `raw`."""
    path = raw / ARCHIVE
    _, text = next(archives.files(path, lambda name: name == INDEX))
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    names = sorted({row["id"].split("/")[0] for row in rows})
    index = [
        Entry(
            id=row["id"],
            label=names.index(row["id"].split("/")[0]),
            split="train" if row["split"] == "train" else "test",
            boxes=np.array([[row[edge] for edge in COLUMNS[2:]]], np.float32),
        )
        for row in sorted(rows, key=lambda row: row["id"])
    ]

    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        places = {f"images/{index[i].id}": i for i in wanted}
        for name, encoded in archives.files(path, places.__contains__):
            yield places[name], encoded

    return Dataset(
        name="synthetic",
        source=str(path),
        class_names=names,
        index=index,
        checksum=archives.md5(path),
        has_boxes=True,
        published=False,
        examples=examples,
    )
