"""Image files and dataset archives made on the spot, small and with every layout of the real ones."""

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.datasets import Dataset, Entry


def every(dataset: Dataset) -> Iterator[tuple[Entry, bytes]]:
    """Every example of a dataset, in its own order, with its file's bytes."""
    for i, content in dataset.examples(range(len(dataset.index))):
        yield dataset.index[i], content if isinstance(content, bytes) else content.read()


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Soft coloured noise, which survives JPEG."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            add(archive, name, content)
    return path


CUB_CLASSES = {3: "003.Sooty_Albatross", 12: "012.Yellow_headed_Blackbird"}


def cub_files(per_class: int = 6) -> dict[str, bytes]:
    """The members of an archive of CUB's layout: two classes that are not 1 and 2, ids with gaps,
    members in another order than the index, two of three images for training."""
    rows, images = [], {}
    for label, name in CUB_CLASSES.items():
        for i in range(per_class):
            number = 10 * label + i
            height, width = 40 + 3 * i, 64 - 2 * i
            path = f"{name}/Bird_{per_class - i:04d}_{number}.jpg"
            images[f"CUB_200_2011/images/{path}"] = encode(noise(height, width, number))
            rows.append((number, path, label, int(i % 3 != 0), f"{i}.0 2.0 30.0 20.5"))
    texts = {
        "images.txt": [f"{row[0]} {row[1]}" for row in rows],
        "classes.txt": [f"{label} {name}" for label, name in CUB_CLASSES.items()],
        "image_class_labels.txt": [f"{row[0]} {row[2]}" for row in rows],
        "bounding_boxes.txt": [f"{row[0]} {row[4]}" for row in rows],
        "train_test_split.txt": [f"{row[0]} {row[3]}" for row in rows],
    }
    index = {
        f"CUB_200_2011/{file}": ("\n".join(lines) + "\n").encode() for file, lines in texts.items()
    }
    first = dict(list(images.items())[:3])  # in the official archive, the index is not in front
    return {**first, **index, **images, "attributes.txt": b"not ours\n"}


def annotation(*objects: tuple[str, int, int, int, int]) -> bytes:
    """The XML of one ILSVRC image."""
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    )
    return f"<annotation><size><width>9</width></size>{boxes}</annotation>".encode()


def ilsvrc(root: Path) -> Path:
    """The three archives, two classes of four training images and two test images each."""
    root.mkdir(parents=True)
    inner = {}
    for seed, name in enumerate(("n02000002", "n01000001")):
        photos = {f"{name}_{i}.JPEG": encode(noise(30, 40, 9 * seed + i)) for i in range(4)}
        inner[f"{name}.tar"] = tar(root / "inner.tar", photos).read_bytes()
    (root / "inner.tar").unlink()
    tar(root / "ILSVRC2012_img_train.tar", inner)
    val = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 5)]
    tar(root / "ILSVRC2012_img_val.tar", {f"{v}.JPEG": encode(noise(50, 40, 3)) for v in val})
    truth = {
        val[0]: annotation(("n01000001", 0, 0, 39, 49)),
        val[1]: annotation(("n02000002", 4, 5, 13, 24), ("n02000002", 20, 5, 29, 24)),
        val[2]: annotation(("n01000001", 1, 2, 3, 4), ("n02000002", 5, 6, 7, 8)),
        val[3]: annotation(("n02000002", 4, 5, 13, 24)),
    }
    tar(
        root / "ILSVRC2012_bbox_val_v3.tgz",
        {f"val/{name}.xml": text for name, text in truth.items()},
        "w:gz",
    )
    return root


def many_ilsvrc(
    root: Path, classes: int, train: int, test: int, photo: Callable[[int], bytes]
) -> Path:
    """The three archives with `train` and `test` images per class, `photo(i)` each; classes and files are
    not in the order of their ids, and the test images come class by class in turns."""
    root.mkdir(parents=True)
    names = [f"n{k:08d}" for k in range(1, classes + 1)]
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for k, name in enumerate(reversed(names)):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for i in range(train):
                    add(archive, f"{name}_{i}.JPEG", photo(k * train + i))
            add(outer, f"{name}.tar", inner.getvalue())
    with (
        tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as images,
        tarfile.open(root / "ILSVRC2012_bbox_val_v3.tgz", "w:gz", compresslevel=1) as truth,
    ):
        for i in range(test * classes):
            key = f"ILSVRC2012_val_{i + 1:08d}"
            add(images, f"{key}.JPEG", photo(i))
            add(truth, f"val/{key}.xml", annotation((names[i % classes], 2, 3, 20 + i % 9, 25)))
    return root


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
