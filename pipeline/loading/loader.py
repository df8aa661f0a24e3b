"""Prepared images → batches: decoded once and kept if they fit in memory, else by worker processes."""

import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import packed
from pipeline.errors import UserError
from pipeline.loading import geometry
from pipeline.runtime.distributed import Share

AHEAD = 4
"""Batches made before they are asked for: of each worker process, or in pinned memory."""


class Decoded(Dataset[Tensor]):
    """The images of one split, decoded to one size when asked for: uint8 [3, height, width].

    Holds only a path, so that worker processes map the file themselves and share its pages.
    """

    def __init__(self, root: Path, split: str, size: tuple[int, int]) -> None:
        self.root, self.split, self.size = root, split, size
        self._packed: packed.Split | None = None

    @property
    def packed(self) -> packed.Split:
        if self._packed is None:
            self._packed = packed.Split.open(self.root, self.split)
        return self._packed

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> Tensor:
        return geometry.decode(self.packed.encoded(index), self.size)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_packed": None}


class Plan:
    """The batches of the next pass; kept by a DataLoader whose workers live longer than one."""

    def __init__(self) -> None:
        self.chunks: list[Tensor] = []

    def __iter__(self) -> Iterator[list[int]]:
        return (chunk.tolist() for chunk in self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Deliver the signal after the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _let_the_parent_speak(worker: int) -> None:
    """In a decoding process: Ctrl-C is the parent's, and so is what to say when it has gone.

    The thread that hands decoded images over would print a traceback where the parent ends first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shown = sys.excepthook

    def only_what_is_not_the_end(kind: type[BaseException], error: BaseException, at: Any) -> None:
        if not isinstance(error, OSError | EOFError | KeyboardInterrupt):
            shown(kind, error, at)

    sys.excepthook = only_what_is_not_the_end


class Loader:
    """Batches of one split in any order, as often as asked.

    size: (height, width) the images are decoded to. Images are kept in memory once decoded if the
    whole split takes at most `cache_mib`; otherwise `workers` processes decode them for every pass: they
    are started once, map the prepared files themselves and share their pages. The batches of a pass are
    made ahead, `AHEAD` of them, and lie in pinned memory if `pin`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int],
        *,
        batch_size: int,
        workers: int,
        cache_mib: int,
        pin: bool = False,
    ) -> None:
        self.images = Decoded(root, split, size)
        self.labels = torch.from_numpy(np.asarray(self.images.packed.labels, dtype=np.int64))
        self.batch_size, self.workers, self.pin = batch_size, workers, pin
        self.waited = 0.0
        """Seconds that those who took batches have waited for them."""
        fits = len(self.images) * 3 * size[0] * size[1] <= cache_mib * 2**20
        self._cache: Tensor | None = self._decode_all() if fits and len(self.images) else None
        self._plan = Plan()
        self._loader: DataLoader[Tensor] | None = None

    def _decode_all(self) -> Tensor:
        height, width = self.images.size
        cache = torch.empty((len(self.images), 3, height, width), dtype=torch.uint8)

        def decode(index: int) -> None:
            cache[index] = self.images[index]

        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            for _ in pool.map(decode, range(len(self.images))):
                pass
        return cache

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self, order: Tensor | None = None, *, share: Share | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (images uint8 [B, 3, h, w], labels int64 [B], indices int64 [B]) in `order`.

        share: only the rows of each batch that this process holds.
        """
        order = torch.arange(len(self)) if order is None else order
        chunks = [
            chunk if share is None else chunk[share.rows(len(chunk))]
            for chunk in order.split(self.batch_size)
        ]
        self._plan.chunks = [chunk for chunk in chunks if len(chunk)]
        source = self._decoded() if self._cache is None else self._cached(self._cache)
        batches = zip(source, self._plan.chunks, strict=True)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch[0], self.labels[batch[1]], batch[1]

    def _cached(self, cache: Tensor) -> Iterator[Tensor]:
        if not self.pin:
            yield from (cache[chunk] for chunk in self._plan.chunks)
            return
        with ThreadPoolExecutor(1) as pool:
            pending: deque[Future[Tensor]] = deque()
            for chunk in self._plan.chunks:
                pending.append(pool.submit(lambda some: cache[some].pin_memory(), chunk))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _decoded(self) -> Iterator[Tensor]:
        if self._loader is None:
            self._loader = DataLoader(
                self.images,
                batch_sampler=self._plan,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                prefetch_factor=AHEAD if self.workers else None,
                pin_memory=self.pin,
                worker_init_fn=_let_the_parent_speak,
            )
        try:
            with _blocked(signal.SIGINT):  # the workers that it starts inherit that
                batches = iter(self._loader)
            yield from batches
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise UserError(
                "a process that decodes images was killed, probably for want of memory; "
                "lower train.workers in params.yaml or close other programs"
            ) from error
