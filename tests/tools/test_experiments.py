"""The table over experiments: seeds are averaged, other settings have a row of their own."""

from typing import Any

from tools import experiments
from tools.experiments import Experiment


def experiment(
    seed: int, iou: list[str], *, seconds: float = 60, method: str = "cam", **changes: Any
) -> Experiment:
    images = {
        str(i): {
            "id": str(i),
            "label": "a",
            "predicted": "b" if i == 0 else "a",
            "iou_true": v,
            "iou_predicted": v,
        }
        for i, v in enumerate(iou)
    }
    what = {"dataset": "d", "backbone": "n", "method": method, "selection": "fixed", "seed": seed}
    settings = {
        "dataset": "d",
        "method": method,
        "seed": seed,
        "train": {"epochs": changes.pop("epochs", 3)},
        "datasets": {"d": {"side": 4}, "other": {"side": seed}},
        "methods": {"cam": {}, "eil": {"plug_points": changes.pop("plug_points", ["last"])}},
        "ablate": {"all": bool(seed)},
    }
    figures = {"max_box_acc": 50.0 + seed}
    return Experiment(
        f"e{seed}", {**what, **figures}, images, seconds, experiments.settings_of(settings)
    )


def test_settings_are_what_bears_on_the_row() -> None:
    assert experiment(1, []).params == {
        "dataset": '"d"',
        "method": '"cam"',
        "train.epochs": "3",
        "datasets.d.side": "4",
    }


def test_seeds_are_averaged() -> None:
    found = [
        experiment(0, ["0.9", "0.4", "0.6", "0.6"]),
        experiment(1, ["0.1", "0.4", "0.6", "0.6"], seconds=120),
    ]
    (row,) = experiments.table(found, 100)
    assert (row["seeds"], row["images"], row["settings"]) == (2, 4, "")
    # top-1: image 0 always wrong. Localization: images 0, 1 wrong in both. GT-known: 1 of 4, then 2 of 4
    assert (row["top1_cls_err"], row["top1_loc_err"], row["gt_known_loc_err"]) == (25.0, 50.0, 37.5)
    assert row["gt_known_loc_err_low"] <= 37.5 <= row["gt_known_loc_err_high"]
    assert (row["max_box_acc"], row["minutes"]) == (50.5, 1.5)


def test_other_settings_are_another_row_that_says_which() -> None:
    one, two = ["0.9"], ["0.1"]
    found = [
        experiment(0, one, method="eil"),
        experiment(0, two, method="eil", plug_points=["early", "last"]),
        experiment(1, two, method="eil", plug_points=["early", "last"]),
        experiment(0, one),
    ]
    rows = experiments.table(found, 10)
    assert [(row["method"], row["settings"], row["seeds"]) for row in rows] == [
        ("cam", "", 1),
        ("eil", 'methods.eil.plug_points=["early", "last"]', 2),
        ("eil", 'methods.eil.plug_points=["last"]', 1),
    ]
    lines = list(experiments.markdown(rows))
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1


def test_images_without_boxes_have_no_localization_error() -> None:
    (row,) = experiments.table([experiment(0, ["", ""])], 10)
    assert row["top1_cls_err"] == 50.0 and "gt_known_loc_err" not in row
    assert any("–" in line for line in experiments.markdown([row]))
