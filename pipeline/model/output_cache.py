"""What a trained model says of a split, kept on disk, so that new box params need no forward pass.

Named tensors, one row per image, each a memory-mapped .npy file, written as the batches come by.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline import backbones, cache, code
from pipeline.errors import UserError
from pipeline.files import FULL, whole_directory
from pipeline.localizers.base import Localizer
from pipeline.model.reader import Reader
from pipeline.training.checkpoint import environment

BLOCK = 2**20
Say = Callable[[str], None]
Rows = dict[str, Tensor]

DECIDE = ("localizer", "heatmap", "heatmaps", "input", "precision")
"""The fields of a reading that decide the outputs; the others say how boxes are read off them."""


@dataclass(frozen=True)
class Kept:
    """The readings of one model on one split, and the bytes that all kept readings may take."""

    folder: Path
    limit: int
    say: Say = lambda line: None

    @classmethod
    def of(
        cls, reader: Reader, model_sha256: str, prepared: Path, split: str, *, mib: int, say: Say
    ) -> "Kept":
        """Named by all that decides them: weights, data, geometry, precision, the method's params, code.

        mib: evaluate.keep_mib of params.yaml.
        """
        method = type(reader.method).__module__
        what = {
            "model": model_sha256,
            "split": split,
            "method": method,
            "method_params": reader.method.params.model_dump(mode="json"),
            "reading": reader.reading.model_dump(mode="json", include=set(DECIDE)),
            "device": str(reader.device),
        }
        localizers = []
        if isinstance(reader.localizer, Localizer):
            state = reader.localizer.state_dict()
            what["localizer"] = cache.digest(t.cpu().numpy().tobytes() for t in state.values())
            parts = (part for part in reader.localizer.modules() if isinstance(part, Localizer))
            localizers = [type(part).__module__ for part in parts]
        name = cache.fingerprint(
            what,
            [
                (prepared / "meta.json").read_bytes(),
                *code.fingerprints(
                    "pipeline.model.reader",
                    method,
                    *localizers,
                    backbones.module(reader.method.backbone.name),
                ),
                *environment(),
            ],
        )
        return cls(cache.store("readings", name), mib * 2**20, say)

    def missing(self, names: Sequence[str]) -> str | None:
        """Why a forward pass must give the named tensors; None if they are all here."""
        if not self.folder.exists():
            return "this model has not been evaluated so before"
        if absent := [name for name in names if not self._file(name).exists()]:
            return (
                f"the {' and '.join(absent)} were not kept: more than evaluate.keep_mib in params.yaml, "
                "or more than the disk had room for"
            )
        return None

    def rows(self, names: Sequence[str], index: slice | list[int]) -> Rows:
        """Some images' rows of the named tensors."""
        return {
            name: torch.from_numpy(np.array(np.load(self._file(name), mmap_mode="r")[index]))
            for name in names
        }

    def used(self) -> None:
        """Count as the latest, the last one to be let go."""
        os.utime(self.folder)

    @contextmanager
    def recording(self, images: int) -> Iterator["Recorder"]:
        """Write readings of `images` images: whole, if the block ends well, or not at all.

        On a full disk nothing more is recorded, and the work goes through without.
        """
        with ExitStack() as stack:
            try:
                partial = stack.enter_context(whole_directory(self.folder))
            except UserError as error:
                self.say(f"heatmaps are not kept: {error}")
                yield Recorder(self.folder, images, 0, self.say)
                return
            yield Recorder(partial, images, self.limit, self.say)
        self._let_go()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _let_go(self) -> None:
        """Drop the readings not used for longest, beyond the limit."""
        total = 0
        kept = (path for path in self.folder.parent.iterdir() if not path.name.startswith("."))
        for folder in sorted(kept, key=lambda path: path.stat().st_mtime, reverse=True):
            total += sum(file.stat().st_size for file in folder.iterdir())
            if total > self.limit:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Recorder:
    """Takes batches in the images' order; a tensor that would not fit beside those before it is left out."""

    folder: Path
    images: int
    room: int
    say: Say = lambda line: None

    def __post_init__(self) -> None:
        self._files: dict[str, np.memmap[tuple[int, ...], np.dtype[np.float32]] | None] = {}
        self._done = 0

    def add(self, batch: Rows) -> None:
        """The next images' rows; the same names in every batch, most important first."""
        size = 0
        for name, tensor in batch.items():
            rows = tensor.cpu().numpy()
            if name not in self._files:
                self._files[name] = self._create(name, rows)
            file = self._files[name]
            if file is not None:
                file[self._done : self._done + len(rows)] = rows
            size = len(rows)
        self._done += size

    def _create(
        self, name: str, rows: np.ndarray
    ) -> np.memmap[tuple[int, ...], np.dtype[np.float32]] | None:
        shape = (self.images, *rows.shape[1:])
        self.room -= int(np.prod(shape)) * rows.itemsize
        if self.room < 0:
            return None
        path = self.folder / f"{name}.npy"
        try:
            file = np.lib.format.open_memmap(path, mode="w+", dtype=rows.dtype, shape=shape)
            _reserve(path)
        except OSError as error:
            if error.errno not in FULL:
                raise
            path.unlink(missing_ok=True)
            self.room = -1
            self.say(
                f"the disk is full: the {name} are not kept, and are computed again when needed"
            )
            return None
        return file


def _reserve(path: Path) -> None:
    """Take the disk's room for a sparse file: a page without any ends the process (SIGBUS)."""
    with path.open("r+b") as file:
        size = path.stat().st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        for start in range(0, size, BLOCK):
            file.seek(start)
            block = file.read(BLOCK)
            file.seek(start)
            file.write(block)
