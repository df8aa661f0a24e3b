"""Batches in any order, decoded in advance or by workers that live on: the same images, and no more memory."""

from pathlib import Path

import psutil
import pytest
import torch

from pipeline.errors import UserError
from pipeline.loading.loader import Loader
from pipeline.runtime.distributed import Share
from tests import tiny

SIZE = (40, 56)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", {"train": 10})


def loader(prepared: Path, *, workers: int = 0, cache_mib: int = 0) -> Loader:
    return Loader(prepared, "train", SIZE, batch_size=4, workers=workers, cache_mib=cache_mib)


@pytest.mark.parametrize(("workers", "cache_mib"), [(0, 0), (2, 0), (0, 100), (2, 100)])
def test_every_road_gives_the_same_batches(prepared: Path, workers: int, cache_mib: int) -> None:
    order = torch.arange(29, -1, -1)
    batches = list(loader(prepared, workers=workers, cache_mib=cache_mib).batches(order))
    assert [len(images) for images, _, _ in batches] == [4] * 7 + [2]
    assert torch.cat([indices for _, _, indices in batches]).equal(order)
    plain = loader(prepared)
    assert torch.cat([labels for _, labels, _ in batches]).equal(plain.labels[order])
    for images, _, indices in batches:
        for image, index in zip(images, indices.tolist(), strict=True):
            assert image.shape == (3, *SIZE)
            assert image.equal(plain.images[index])


def test_a_share_is_a_part_of_every_batch(prepared: Path) -> None:
    whole = [indices.tolist() for _, _, indices in loader(prepared).batches()]
    parts = [
        [indices.tolist() for _, _, indices in loader(prepared).batches(share=Share(rank, 2))]
        for rank in range(2)
    ]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_workers_are_started_once_and_memory_stays_flat(prepared: Path) -> None:
    others = set(psutil.Process().children())
    ours = loader(prepared, workers=2)
    assert ours.waited == 0
    started, memory = [], []
    for _ in range(12):
        for _ in ours.batches(torch.randperm(30)):
            pass
        workers = set(psutil.Process().children()) - others
        started.append({p.pid for p in workers})
        memory.append(sum(p.memory_full_info().uss for p in workers))
    assert len(started[0]) >= 2
    assert started.count(started[0]) == 12
    assert memory[-1] - memory[2] < 4 * 2**20
    assert ours.waited > 0


def test_a_killed_worker_is_told(prepared: Path) -> None:
    others = set(psutil.Process().children())
    ours = loader(prepared, workers=1)
    batches = ours.batches(torch.arange(30).repeat(20))
    next(batches)
    for child in set(psutil.Process().children()) - others:
        child.kill()
    with pytest.raises(UserError, match=r"decodes images was killed.*train.workers"):
        list(batches)
