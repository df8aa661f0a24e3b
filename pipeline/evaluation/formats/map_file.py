"""maps.npz beside per_image.csv: each image's heatmap of the predicted class, as it was read, in 8 bits.

ids [N]: the images, in the order of per_image.csv; maps uint8 [N, h, w]; low, high float32 [N]. A value v
of image i stands for low + v / 255 · (high - low), in the unit of the heatmap. The grid h × w is the
localizer's own, or, so that the file stays below 64 MiB, one as fine as that allows.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pipeline.errors import UserError
from pipeline.files import whole_file

NAME = "maps.npz"
LIMIT = 64 * 2**20  # bytes of all maps together


@dataclass(frozen=True)
class Maps:
    """Heatmaps by image: `values` uint8 [N, h, w], each from its own `low` to its `high`, float32 [N]."""

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, maps: np.ndarray) -> "Maps":
        """Maps float [N, h, w] in 8 bits; constant maps become 0, and so does what is not finite."""
        clean = np.nan_to_num(maps.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = clean.min((1, 2)), clean.max((1, 2))
        spread = np.where(high > low, high - low, 1)[:, None, None]
        values = ((clean - low[:, None, None]) / spread * 255).round().astype(np.uint8)
        return cls(values, low, high)


def grid(images: int, height: int, width: int) -> tuple[int, int]:
    """The (height, width) of maps, at most the given one, of which `images` stay below the limit."""
    share = min(1.0, (LIMIT / (max(images, 1) * height * width)) ** 0.5)
    return max(1, int(height * share)), max(1, int(width * share))


def write(folder: Path, ids: Sequence[str], maps: Maps) -> None:
    """Write `folder`/maps.npz: the same maps, the same bytes."""
    with whole_file(folder / NAME) as partial, partial.open("wb") as file:
        names = np.array(ids, dtype=np.str_)
        np.savez_compressed(file, ids=names, maps=maps.values, low=maps.low, high=maps.high)


def read(folder: Path) -> tuple[list[str], Maps]:
    """The images' ids and their maps; UserError if the file is absent or damaged."""
    path = folder / NAME
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return file["ids"].tolist(), Maps(file["maps"], file["low"], file["high"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro evaluate` writes it") from None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro`") from error
