"""Pack data/raw into data/prepared: images shrunk to JPEG, labels, boxes and the held-out split.

Killed or stopped, it continues from its last finished file when the same command is given again.
"""

import os

from pipeline import cache, datasets, packed, params, prepare
from pipeline.files import translate_errors
from pipeline.text import line
from stages import entry
from stages.layout import PREPARED, RAW
from stages.progress import Bar

IMAGES_PER_PROCESS = 1000  # what a process decodes in the seconds it takes to start


def main() -> None:
    settings = params.load(method=False)
    with translate_errors(RAW):
        Bar.write(f"{settings.dataset}: reading the index in {RAW}")
        dataset = datasets.module(settings.dataset).read(settings.data, RAW)
    name = prepare.fingerprint(dataset, settings.data, settings.prepare)
    with translate_errors(PREPARED), cache.held("preprocess", name, Bar.write) as finished:
        with (
            translate_errors(finished),
            Bar(total=len(dataset.index), desc="preprocess", unit="image") as bar,
        ):
            meta = prepare.prepare(
                dataset,
                settings.prepare,
                finished,
                workers=processes(len(dataset.index)),
                report=datasets.Report(Bar.write, bar.to),
            )
        cache.hand_over(finished, packed.files(finished), PREPARED)
    for image, reason in meta.unreadable.items():
        print(line(f"left out: {image}: {reason}"))
    for image, box in meta.invalid_boxes.items():
        print(
            f"box left out: {image}: {box} is not x0 < x1, y0 < y1; the image counts as one without box"
        )
    size = sum(file.stat().st_size for file in PREPARED.iterdir())
    counts = ", ".join(f"{count} {split}" for split, count in meta.counts.items())
    print(f"{PREPARED}: {len(meta.class_names)} classes, {counts}, {size / 1e6:.1f} MB")


def processes(images: int) -> int:
    """One per processor, and no more than are worth starting; their number changes no byte."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(ours or 1, images // IMAGES_PER_PROCESS))


if __name__ == "__main__":
    entry.run(main, __doc__, "finished files are kept; the same command continues after them")
