"""From a dataset's files to packed images: decoded, shrunk, checked and split, by many processes.

What is written depends on the dataset and the params alone, not on the number of processes, on the
order in which images come, or on how often the work was cut short.
"""

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline import cache, code, packed
from pipeline.datasets import Dataset, Entry, Report, Slice, SplitName, by_class, draw
from pipeline.errors import UserError
from pipeline.params.section import Section
from pipeline.params.settings import Prepare
from pipeline.raw import coordinates, images

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
TOGETHER = 4  # images that go to a process at once
QUEUED = 3  # such groups per process that are worked at or wait, there or for the writer
TOLERANCE = 1  # pixels a box of the user's own may lie over the edge: rounding


@dataclass(frozen=True)
class Prepared:
    """An image as it is stored, or why there is none."""

    encoded: bytes
    size: tuple[int, int]
    problem: str | None = None


def fingerprint(dataset: Dataset, params: Section, settings: Prepare) -> str:
    """Name of a preparation: the same name promises the same files.

    `skip_unreadable` is not in it: it decides whether they are enough, not what is in them.
    """
    values = {
        "dataset": [dataset.name, dataset.checksum, params.model_dump(mode="json")],
        "prepare": settings.model_dump(mode="json", exclude={"skip_unreadable"}),
        "libraries": [version(name) for name in ("pillow", "pyarrow")],
        "images_per_file": packed.IMAGES_PER_FILE,
    }
    return cache.fingerprint(
        values, code.fingerprints("pipeline.prepare", f"pipeline.datasets.{dataset.name}")
    )


def prepare(
    dataset: Dataset,
    settings: Prepare,
    out: Path,
    *,
    workers: int,
    report: Report,
) -> packed.Meta:
    """Write the packed files of `dataset` to the folder `out`, and beside them notes for messages.

    Files that are whole there already, of the same `fingerprint`, are kept, and their images not read;
    the first progress reported is theirs. Raises UserError naming every image that cannot be read
    (unless `skip_unreadable`), every box of the user's own that leaves its image, and classes that are
    left without images.
    """
    index = hold_out(dataset.index, settings.val_fraction, settings.val_seed)
    check_classes(index, dataset)
    split_of = np.array([SPLITS.index(entry.split) for entry in index], np.int8)
    positions = [np.flatnonzero(split_of == number) for number in range(len(SPLITS))]
    row_of = np.empty(len(index), np.int64)
    for mine in positions:
        row_of[mine] = np.arange(len(mine))
    notes = packed.Notes()
    if made := len(list(out.glob(f"*{packed.NOTES}"))):
        report.say(f"checking {made:,} files that are finished")
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                packed.Writer(out, split, [index[i] for i in mine], packed.IMAGES_PER_FILE)
            )
            for split, mine in zip(SPLITS, positions, strict=True)
        ]
        wanted = np.concatenate(
            [
                mine[np.fromiter(w.waiting(), np.int64)]
                for w, mine in zip(writers, positions, strict=True)
            ]
        )
        done = len(index) - len(wanted)
        if done:
            report.say(
                f"continues where it was cut short: {done:,} of {len(index):,} images are in them"
            )
        report.progress(done, len(index), "image")
        for position, image in _prepared(dataset, wanted, settings, workers):
            writer, row = writers[split_of[position]], int(row_of[position])
            if image.problem:
                writer.skip(row, image.problem)
            else:
                writer.add(row, image.encoded, image.size, _outside(index[position], image.size))
            done += 1
            report.progress(done, len(index), "image")
        for file in (file for writer in writers for file in writer.files):
            notes |= file.notes
    problems = {} if dataset.published else {id: "; ".join(t) for id, t in notes.outside.items()}
    if not settings.skip_unreadable:
        problems |= notes.unreadable
    if problems:
        raise UserError(_told(dataset, problems, notes.unreadable))
    kept = [entry for entry in index if entry.id not in notes.unreadable]
    check_classes(kept, dataset)
    counts = Counter(entry.split for entry in kept)
    boxed = Counter(entry.split for entry in kept if len(entry.boxes))
    if not dataset.published and boxed and (warning := _percent_suspected(out)):
        report.say(f"{dataset.source}: {warning}")
    meta = packed.Meta(
        dataset=dataset.name,
        class_names=list(dataset.class_names),
        counts={split: counts[split] for split in SPLITS},
        checksum=dataset.checksum,
        has_boxes=dataset.has_boxes,
        short_side=settings.short_side,
        jpeg_quality=settings.jpeg_quality,
        boxes_over_edge=sum(map(len, notes.outside.values())),
        unreadable=dict(sorted(notes.unreadable.items())),
        boxed={split: boxed[split] for split in SPLITS},
        invalid_boxes=dict(sorted(dataset.invalid_boxes.items())),
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


def check_classes(index: Sequence[Entry], dataset: Dataset) -> None:
    """Raise UserError if there is nothing to tell apart, or a class or split has no images."""
    names, where = (
        dataset.class_names,
        f"`datasets.{dataset.name}` in params.yaml says what is read",
    )
    if len(names) < 2:
        raise UserError(
            f"{dataset.source} has only one class, {names[0]}; allowed: at least two; {where}"
        )
    trained = {entry.label for entry in index if entry.split == "train"}
    problems = [
        f"{dataset.source}: class {name} has no training image; give it some, or take the class away"
        for label, name in enumerate(names)
        if label not in trained
    ]
    if not any(entry.split == "test" for entry in index):
        problems.append(f"{dataset.source} has no test image; allowed: at least one; {where}")
    if problems:
        raise UserError(problems)


Job = tuple[int, bytes | Slice]


def _prepared(
    dataset: Dataset, wanted: Iterable[int], settings: Prepare, workers: int
) -> Iterator[tuple[int, Prepared]]:
    """Every wanted position with its image, prepared; a few per process are in memory at a time."""
    how = settings.short_side, settings.jpeg_quality, not dataset.published
    jobs = dataset.examples(wanted)
    if workers == 1:
        yield from (done for job in jobs for done in _some([job], *how))
        return
    # Spawned: a forked process would inherit locks that threads of this one may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin) as pool:
        pending: deque[Future[list[tuple[int, Prepared]]]] = deque()
        try:
            while group := list(islice(jobs, TOGETHER)):
                # A worker is started here; it inherits that Ctrl-C is for its parent alone.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    pending.append(pool.submit(_some, group, *how))
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                if len(pending) >= QUEUED * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that decodes images was killed, probably for want of memory; close other "
                "programs, or find an image of enormous size"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Make this process one that leaves Ctrl-C to its parent and ends when that does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _some(
    jobs: Iterable[Job], short_side: int, quality: int, upright: bool
) -> list[tuple[int, Prepared]]:
    return [(position, _one(source, short_side, quality, upright)) for position, source in jobs]


def _one(source: bytes | Slice, short_side: int, quality: int, upright: bool) -> Prepared:
    encoded = source if isinstance(source, bytes) else source.read()
    try:
        return Prepared(*images.prepare(encoded, short_side, quality, upright=upright))
    except images.UnreadableImageError as error:
        return Prepared(b"", (0, 0), str(error))


def _outside(entry: Entry, size: tuple[int, int]) -> list[str]:
    """The boxes of an entry that leave its image of `size` (height, width)."""
    height, width = size
    return [
        f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} leaves the image, which is {width} wide and "
        f"{height} high; correct it in the CSV of boxes"
        for x0, y0, x1, y1 in entry.boxes.tolist()
        if min(x0, y0) < -TOLERANCE or x1 > width + TOLERANCE or y1 > height + TOLERANCE
    ]


def _percent_suspected(out: Path) -> str | None:
    splits = [packed.Split.open(out, split) for split in SPLITS]
    return coordinates.percent_suspected(
        [boxes for split in splits for boxes in split.boxes],
        np.concatenate([split.sizes for split in splits]),
    )


def _told(dataset: Dataset, problems: dict[str, str], unreadable: dict[str, str]) -> list[str]:
    lines = [f"{dataset.source}: {name}: {problems[name]}" for name in sorted(problems)]
    if unreadable.keys() & problems.keys():
        lines.append(
            f"{len(unreadable)} of {len(dataset.index)} images cannot be read; mend or remove them, "
            "or set prepare.skip_unreadable to true in params.yaml to go on without them"
        )
    return lines
