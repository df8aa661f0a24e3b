"""Pack data/raw into data/prepared: images shrunk to JPEG, labels, boxes and the held-out split."""

import argparse
import os

from tqdm import tqdm

from pipeline import datasets, params, preparing
from pipeline.disk import full_disk_told
from pipeline.outputs import whole_directory
from stages import entry
from stages.layout import PREPARED, RAW

IMAGES_PER_PROCESS = 1000  # what a process decodes in the seconds it takes to start


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.preprocess", description=__doc__).parse_args()
    settings = params.load(method=False)
    print(f"{settings.dataset}: reading the index in {RAW}")
    dataset = datasets.module(settings.dataset).read(settings.data, RAW)
    with (
        full_disk_told(PREPARED),
        whole_directory(PREPARED) as out,
        tqdm(total=len(dataset.index), desc="preprocess", unit="image") as bar,
    ):
        meta = preparing.prepare(
            dataset,
            settings.prepare,
            out,
            workers=processes(len(dataset.index)),
            progress=lambda done, total: bar.update(done - bar.n) and None,
        )
    for name, reason in meta.unreadable.items():
        print(f"left out: {name}: {reason}")
    size = sum(file.stat().st_size for file in PREPARED.iterdir())
    counts = ", ".join(f"{count} {split}" for split, count in meta.counts.items())
    print(f"{PREPARED}: {len(meta.class_names)} classes, {counts}, {size / 1e6:.1f} MB")


def processes(images: int) -> int:
    """One per processor, and no more than are worth starting; their number changes no byte."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(ours or 1, images // IMAGES_PER_PROCESS))


if __name__ == "__main__":
    entry.run(main)
