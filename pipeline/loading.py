"""Prepared images → batches: decoded once and kept if they fit in memory, else by worker processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import packed, transforms

Progress = Callable[[int, int], None]


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
        return transforms.decode(self.packed.encoded(index), self.size)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_packed": None}


class Loader:
    """Batches of one split in any order, as often as asked.

    size: (height, width) the images are decoded to. Images are kept in memory once decoded if the
    whole split takes at most `cache_mib`; otherwise `workers` processes decode them for every pass.
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
        fits = len(self.images) * 3 * size[0] * size[1] <= cache_mib * 2**20
        self._cache: Tensor | None = self._decode_all() if fits and len(self.images) else None

    def _decode_all(self) -> Tensor:
        height, width = self.images.size
        cache = torch.empty((len(self.images), 3, height, width), dtype=torch.uint8)

        def decode(index: int) -> None:
            cache[index] = self.images[index]

        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            for _ in pool.map(decode, range(len(self.images))):
                pass
        return cache.pin_memory() if self.pin else cache

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self, order: Tensor | None = None, *, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (images uint8 [B, 3, h, w], labels int64 [B], indices int64 [B]) in `order`."""
        order = torch.arange(len(self)) if order is None else order
        chunks = list(order.split(self.batch_size))
        if drop_last and len(chunks) > 1 and len(chunks[-1]) < self.batch_size:
            chunks.pop()
        if self._cache is not None:
            for chunk in chunks:
                yield self._cache[chunk], self.labels[chunk], chunk
            return
        loader = DataLoader(
            self.images,
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=self.workers,
            pin_memory=self.pin,
        )
        for images, chunk in zip(loader, chunks, strict=True):
            yield images, self.labels[chunk], chunk
