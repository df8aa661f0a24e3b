"""Preparing: whole, told, and the same whatever the order, the processes and the source."""

import errno
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import packed, params, prepare
from pipeline.datasets import NO_BOXES, Dataset, Entry, Report, SplitName, cub, draw, folder
from pipeline.errors import UserError
from pipeline.evaluation import evaluator, results
from pipeline.files import translate_errors, whole_directory
from pipeline.model.reader import Reader, resolve
from pipeline.params.settings import Prepare
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint
from tests import tiny
from tests.imports import ROOT
from tests.made import cub_files, encode, every, noise, tar

SETTINGS = Prepare(
    short_side=24, jpeg_quality=90, val_fraction=0.25, val_seed=0, skip_unreadable=False
)
BOX = np.array([[2, 3, 20, 30]], np.float32)


def dataset(
    broken: tuple[str, ...] = (),
    shuffled: int = 0,
    boxes: np.ndarray = BOX,
    published: bool = False,
    split: SplitName = "test",
) -> Dataset:
    """Two classes of eight training images and two of `split`, 40 × 30 pixels (height × width)."""
    index = [
        Entry(f"{name}/{i}.jpg", label, "train" if i < 8 else split, boxes)
        for label, name in enumerate(("cat", "dog"))
        for i in range(10)
    ]

    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        order = [int(i) for i in wanted]
        random.Random(shuffled).shuffle(order)
        for i in order:
            yield i, b"broken" if index[i].id in broken else encode(noise(40, 30, i))

    return Dataset("made", "photos", ["cat", "dog"], index, "0f", True, published, examples)


def prepared(data: Dataset, out: Path, workers: int = 1, **changes: object) -> packed.Meta:
    out.mkdir(exist_ok=True)
    return prepare.prepare(
        data, SETTINGS.model_copy(update=changes), out, workers=workers, report=Report()
    )


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in packed.files(root)}


def test_what_is_packed(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    meta = prepare.prepare(
        dataset(),
        SETTINGS,
        tmp_path,
        workers=1,
        report=Report(progress=lambda *p: told.append(p)),
    )
    assert told == [(i, 20, "image") for i in range(21)]
    assert meta == packed.read_meta(tmp_path)
    assert (meta.dataset, meta.class_names, meta.checksum) == ("made", ["cat", "dog"], "0f")
    assert meta.counts == {"train": 12, "val": 4, "test": 4}
    assert (meta.short_side, meta.jpeg_quality, meta.unreadable) == (24, 90, {})
    ids = []
    for name, count in meta.counts.items():
        split = packed.Split.open(tmp_path, name)
        assert len(split) == count
        assert split.ids == sorted(split.ids)
        assert split.sizes.tolist() == [[40, 30]] * count
        assert all((boxes == BOX).all() for boxes in split.boxes)
        assert split.encoded(0).startswith(b"\xff\xd8")
        ids += split.ids
    assert sorted(ids) == [entry.id for entry in dataset().index]


def test_neither_order_nor_processes_change_a_byte(tmp_path: Path) -> None:
    prepared(dataset(), tmp_path / "a")
    prepared(dataset(shuffled=1), tmp_path / "b")
    prepared(dataset(shuffled=2), tmp_path / "c", workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_the_validation_images_are_drawn_per_class_by_id_and_seed_alone() -> None:
    index = dataset().index

    def held(entries: list[Entry], fraction: float = 0.25, seed: int = 0) -> set[str]:
        split = prepare.hold_out(entries, fraction, seed)
        assert [entry.id for entry in split] == [entry.id for entry in entries]
        return {entry.id for entry in split if entry.split == "val"}

    drawn = held(list(index))
    assert sorted(image_id[:3] for image_id in drawn) == ["cat"] * 2 + ["dog"] * 2
    assert not drawn & {entry.id for entry in index if entry.split == "test"}
    assert held(list(reversed(index))) == drawn
    assert held([entry for entry in index if entry.label == 1]) == {i for i in drawn if "dog" in i}
    assert held(list(index), seed=1) != drawn
    assert held(list(index), fraction=0) == set()
    own = [replace(entry, split="val") if entry.id == "cat/3.jpg" else entry for entry in index]
    assert held(own) == {"cat/3.jpg"}


def test_a_share_leaves_one_and_takes_one() -> None:
    ids = ["a", "b", "c", "d"]
    assert [len(draw(ids, f, 0)) for f in (0, 0.01, 0.5, 0.99)] == [0, 1, 2, 3]
    assert draw(["a"], 0.9, 0) == set()
    assert draw([], 0.9, 0) == set()


def test_every_unreadable_image_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    data = dataset(broken=("dog/9.jpg", "cat/0.jpg"))
    with pytest.raises(UserError) as caught, whole_directory(tmp_path / "out") as out:
        prepare.prepare(data, SETTINGS, out, workers=1, report=Report())
    assert caught.value.problems == [
        "photos: cat/0.jpg: it is not an image of a known format",
        "photos: dog/9.jpg: it is not an image of a known format",
        "2 of 20 images cannot be read; mend or remove them, or set prepare.skip_unreadable to true "
        "in params.yaml to go on without them",
    ]
    assert list(tmp_path.iterdir()) == []


def test_unreadable_images_may_be_skipped_and_are_counted(tmp_path: Path) -> None:
    meta = prepared(dataset(broken=("dog/9.jpg",)), tmp_path, skip_unreadable=True)
    assert meta.unreadable == {"dog/9.jpg": "it is not an image of a known format"}
    assert meta.counts["test"] == 3
    assert packed.Split.open(tmp_path, "test").ids == ["cat/8.jpg", "cat/9.jpg", "dog/8.jpg"]
    gone = tuple(f"cat/{i}.jpg" for i in range(8))
    with pytest.raises(UserError, match="class cat has no training image"):
        prepared(dataset(broken=gone), tmp_path / "none", skip_unreadable=True)


def test_a_users_box_must_lie_in_its_image(tmp_path: Path) -> None:
    rounded = np.array([[-1, 0, 31, 41]], np.float32)  # one pixel over is rounding
    assert prepared(dataset(boxes=rounded), tmp_path / "rounded").boxes_over_edge == 0
    over = np.array([[2, 3, 20, 42.5]], np.float32)
    with pytest.raises(UserError) as caught:
        prepared(dataset(boxes=over), tmp_path / "over", skip_unreadable=True)
    assert len(caught.value.problems) == 20
    assert caught.value.problems[0] == (
        "photos: cat/0.jpg: the box 2, 3, 20, 42.5 leaves the image, which is 30 wide and 40 high; "
        "correct it in the CSV of boxes"
    )
    for i, box in enumerate(([-2, 0, 9, 9], [0, -1.5, 9, 9], [0, 0, 32, 9])):
        data = dataset(boxes=np.array([box], np.float32))
        with pytest.raises(UserError, match="leaves the image, which is 30 wide and 40 high"):
            prepared(data, tmp_path / str(i))
    meta = prepared(dataset(boxes=over, published=True), tmp_path / "kept")
    assert meta.boxes_over_edge == 20
    assert (
        packed.Split.open(tmp_path / "kept", "test").boxes[0].tolist() == over.tolist()
    )  # as published


def test_images_with_a_box_are_counted_by_split(tmp_path: Path) -> None:
    boxless = dataset()
    index = [e if e.id != "cat/9.jpg" else replace(e, boxes=NO_BOXES) for e in boxless.index]
    named = {"cat/9.jpg": "1, 2, 1, 4"}
    meta = prepared(replace(boxless, index=index, invalid_boxes=named), tmp_path)
    assert meta.boxed == {"train": 12, "val": 4, "test": 3}
    assert packed.read_meta(tmp_path).invalid_boxes == named


def test_a_threshold_cannot_be_chosen_on_val_without_boxes(tmp_path: Path) -> None:
    index = [e if e.split == "test" else replace(e, boxes=NO_BOXES) for e in dataset().index]
    meta = prepared(replace(dataset(), index=index), tmp_path)
    packed.check_selection(meta, "fixed")
    with pytest.raises(UserError, match="none of the 4 held-out images of made has a box"):
        packed.check_selection(meta, "val")
    packed.check_selection(prepared(dataset(), tmp_path / "boxes"), "val")


@pytest.mark.parametrize(
    ("edge", "size", "told"), [(100, 101, True), (101, 102, False), (100, 100, False)]
)
def test_percent_is_suspected(tmp_path: Path, edge: int, size: int, told: bool) -> None:
    data = dataset(boxes=np.array([[1, 2, edge, 30]], np.float32))

    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        yield from ((int(i), encode(noise(size, size + 20, int(i)))) for i in wanted)

    lines: list[str] = []
    prepare.prepare(
        replace(data, examples=examples), SETTINGS, tmp_path, workers=1, report=Report(lines.append)
    )
    assert any("if these are percent" in line for line in lines) == told


def test_there_must_be_something_to_learn_and_to_test(tmp_path: Path) -> None:
    one = [entry for entry in dataset().index if entry.label == 0]
    with pytest.raises(
        UserError, match="photos has only one class, cat; allowed: at least two; `datasets"
    ):
        prepared(replace(dataset(), index=one, class_names=["cat"]), tmp_path)
    untrained = [Entry("ant/0.jpg", 2, "test", NO_BOXES), *dataset().index]
    with pytest.raises(UserError, match="class ant has no training image"):
        prepared(replace(dataset(), index=untrained, class_names=["cat", "dog", "ant"]), tmp_path)
    with pytest.raises(UserError, match="no test image"):
        prepared(dataset(split="train"), tmp_path)


def test_a_full_disk_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed.File, "_finish", full)
    target = tmp_path / "prepared"
    with (
        pytest.raises(UserError, match=r"prepared: the disk is full .* GB free\); make room"),
        translate_errors(target),
        whole_directory(target) as out,
    ):
        prepare.prepare(dataset(), SETTINGS, out, workers=1, report=Report())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError), translate_errors(target):
        target.read_bytes()  # other errors stay what they are
    closed = PermissionError(errno.EACCES, "Permission denied", "photos/a.jpg")
    with (
        pytest.raises(UserError, match=r"^photos/a\.jpg: Permission denied; allowed: "),
        translate_errors(target),
    ):
        raise closed


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_source_ends_the_work(tmp_path: Path, workers: int) -> None:
    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        yield from islice(dataset().examples(wanted), 5)
        raise UserError("x.tgz: damaged or truncated at d")

    with pytest.raises(UserError, match="damaged or truncated at d"):
        prepared(replace(dataset(), examples=examples), tmp_path, workers=workers)


@pytest.fixture
def birds_both_ways(tmp_path: Path) -> tuple[Path, Path]:
    """The same images, boxes and split prepared as `cub` and as `folder`."""
    files = cub_files()
    raw, photos = tmp_path / "raw", tmp_path / "photos"
    raw.mkdir()
    tar(raw / cub.ARCHIVE, files, "w:gz")
    birds = cub.read(cub.Params(archive="", md5=None), raw)
    prepared(birds, tmp_path / "cub")

    for entry, encoded in every(birds):
        (photos / entry.id).parent.mkdir(parents=True, exist_ok=True)
        (photos / entry.id).write_bytes(encoded)
    lines = [f"{e.id},{','.join(map(str, e.boxes[0].tolist()))}" for e in birds.index]
    (tmp_path / "boxes.csv").write_text("\n".join(["image_id,x0,y0,x1,y1", *lines]))
    splits = [f"{entry.id},{entry.split}" for entry in reversed(birds.index)]
    (tmp_path / "split.csv").write_text("\n".join(["image_id,split", *splits]))
    how = folder.Params(
        images=str(photos),
        boxes=str(tmp_path / "boxes.csv"),
        test_fraction=0.0,
        split=str(tmp_path / "split.csv"),
        split_seed=0,
    )
    folder.download(how, tmp_path, Report())
    prepared(folder.read(how, tmp_path), tmp_path / "folder")
    return tmp_path / "cub", tmp_path / "folder"


def test_cub_and_the_same_images_as_a_folder_are_prepared_alike(
    birds_both_ways: tuple[Path, Path],
) -> None:
    theirs, ours = map(contents, birds_both_ways)
    metas = ours.pop("meta.json"), theirs.pop("meta.json")
    assert len(ours) == 3
    assert ours == theirs
    assert metas[0] != metas[1]  # they say where they come from


def test_cub_and_the_same_images_as_a_folder_give_the_same_figures(
    birds_both_ways: tuple[Path, Path], tmp_path: Path
) -> None:
    figures = []
    for prepared_as in birds_both_ways:
        name = prepared_as.name
        settings = params.load(tiny.write_params(tmp_path, dataset=name, input__crop=32))
        checkpoint = Checkpoint(tmp_path / "state" / name)
        model, _ = loop.train(settings, prepared_as, checkpoint, loop.Progress())
        reader = Reader(model, resolve(settings, model, 32))
        scoring = evaluator.Scoring.of(settings)
        seen = evaluator.evaluate(reader, prepared_as, "test", scoring)
        figures.append(
            results.summary(seen, settings, reader.reading, baselines={}, model_sha256="")
        )
        images = packed.Split.open(prepared_as, "test")
        names = packed.read_meta(prepared_as).class_names
        figures.append(results.per_image_rows(seen, images, names, settings.input))
    assert [figure.pop("dataset") for figure in figures[::2]] == ["cub", "folder"]
    assert figures[:2] == figures[2:]
    assert figures[0]["n_boxes"] == len(figures[1]) == 4


def test_the_fingerprint_tells_settings_apart() -> None:
    data = replace(dataset(), name="folder")
    first = prepare.fingerprint(data, SETTINGS, SETTINGS)
    assert first == prepare.fingerprint(
        data, SETTINGS, SETTINGS.model_copy(update={"skip_unreadable": True})
    )
    for change in ("short_side", "jpeg_quality", "val_seed"):
        other = SETTINGS.model_copy(update={change: 17})
        assert prepare.fingerprint(data, SETTINGS, other) != first
        assert prepare.fingerprint(data, other, SETTINGS) != first
    assert prepare.fingerprint(replace(data, checksum="1f"), SETTINGS, SETTINGS) != first


def test_finished_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "IMAGES_PER_FILE", 5)
    prepared(dataset(), tmp_path / "whole")
    asked: list[list[int]] = []
    said: list[str] = []
    told: list[tuple[int, int, str]] = []

    def again(out: Path, examples: int) -> None:
        """One run that is cut short after some examples."""

        def cut(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
            asked.append([int(i) for i in wanted])
            yield from ((i, encode(noise(40, 30, i))) for i in asked[-1][:examples])
            if examples < len(asked[-1]):
                raise KeyboardInterrupt

        out.mkdir(exist_ok=True)
        report = Report(said.append, lambda *p: told.append(p))
        prepare.prepare(replace(dataset(), examples=cut), SETTINGS, out, workers=1, report=report)

    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "out", 8)
    assert said == []
    told.clear()
    again(tmp_path / "out", 20)
    assert said == [
        "checking 1 files that are finished",
        "continues where it was cut short: 5 of 20 images are in them",
    ]
    assert (told[0], told[-1], len(told)) == ((5, 20, "image"), (20, 20, "image"), 16)
    first, second = asked
    assert len(first) == 20  # file by file: 12 training images, 4 of val, 4 of test
    assert second == first[5:]  # of the other three only what was in no file is lost
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


MEMORY = """
import resource, sys
from pathlib import Path
from pipeline import packed
from pipeline import prepare as preparing
from pipeline.datasets import Report
packed.IMAGES_PER_FILE, packed.ROWS_PER_BATCH = 100, 10
from tests.pipeline.test_prepare import large
large(int(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def large(count: int, out: Path) -> None:
    """Prepare `count` images of 150 kB, which come in no order."""
    index = [
        Entry(f"{k}/{i:05d}", k, "train" if i % 4 else "test", BOX)
        for k in range(2)
        for i in range(count // 2)
    ]
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    encoded = encode(Image.fromarray(noise), quality=95)

    def examples(wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        order = list(wanted)
        random.Random(0).shuffle(order)
        yield from ((i, encoded) for i in order)

    data = Dataset("made", "photos", ["0", "1"], index, "", True, True, examples)
    settings = SETTINGS.model_copy(update={"short_side": 300, "jpeg_quality": 95})
    out.mkdir()
    prepare.prepare(data, settings, out, workers=1, report=Report())
    assert sum(file.stat().st_size for file in packed.files(out)) > 100_000 * count


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    mib = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, str(count), str(tmp_path / str(count))],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        )
        for count in (100, 500)
    ]
    assert mib[1] - mib[0] < 20  # the 400 images are 60 MB
