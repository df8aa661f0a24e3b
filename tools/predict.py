"""Run the trained model on a folder of images: boxes as COCO and CSV, and a picture of each.

wsol predict my/photos --out predictions
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline import coco, pictures
from pipeline.errors import UserError
from pipeline.files import write_csv, write_json
from pipeline.output_folder import OutputFolder
from pipeline.raw import images
from pipeline.raw.walk import is_image, walk
from pipeline.text import line

COLUMNS = ["image", "label", "score", "x0", "y0", "x1", "y1"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", type=Path, help="a folder of images (searched whole) or one image"
    )
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write")
    parser.add_argument("--model", type=Path, default=Path("models"), help="trained model folder")
    parser.add_argument(
        "--localization",
        type=Path,
        default=Path("metrics/localization.json"),
        help="evaluation of that model: says how its boxes are read",
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--heatmaps",
        action="store_true",
        help="keep each heatmap: heatmaps/<image>.npy, float32 0…1",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write only the boxes")


def main(arguments: argparse.Namespace) -> None:
    inputs = (arguments.images, arguments.model, arguments.localization)
    out = OutputFolder.checked(arguments.out, "wsol predict", inputs)
    found = find_images(arguments.images)
    drawn = picture_names(found, root_of(arguments.images))

    # torch: after the arguments are known to be good
    from pipeline.model.predictor import Predictor

    predictor = Predictor.load(arguments.model, arguments.localization)
    each = predictor.reader.passes
    if each > 1:
        how = predictor.reader.reading.heatmap
        tqdm.write(f"{len(found) * each} forward passes, {each} per image: {how}")
    unreadable: list[str] = []
    rows: list[dict[str, Any]] = []
    annotated: list[dict[str, Any]] = []
    with (
        out.replaced() as partial,
        tqdm(total=len(found), desc="predict", unit="image") as bar,
    ):
        for batch in read_batches(found, arguments.batch_size, unreadable):
            for (path, file), seen in zip(
                batch, predictor([file for _, file in batch]), strict=True
            ):
                if isinstance(seen, images.UnreadableImageError):
                    unreadable.append(f"{path}: {seen}")
                    continue
                name = path.relative_to(root_of(arguments.images)).as_posix()
                x0, y0, x1, y1 = (round(edge, 2) for edge in seen.box)
                rows.append(
                    dict(
                        zip(
                            COLUMNS,
                            (name, seen.label, round(seen.score, 6), x0, y0, x1, y1),
                            strict=True,
                        )
                    )
                )
                height, width = seen.size
                annotated.append({"file_name": name, "height": height, "width": width})
                if arguments.heatmaps:
                    target = partial / "heatmaps" / f"{name}.npy"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    np.save(target, seen.heatmap)
                if not arguments.no_pictures:
                    photograph = np.asarray(images.open_upright(file))
                    picture = pictures.panel(
                        photograph,
                        seen.heatmap,
                        seen.box,
                        [],
                        f"{seen.label} {seen.score:.0%}",
                        note=name,
                        tile=full_size(photograph),
                    )
                    target = partial / "pictures" / drawn[path]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    pictures.save(target, picture)
            bar.update(len(batch))
        if not rows:
            raise UserError(
                f"none of the {len(found)} images can be read: {'; '.join(unreadable[:3])}"
            )
        write_csv(partial / "boxes.csv", rows, COLUMNS)
        names = predictor.class_names
        write_json(partial / "coco.json", coco.dataset(rows, annotated, names))
        write_json(partial / "coco_results.json", coco.results(rows, names))
    for problem in unreadable:
        tqdm.write(f"skipped: {line(problem)}")
    print(f"{len(rows)} images: {arguments.out}/boxes.csv, {arguments.out}/coco.json", end="")
    for made, folder in ((arguments.heatmaps, "heatmaps"), (not arguments.no_pictures, "pictures")):
        print(f", {arguments.out}/{folder}/" if made else "", end="")
    print()


def root_of(given: Path) -> Path:
    return given if given.is_dir() else given.parent


def find_images(given: Path) -> list[Path]:
    """Every image file at or below `given`, sorted. Raises UserError if there is none.

    Hidden files and folders are left out, as preprocess does, and pictures that an earlier run made.
    """
    candidates = walk(given) if given.is_dir() else [given] if given.is_file() else []
    found = sorted(filter(is_image, candidates))
    if not found:
        raise UserError(
            f"no image in {given}; allowed: a folder or a file of {' '.join(images.EXTENSIONS)}"
        )
    return found


def picture_names(found: list[Path], root: Path) -> dict[Path, Path]:
    """The picture of each image, `x.png` for x.jpg; `x.jpg.png` where another image is x as well."""
    names = {path: path.relative_to(root).with_suffix(".png") for path in found}
    while True:
        many = Counter(str(name).lower() for name in names.values())
        shared = [path for path, name in names.items() if many[str(name).lower()] > 1]
        if not shared:
            return names
        for path in shared:
            names[path] = path.relative_to(root).with_name(f"{path.name}.png")


def full_size(photograph: np.ndarray) -> tuple[int, int]:
    """The tile that shows the photograph [h, w, 3] pixel by pixel, a small one enlarged."""
    height, width = photograph.shape[:2]
    high = max(height, pictures.TILE[0])
    return high, max(width * high // height, high)


def read_batches(
    found: list[Path], size: int, unreadable: list[str]
) -> Iterator[list[tuple[Path, bytes]]]:
    """The files in batches; what the disk does not give is added to `unreadable`."""
    batch = []
    for path in found:
        try:
            batch.append((path, path.read_bytes()))
        except OSError as error:
            unreadable.append(f"{path}: {error.strerror}")
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
