"""Datasets, one file each; the file's name is the value of `dataset` in params.yaml.

Each has `class Params(DatasetSection)`, its section of params.yaml; `download(params, out, report)`, which
fills the folder data/raw; and `read(params, raw)`, which gives a `Dataset`.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

from pipeline.errors import UserError

SplitName = Literal["train", "val", "test"]

NO_BOXES = np.zeros((0, 4), np.float32)
NO_BOXES.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One image of the index: its id (`<class>/<file>`), label 0…K-1, split and boxes.

    boxes: float32 [n, 4], x0, y0, x1, y1, half-open edges in pixels of the original image.
    """

    id: str
    label: int
    split: SplitName
    boxes: np.ndarray


@dataclass(frozen=True, slots=True)
class Slice:
    """Where a file's content lies in an uncompressed archive, to be read on demand."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        try:
            with Path(self.path).open("rb", buffering=0) as file:
                file.seek(self.offset)
                found = file.read(self.size)
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is gone; put it back") from error
        if len(found) < self.size:
            raise UserError(f"{self.path} ends before byte {self.offset + self.size:,}; it changed")
        return found


@dataclass(frozen=True)
class Dataset:
    """Images with labels, and boxes where there are any.

    index is sorted by id. `examples(wanted)` yields each of the wanted positions in it with its file's
    content, in whatever order the source is read fastest: that of `wanted` where any image can be
    read by itself. `source` names it in messages.
    published: boxes are somebody else's, given for the pixels as stored: EXIF orientation is not
    applied, and a box over the edge is taken as it is. Otherwise both are the user's to mend.
    invalid_boxes: the published boxes, by image, that are no boxes and are left out of the index.
    """

    name: str
    source: str
    class_names: Sequence[str]
    index: Sequence[Entry]
    checksum: str
    has_boxes: bool
    published: bool
    examples: Callable[[Iterable[int]], Iterator[tuple[int, bytes | Slice]]]
    invalid_boxes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Where a long job tells what it does; silent unless somebody listens.

    progress: (done, total, unit); total is 0 where it is not known.
    """

    say: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int, str], None] = lambda done, total, unit: None


def module(name: str) -> ModuleType:
    """The dataset's file, imported."""
    return importlib.import_module(f"{__name__}.{name}")


def draw(ids: Iterable[str], fraction: float, seed: int) -> set[str]:
    """A random share of `ids` that depends on nothing but these ids, the fraction and the seed.

    At least one is drawn and one is left, unless there is only one or the fraction is 0.
    """
    shuffled = sorted(ids, key=lambda id: hashlib.sha256(f"{seed}:{id}".encode()).digest())
    count = max(1, round(fraction * len(shuffled))) if fraction else 0
    return set(shuffled[: min(count, len(shuffled) - 1)])


def by_class(index: Iterable[Entry]) -> dict[int, list[Entry]]:
    """The entries of each label."""
    groups: dict[int, list[Entry]] = {}
    for entry in index:
        groups.setdefault(entry.label, []).append(entry)
    return groups
