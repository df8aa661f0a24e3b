"""Prepared images on disk: Arrow IPC files of about 10,000 JPEGs, mapped into memory, and meta.json.

    train-00000-of-00002.arrow   id, image (JPEG), label, height, width, boxes — one row per image
    meta.json                    the dataset, its classes, counts and checksum

height, width: of the original image; boxes: x0, y0, x1, y1, half-open edges in its pixels. Any
Arrow reader opens the files (pandas.read_feather, polars.read_ipc, pyarrow.ipc.open_file).
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.datasets import NO_BOXES, Entry
from pipeline.errors import UserError
from pipeline.files import read_json, whole_file, write_json

IMAGES_PER_FILE = 10_000
ROWS_PER_BATCH = 500  # what is in memory at a time while writing
META = "meta.json"
NOTES = ".notes.json"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
    ]
)
AGAIN = "make it again with `dvc repro -f preprocess`, or take a teammate's with `dvc pull`"


@dataclass(frozen=True)
class Meta:
    """What data/prepared holds. counts: images by split; unreadable: id → reason, of those left out.

    boxes_over_edge: boxes of a published dataset that leave their image; they are kept as they are.
    boxed: images with a box, by split. invalid_boxes: id → the published box that is left out of it.
    """

    dataset: str
    class_names: list[str]
    counts: dict[str, int]
    checksum: str
    has_boxes: bool
    short_side: int
    jpeg_quality: int
    boxes_over_edge: int
    unreadable: dict[str, str]
    boxed: dict[str, int]
    invalid_boxes: dict[str, str]


def check_selection(meta: Meta, selection: str) -> None:
    """Raise UserError if box.selection is `val` and no image of that split has a box."""
    if selection == "val" and not meta.boxed["val"]:
        raise UserError(
            f"params.yaml: box.selection is 'val', and none of the {meta.counts['val']} held-out images "
            f"of {meta.dataset} has a box; allowed: another box.selection, or boxes on images of val"
        )


def files(root: Path) -> list[Path]:
    """What data/prepared is: the Arrow files and meta.json of `root`, without the notes."""
    return sorted(path for path in root.iterdir() if path.name == META or path.suffix == ".arrow")


def write_meta(root: Path, meta: Meta) -> None:
    write_json(root / META, asdict(meta))


def read_meta(root: Path) -> Meta:
    """meta.json of `root`; UserError if there is none."""
    path = root / META
    try:
        return Meta(**read_json(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {AGAIN}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not what preprocess writes ({error}); {AGAIN}") from error


class Split:
    """One split, mapped into memory: columns as arrays, made when first asked for; images one by one.

    Opening costs no more than finding where each batch of rows begins, and the processes that map the
    same files share their pages.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._images: pa.ChunkedArray = table["image"]

    @cached_property
    def ids(self) -> list[str]:
        ids: list[str] = self._table["id"].to_pylist()
        return ids

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [n]"""
        return _array(self._table["label"]).astype(np.int64)

    @cached_property
    def sizes(self) -> np.ndarray:
        """int32 [n, 2]: height, width of the original images."""
        return np.stack([_array(self._table[side]) for side in ("height", "width")], axis=1)

    @cached_property
    def boxes(self) -> list[np.ndarray]:
        """One float32 [k, 4] per image."""
        return _boxes(self._table["boxes"])

    @classmethod
    def open(cls, root: Path, split: str) -> "Split":
        """Map `<split>-*.arrow` of `root`; UserError if files are missing or damaged."""
        files = sorted(root.glob(f"{split}-*-of-*.arrow"))
        if not files or len(files) != int(files[0].stem.rsplit("-", 1)[1]):
            raise UserError(f"{root} has {len(files)} files of split {split}, not all; {AGAIN}")
        tables = []
        for file in files:
            try:
                tables.append(pa.ipc.open_file(pa.memory_map(str(file))).read_all())
            except pa.ArrowInvalid as error:
                raise UserError(f"{file} is damaged ({error}); {AGAIN}") from error
        return cls(pa.concat_tables(tables))

    def __len__(self) -> int:
        return len(self._images)

    def encoded(self, index: int) -> bytes:
        """The JPEG of image `index`."""
        image: bytes = self._images[index].as_buffer().to_pybytes()
        return image


# Arrays go in and out by their buffers: Arrow's own conversions import pandas, which takes seconds.


def _array(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.array(np.from_dlpack(whole))


def _boxes(column: pa.ChunkedArray) -> list[np.ndarray]:
    """One float32 [n, 4] per row."""
    rows = column.combine_chunks()
    ends = np.cumsum(_array(rows.value_lengths()))
    flat = _array(rows.flatten().flatten()).reshape(-1, 4)
    return np.split(flat, ends[:-1]) if len(ends) else []


def _numbers(kind: pa.DataType, values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.tobytes())])


def _strings(kind: pa.DataType, values: Sequence[bytes]) -> pa.Array:
    content = pa.py_buffer(b"".join(values))
    offsets = _offsets([len(value) for value in values])
    return pa.Array.from_buffers(kind, len(values), [None, offsets, content])


def _offsets(lengths: Sequence[int]) -> pa.Buffer:
    """Where each item begins in the joined content, and where the last one ends."""
    return pa.py_buffer(np.cumsum([0, *lengths], dtype=np.int32).tobytes())


@dataclass(frozen=True)
class Notes:
    """What there is to tell of a file's images, by id: why one is left out, boxes that leave it."""

    unreadable: dict[str, str] = field(default_factory=dict)
    outside: dict[str, list[str]] = field(default_factory=dict)

    def __ior__(self, other: "Notes") -> "Notes":
        self.unreadable.update(other.unreadable)
        self.outside.update(other.outside)
        return self


class Writer:
    """Packs the images of one split in the order of `entries`, given to it in any order.

    What comes is spooled to the disk until a file's images are all there: memory stays bounded by
    `ROWS_PER_BATCH` images whatever the order and the size of the dataset. A file appears whole, or
    not at all also at a power cut. Files that are there already, and are as they were written, are kept.
    """

    def __init__(
        self, root: Path, split: str, entries: Sequence[Entry], per_file: int = IMAGES_PER_FILE
    ) -> None:
        starts = range(0, max(1, len(entries)), per_file)
        self._per_file = per_file
        self.files = [
            File(
                root / f"{split}-{number:05d}-of-{len(starts):05d}.arrow",
                entries[start : start + per_file],
            )
            for number, start in enumerate(starts)
        ]

    def waiting(self) -> Iterator[int]:
        """The positions of the images that are in no file yet."""
        for number, file in enumerate(self.files):
            if file.pending:
                yield from range(number * self._per_file, number * self._per_file + file.pending)

    def add(
        self, position: int, encoded: bytes, size: tuple[int, int], outside: Sequence[str] = ()
    ) -> None:
        """Store image `position` of the entries: its JPEG and its original (height, width).

        outside: what is to be told of boxes that leave it.
        """
        file, row = self._place(position)
        if outside:
            file.notes.outside[file.entries[row].id] = list(outside)
        file.add(row, encoded, size)

    def skip(self, position: int, reason: str) -> None:
        """Leave image `position` out."""
        file, row = self._place(position)
        file.notes.unreadable[file.entries[row].id] = reason
        file.add(row, b"", (0, 0))

    def _place(self, position: int) -> tuple["File", int]:
        number, row = divmod(position, self._per_file)
        return self.files[number], row

    def close(self) -> None:
        """Check that all is written; files are complete as soon as their last image has come."""
        missing = sum(file.pending for file in self.files)
        self._drop()
        if missing:
            raise RuntimeError(f"{missing} images were neither added nor skipped")

    def _drop(self) -> None:
        for file in self.files:
            file.drop()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self._drop()


class File:
    """One Arrow file in the making, or made; beside it its notes, where there are any."""

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self.path, self.entries = path, entries
        self._spool: _Spool | None = None
        made = self._made()
        self.notes, self.pending = made or Notes(), 0 if made else len(entries)
        if not made and not entries:
            self._spool = _Spool(path.parent, 0)
            self._finish(self._spool)

    def _made(self) -> Notes | None:
        """The notes on the file, if it is there and as it was written."""
        try:
            values = read_json(self.path.with_suffix(NOTES))
            if values.pop("sha256") == _sha256(self.path):
                return Notes(**values)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # not there, or cut off with the power
        return None

    def add(self, row: int, encoded: bytes, size: tuple[int, int]) -> None:
        self._spool = self._spool or _Spool(self.path.parent, len(self.entries))
        self._spool.add(row, encoded, size)
        self.pending -= 1
        if self.pending == 0:
            self._finish(self._spool)

    def drop(self) -> None:
        """Forget what is spooled."""
        if self._spool is not None:
            self._spool.file.close()
        self._spool = None

    def _finish(self, spool: "_Spool") -> None:
        with whole_file(self.path) as partial, partial.open("wb") as file:
            with pa.ipc.new_file(file, SCHEMA) as sink:
                for batch in self._batches(spool):
                    sink.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        digest = _sha256(self.path)
        write_json(self.path.with_suffix(NOTES), {"sha256": digest, **asdict(self.notes)})
        self.drop()

    def _batches(self, spool: "_Spool") -> Iterator[pa.RecordBatch]:
        kept = np.flatnonzero(spool.lengths)
        for start in range(0, max(1, len(kept)), ROWS_PER_BATCH):  # a batch even of nothing
            rows = kept[start : start + ROWS_PER_BATCH]
            entries = [self.entries[row] for row in rows]
            boxes = np.concatenate([NO_BOXES, *(entry.boxes for entry in entries)])
            box = pa.Array.from_buffers(
                SCHEMA.field("boxes").type.value_type,
                len(boxes),
                [None],
                children=[_numbers(pa.float32(), boxes.ravel())],
            )
            columns = [
                _strings(pa.string(), [entry.id.encode() for entry in entries]),
                _strings(pa.binary(), [spool.read(row) for row in rows]),
                _numbers(pa.int32(), np.array([entry.label for entry in entries], np.int32)),
                _numbers(pa.int32(), spool.sizes[rows, 0]),
                _numbers(pa.int32(), spool.sizes[rows, 1]),
                pa.Array.from_buffers(
                    SCHEMA.field("boxes").type,
                    len(rows),
                    [None, _offsets([len(entry.boxes) for entry in entries])],
                    children=[box],
                ),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Spool:
    """What has come of a file's images, in any order, in a nameless file that ends with the process."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.offsets, self.lengths = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.sizes = np.zeros((rows, 2), np.int32)

    def add(self, row: int, encoded: bytes, size: tuple[int, int]) -> None:
        self.offsets[row], self.lengths[row] = self.file.tell(), len(encoded)
        self.sizes[row] = size
        self.file.write(encoded)

    def read(self, row: int) -> bytes:
        self.file.seek(self.offsets[row])
        return self.file.read(self.lengths[row])
