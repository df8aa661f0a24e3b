"""Prepared images on disk: Arrow IPC files of about 10,000 JPEGs, mapped into memory, and meta.json.

    train-00000-of-00002.arrow   id, image (JPEG), label, height, width, boxes — one row per image
    meta.json                    the dataset, its classes, counts and checksum

height, width: of the original image; boxes: x0, y0, x1, y1, half-open edges in its pixels. Any
Arrow reader opens the files (pandas.read_feather, polars.read_ipc, pyarrow.ipc.open_file).
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.datasets import NO_BOXES, Entry
from pipeline.errors import UserError
from pipeline.outputs import read_json, write_json

IMAGES_PER_FILE = 10_000
ROWS_PER_BATCH = 500  # what is in memory at a time while writing
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


def write_meta(root: Path, meta: Meta) -> None:
    write_json(root / "meta.json", asdict(meta))


def read_meta(root: Path) -> Meta:
    """meta.json of `root`; UserError if there is none."""
    path = root / "meta.json"
    try:
        return Meta(**read_json(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {AGAIN}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not what preprocess writes ({error}); {AGAIN}") from error


class Split:
    """One split, mapped into memory: columns as arrays, images read when asked for."""

    def __init__(self, table: pa.Table) -> None:
        self.ids: list[str] = table["id"].to_pylist()
        self.labels = _array(table["label"]).astype(np.int64)
        self.sizes = np.stack([_array(table["height"]), _array(table["width"])], axis=1)
        self.boxes = _boxes(table["boxes"])
        self._images: pa.ChunkedArray = table["image"]

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
        return len(self.ids)

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


class Writer:
    """Packs the images of one split in the order of `entries`, given to it in any order.

    What comes is spooled to the disk until a file's images are all there: memory stays bounded by
    `ROWS_PER_BATCH` images whatever the order and the size of the dataset.
    """

    def __init__(
        self, root: Path, split: str, entries: Sequence[Entry], per_file: int = IMAGES_PER_FILE
    ) -> None:
        starts = range(0, max(1, len(entries)), per_file)
        self._per_file = per_file
        self._files = [
            _File(
                root / f"{split}-{number:05d}-of-{len(starts):05d}.arrow",
                entries[start : start + per_file],
            )
            for number, start in enumerate(starts)
        ]

    def add(self, position: int, encoded: bytes, size: tuple[int, int]) -> None:
        """Store image `position` of the entries: its JPEG and its original (height, width)."""
        self._files[position // self._per_file].add(position % self._per_file, encoded, size)

    def skip(self, position: int) -> None:
        """Leave image `position` out."""
        self._files[position // self._per_file].add(position % self._per_file, b"", (0, 0))

    def close(self) -> None:
        """Check that all is written; files are complete as soon as their last image has come."""
        missing = sum(file.pending for file in self._files)
        self._drop()
        if missing:
            raise RuntimeError(f"{missing} images were neither added nor skipped")

    def _drop(self) -> None:
        for file in self._files:
            if file.spool is not None:
                file.spool.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self._drop()


class _File:
    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self.path, self.entries, self.pending = path, entries, len(entries)
        self.offsets = np.zeros(len(entries), np.int64)
        self.lengths = np.zeros(len(entries), np.int64)
        self.sizes = np.zeros((len(entries), 2), np.int32)
        self.spool: BinaryIO | None = None
        if not entries:
            self._write()

    def add(self, row: int, encoded: bytes, size: tuple[int, int]) -> None:
        if self.spool is None:
            self.spool = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
        self.offsets[row], self.lengths[row] = self.spool.tell(), len(encoded)
        self.sizes[row] = size
        self.spool.write(encoded)
        self.pending -= 1
        if self.pending == 0:
            self._write()
            self.spool.close()

    def _write(self) -> None:
        with self.path.open("wb") as file, pa.ipc.new_file(file, SCHEMA) as sink:
            for batch in self._batches():
                sink.write_batch(batch)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        kept = np.flatnonzero(self.lengths)
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
                _strings(pa.binary(), [self._spooled(row) for row in rows]),
                _numbers(pa.int32(), np.array([entry.label for entry in entries], np.int32)),
                _numbers(pa.int32(), self.sizes[rows, 0]),
                _numbers(pa.int32(), self.sizes[rows, 1]),
                pa.Array.from_buffers(
                    SCHEMA.field("boxes").type,
                    len(rows),
                    [None, _offsets([len(entry.boxes) for entry in entries])],
                    children=[box],
                ),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)

    def _spooled(self, row: int) -> bytes:
        assert self.spool is not None
        self.spool.seek(self.offsets[row])
        return self.spool.read(self.lengths[row])
