"""Boxes in COCO's two layouts, as pycocotools reads them: a data set, and results to score against one."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # label, score and x0, y0, x1, y1 in pixels of the image as shown


def dataset(
    rows: Sequence[Row], images: Sequence[Mapping[str, Any]], class_names: Sequence[str]
) -> dict[str, Any]:
    """What `COCO(file)` loads; row i lies on image i, which has file_name, height and width.

    Boxes are x, y, width, height; the outline of each is its rectangle. Sources: the format's page on
    cocodataset.org; pycocotools 2.0.10, which asks for `info` and `segmentation`.
    """
    return {
        "info": {"description": "Boxes predicted by a model trained on image labels"},
        "licenses": [],
        "images": [{"id": i, **image} for i, image in enumerate(images, 1)],
        "annotations": [
            {
                "id": i,
                **result,
                "area": round(result["bbox"][2] * result["bbox"][3], 2),
                "segmentation": [_outline(row)],
                "iscrowd": 0,
            }
            for i, (row, result) in enumerate(zip(rows, results(rows, class_names), strict=True), 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names, 1)],
    }


def results(rows: Sequence[Row], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """What `COCO.loadRes(file)` loads: a list of boxes with scores."""
    numbers = {name: number for number, name in enumerate(class_names, 1)}
    return [
        {
            "image_id": i,
            "category_id": numbers[row["label"]],
            "bbox": [
                row["x0"],
                row["y0"],
                round(row["x1"] - row["x0"], 2),
                round(row["y1"] - row["y0"], 2),
            ],
            "score": row["score"],
        }
        for i, row in enumerate(rows, 1)
    ]


def _outline(row: Row) -> list[float]:
    x0, y0, x1, y1 = (row[edge] for edge in ("x0", "y0", "x1", "y1"))
    return [x0, y0, x1, y0, x1, y1, x0, y1]
