"""From a dataset's files to packed images: decoded, shrunk, checked and split, by many processes.

What is written depends on the dataset and the params alone, not on the number of processes or on
the order in which images come.
"""

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path

from pipeline import images, packed
from pipeline.datasets import Dataset, Entry, SplitName, by_class, draw
from pipeline.errors import UserError
from pipeline.params.settings import Prepare

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
QUEUED = 8  # images per process that wait for it or for the writer
TOLERANCE = 1  # pixels a box of the user's own may lie over the edge: rounding


@dataclass(frozen=True)
class Prepared:
    """An image as it is stored, or why there is none."""

    encoded: bytes
    size: tuple[int, int]
    problem: str | None = None


def prepare(
    dataset: Dataset,
    settings: Prepare,
    out: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> packed.Meta:
    """Write the packed files of `dataset` to the folder `out`; progress is told (images done, of how many).

    Raises UserError naming every image that cannot be read (unless `skip_unreadable`), every box of
    the user's own that leaves its image, and classes that are left without images.
    """
    index = hold_out(dataset.index, settings.val_fraction, settings.val_seed)
    check_classes(index, dataset.class_names)
    parts = {split: [entry for entry in index if entry.split == split] for split in SPLITS}
    places = {
        entry.id: (split, position)
        for split, part in parts.items()
        for position, entry in enumerate(part)
    }
    unreadable: dict[str, str] = {}
    problems: dict[str, str] = {}
    over_edge = 0
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(packed.Writer(out, split, part))
            for split, part in parts.items()
        }
        for done, (entry, image) in enumerate(_prepared(dataset, settings, workers), 1):
            split, position = places[entry.id]
            if image.problem:
                unreadable[entry.id] = image.problem
                writers[split].skip(position)
            else:
                writers[split].add(position, image.encoded, image.size)
                outside = _outside(entry, image.size)
                over_edge += len(outside)
                if outside and not dataset.published:
                    problems[entry.id] = "; ".join(outside)
            progress(done, len(index))
        if not settings.skip_unreadable:
            problems |= unreadable
        if problems:
            raise UserError(_told(dataset, problems, unreadable))
    kept = [entry for entry in index if entry.id not in unreadable]
    check_classes(kept, dataset.class_names)
    counts = Counter(entry.split for entry in kept)
    meta = packed.Meta(
        dataset=dataset.name,
        class_names=list(dataset.class_names),
        counts={split: counts[split] for split in SPLITS},
        checksum=dataset.checksum,
        has_boxes=dataset.has_boxes,
        short_side=settings.short_side,
        jpeg_quality=settings.jpeg_quality,
        boxes_over_edge=over_edge,
        unreadable=dict(sorted(unreadable.items())),
    )
    packed.write_meta(out, meta)
    return meta


def hold_out(index: Sequence[Entry], fraction: float, seed: int) -> list[Entry]:
    """The index with `fraction` of each class's training images moved to `val`, if it has none yet."""
    if any(entry.split == "val" for entry in index):
        return list(index)
    held = {
        image_id
        for group in by_class(entry for entry in index if entry.split == "train").values()
        for image_id in draw((entry.id for entry in group), fraction, seed)
    }
    return [replace(entry, split="val") if entry.id in held else entry for entry in index]


def check_classes(index: Sequence[Entry], class_names: Sequence[str]) -> None:
    """Raise UserError if there is nothing to tell apart, or a class or split has no images."""
    if len(class_names) < 2:
        raise UserError(f"the dataset has only one class, {class_names[0]}; allowed: at least two")
    trained = by_class(entry for entry in index if entry.split == "train")
    problems = [
        f"class {name} has no training image; give it some, or take the class away"
        for label, name in enumerate(class_names)
        if label not in trained
    ]
    if not any(entry.split == "test" for entry in index):
        problems.append("the dataset has no test image; allowed: at least one")
    if problems:
        raise UserError(problems)


def _prepared(
    dataset: Dataset, settings: Prepare, workers: int
) -> Iterator[tuple[Entry, Prepared]]:
    """Every example, prepared, in any order; at most `QUEUED` per process are in memory."""
    jobs = (
        (entry, encoded, settings.short_side, settings.jpeg_quality, not dataset.published)
        for entry, encoded in dataset.examples()
    )
    if workers == 1:
        yield from starmap(_one, jobs)
        return
    # Spawned: a forked process would inherit locks that threads of this one may hold.
    context = multiprocessing.get_context("spawn")
    ignore_interrupt = signal.signal, (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is ours to handle
    with ProcessPoolExecutor(workers, context, *ignore_interrupt) as pool:
        pending: set[Future[tuple[Entry, Prepared]]] = set()
        try:
            for job in jobs:
                pending.add(pool.submit(_one, *job))
                if len(pending) >= QUEUED * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in wait(pending).done)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that decodes images was killed, probably for want of memory; close other "
                "programs, or find an image of enormous size"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one(
    entry: Entry, encoded: bytes, short_side: int, quality: int, upright: bool
) -> tuple[Entry, Prepared]:
    try:
        return entry, Prepared(*images.prepare(encoded, short_side, quality, upright=upright))
    except images.UnreadableImageError as error:
        return entry, Prepared(b"", (0, 0), str(error))


def _outside(entry: Entry, size: tuple[int, int]) -> list[str]:
    """The boxes of an entry that leave its image of `size` (height, width)."""
    height, width = size
    return [
        f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} leaves the image, which is {width} wide and "
        f"{height} high; correct it in the CSV of boxes"
        for x0, y0, x1, y1 in entry.boxes.tolist()
        if min(x0, y0) < -TOLERANCE or x1 > width + TOLERANCE or y1 > height + TOLERANCE
    ]


def _told(dataset: Dataset, problems: dict[str, str], unreadable: dict[str, str]) -> list[str]:
    lines = [f"{dataset.source}: {name}: {problems[name]}" for name in sorted(problems)]
    if unreadable.keys() & problems.keys():
        lines.append(
            f"{len(unreadable)} of {len(dataset.index)} images cannot be read; mend or remove them, "
            "or set prepare.skip_unreadable to true in params.yaml to go on without them"
        )
    return lines
