"""Datasets, one file each; the file's name is the value of `dataset` in params.yaml.

Each has `class Params(Section)`, its section of params.yaml; `download(params, out, report)`, which
fills the folder data/raw; and `read(params, raw)`, which gives a `Dataset`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

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
    boxes: np.ndarray = NO_BOXES


@dataclass(frozen=True)
class Dataset:
    """Images with labels, and boxes where there are any.

    index is sorted by id. `examples()` yields every entry with its file's bytes, in whatever order
    the source is read fastest. `source` names it in messages.
    published: boxes are somebody else's, given for the pixels as stored: EXIF orientation is not
    applied, and a box over the edge is taken as it is. Otherwise both are the user's to mend.
    """

    name: str
    source: str
    class_names: Sequence[str]
    index: Sequence[Entry]
    checksum: str
    has_boxes: bool
    published: bool
    examples: Callable[[], Iterator[tuple[Entry, bytes]]]


@dataclass(frozen=True)
class Report:
    """Where a long job tells what it does; silent unless somebody listens.

    progress: (done, total, unit); total is 0 where it is not known.
    """

    say: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int, str], None] = lambda done, total, unit: None


def names() -> list[str]:
    """The datasets there are: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module(name: str) -> ModuleType:
    """The dataset's file, imported."""
    return importlib.import_module(f"{__name__}.{name}")
