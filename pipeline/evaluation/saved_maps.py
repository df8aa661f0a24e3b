"""Heatmaps, boxes and masks that any program left in files, checked where they are read.

boxes.csv: image_id, x0, y0, x1, y1, width, height in pixels of the image, a line per box; a line with
the four coordinates empty is an image without a box. Maps: <image_id>.npy, one array [height, width]
of any size. Masks: <image_id>.png, nonzero on the object, and where given <image_id>_ignore.png,
nonzero where pixels are not to be counted.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import tables
from pipeline.boxes import wsoleval
from pipeline.errors import UserError
from pipeline.raw import coordinates

COLUMNS = ("image_id", "x0", "y0", "x1", "y1", "width", "height")


class Truth(NamedTuple):
    """An image's size (height, width) and its boxes [n, 4], both in its own pixels."""

    size: tuple[int, int]
    boxes: NDArray[np.float64]


def read_boxes(path: Path) -> dict[str, Truth]:
    """Every image of boxes.csv in the file's order; UserError tells all that is wrong with it."""
    sizes: dict[str, tuple[int, int]] = {}
    boxes: dict[str, list[list[float]]] = {}
    problems = []
    for number, line in tables.read(path, COLUMNS):
        try:
            image, size, box = _row(line)
            if sizes.setdefault(image, size) != size:
                raise ValueError(f"{image} has another width and height than before")
        except ValueError as error:
            problems.append(f"{path}, line {number}: {error}")
            continue
        boxes.setdefault(image, []).extend(box)
    tables.raise_if_any(problems)
    if problem := coordinates.shares_suspected(box for of in boxes.values() for box in of):
        raise UserError(f"{path}: {problem}")
    if not boxes:
        raise UserError(f"{path} names no image")
    return {
        image: Truth(sizes[image], np.array(of, np.float64).reshape(-1, 4))
        for image, of in boxes.items()
    }


def _row(line: tables.Row) -> tuple[str, tuple[int, int], list[list[float]]]:
    """(image id, (height, width), no or one box) of a line; ValueError says what is wrong with it."""
    image = line["image_id"]
    if not image or Path(image).is_absolute() or ".." in Path(image).parts:
        raise ValueError(f"image_id is {image!r}; allowed: a file name without its ending")
    width, height = (_number(name, line[name]) for name in ("width", "height"))
    if width < 1 or height < 1 or width % 1 or height % 1:
        raise ValueError(f"{image} is {width:g} × {height:g}; allowed: whole pixels, 1 or more")
    if not any(line[name] for name in COLUMNS[1:5]):
        return image, (int(height), int(width)), []
    x0, y0, x1, y1 = box = [_number(name, line[name]) for name in COLUMNS[1:5]]
    if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
        raise ValueError(
            f"box {x0:g}, {y0:g}, {x1:g}, {y1:g} of {image} is not inside its image of "
            f"{width:g} × {height:g}; allowed: 0 ≤ x0 ≤ x1 ≤ width, 0 ≤ y0 ≤ y1 ≤ height"
        )
    return image, (int(height), int(width)), [box]


def _number(name: str, text: str) -> float:
    try:
        return tables.number(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; allowed: a number") from None


def check_present(maps: Path, masks: Path | None, images: list[str], boxes: Path) -> None:
    """Every image has its map, and its mask if there is a folder of them; UserError names the missing."""
    folders = [folder for folder in (maps, masks) if folder is not None]
    tables.raise_if_any([f"{folder} is no folder" for folder in folders if not folder.is_dir()])
    wanted = [maps / f"{image}.npy" for image in images]
    if masks:
        wanted += [masks / f"{image}.png" for image in images]
    tables.raise_if_any(
        [f"{path} is missing: {boxes} names it" for path in wanted if not path.is_file()]
    )


def read_map(folder: Path, image: str) -> NDArray[Any]:
    """An image's heatmap [height, width], float32 or float64; ValueError says what is wrong with it."""
    path = folder / f"{image}.npy"
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array: {error}") from error
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{path} holds several arrays; allowed: one, as np.save writes it")
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path} has shape {values.shape}; allowed: (height, width)")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds {values.dtype}; allowed: real numbers")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} holds NaN or infinite values")
    limit = np.finfo(values.dtype).max / 16  # sums of a resize and the range must stay finite
    if (largest := np.abs(values).max()) > limit:
        raise ValueError(f"{path} holds values of {largest:.1e}; allowed: up to {limit:.1e}")
    return values


def read_mask(folder: Path, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image's mask at `size`: 1 object, 0 not, 255 not to be counted; ValueError if unreadable."""
    ignore = folder / f"{image}_ignore.png"
    return wsoleval.mask(
        _grey(folder / f"{image}.png")[None], _grey(ignore) if ignore.exists() else None, size
    )


def _grey(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a picture") from error
