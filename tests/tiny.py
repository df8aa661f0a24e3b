"""A dataset small enough for a test to train on: bright squares of one colour per class on grey."""

import io
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from pipeline import packed
from pipeline.datasets import Entry
from tests.imports import ROOT

CLASSES = ["blue", "green", "red"]
COLOURS = [(40, 40, 230), (40, 230, 40), (230, 40, 40)]


def picture(rng: np.random.Generator, label: int) -> tuple[bytes, tuple[int, int], np.ndarray]:
    """One JPEG, its (height, width), and its box: images are not square."""
    height, width = int(rng.integers(48, 72)), int(rng.integers(56, 96))
    image = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
    h, w = int(rng.integers(16, 32)), int(rng.integers(16, 40))
    y, x = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
    image[y : y + h, x : x + w] = COLOURS[label]
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=95)
    return encoded.getvalue(), (height, width), np.array([[x, y, x + w, y + h]], np.float32)


def prepare(root: Path, counts: dict[str, int], *, boxes: bool = True) -> Path:
    """Write the prepared files of `counts[split]` images per class; returns `root`."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        made = [(k, *picture(rng, k)) for _ in range(count) for k in range(len(CLASSES))]
        nothing = np.zeros((0, 4), np.float32)
        entries = [
            Entry(f"{CLASSES[k]}/{split}{i}.jpg", k, split, box if boxes else nothing)  # type: ignore[arg-type]
            for i, (k, _, _, box) in enumerate(made)
        ]
        writer = packed.Writer(root, split, entries)
        for i, (_, encoded, size, _) in enumerate(made):
            writer.add(i, encoded, size)
        writer.close()
    packed.write_meta(
        root,
        packed.Meta(
            dataset="synthetic",
            class_names=CLASSES,
            counts={split: count * len(CLASSES) for split, count in counts.items()},
            checksum="0" * 32,
            has_boxes=boxes,
            short_side=72,
            jpeg_quality=95,
            boxes_over_edge=0,
            unreadable={},
            boxed={split: count * len(CLASSES) * boxes for split, count in counts.items()},
            invalid_boxes={},
        ),
    )
    return root


def write_params(folder: Path, **changes: object) -> Path:
    """The committed params.yaml made small, with `changes` (dotted keys, `__` for a dot)."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    small = {
        "input.resize": 64,
        "input.crop": 56,
        "train.epochs": 3,
        "train.batch_size": 8,
        "train.workers": 0,
        "evaluate.batch_size": 16,
        "evaluate.thresholds": 20,
        "evaluate.bootstrap": 50,
        "evaluate.pictures": 2,
    }
    for key, value in {**small, **{k.replace("__", "."): v for k, v in changes.items()}}.items():
        section, parts = values, key.split(".")
        for part in parts[:-1]:
            section = section[part]
        assert parts[-1] in section, key
        section[parts[-1]] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path
