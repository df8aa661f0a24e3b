import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.files import write_csv
from tools import wsol

COLUMNS = ["id", "label", "predicted", "in_top5", "iou_true", "iou_predicted"]


def write(path: Path, iou: np.ndarray, right: np.ndarray, columns: list[str] = COLUMNS) -> None:
    rows = [
        {
            "id": f"image{i}",
            "label": "wren",
            "predicted": "wren" if right[i] else "crow",
            "in_top5": 1,
            "iou_true": "" if np.isnan(iou[i]) else iou[i],
            "iou_predicted": "" if np.isnan(iou[i]) else iou[i],
        }
        for i in range(len(iou))
    ]
    path.parent.mkdir(exist_ok=True)
    write_csv(path, [{name: row[name] for name in columns} for row in rows], columns)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """a: 40 of 100 boxes wrong; b mends 10 of them. Predictions wrong for every fifth image, in both."""
    right = np.arange(100) % 5 > 0
    write(tmp_path / "a" / "per_image.csv", np.where(np.arange(100) < 40, 0.4, 0.5), right)
    write(tmp_path / "b" / "per_image.csv", np.where(np.arange(100) < 30, 0.4, 0.5), right)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    wsol.run(["compare", *map(str, arguments)])


def problems(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> list[str]:
    with pytest.raises(UserError) as raised:
        run(monkeypatch, *arguments)
    return raised.value.problems


def test_paired_differences(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, runs / "a", runs / "b" / "per_image.csv", "--out", runs / "out.json")
    result = json.loads((runs / "out.json").read_text())
    errors = {name: (of["a"]["value"], of["b"]["value"]) for name, of in result["errors"].items()}
    assert errors == {
        "top1_cls_err": (20, 20),
        "top5_cls_err": (0, 0),
        "top1_loc_err": (pytest.approx(52), pytest.approx(44)),
        "top5_loc_err": (40, 30),
        "gt_known_loc_err": (40, 30),
    }
    gain = result["errors"]["gt_known_loc_err"]
    assert gain["difference"]["value"] == -10
    assert gain["difference"]["low"] < -10 < gain["difference"]["high"] < 0
    assert gain["verdict"] == "B is better"
    assert result["errors"]["top1_cls_err"]["verdict"].startswith("no difference shown")
    out = capsys.readouterr().out
    assert "100 images" in out and "gt_known_loc_err" in out
    run(monkeypatch, runs / "b", runs / "a")
    assert "B is worse" in capsys.readouterr().out


def test_other_images_are_refused_or_left_out(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(runs / "few" / "per_image.csv", np.full(60, 0.9), np.ones(60, bool))
    told = problems(monkeypatch, runs / "a", runs / "few")
    assert len(told) == 1
    assert told[0].startswith(f"40 images are only in {runs / 'a'}: image60, image61, image62, …;")
    run(monkeypatch, runs / "a", runs / "few", "--common")
    assert "60 images" in capsys.readouterr().out


def test_images_without_boxes_are_left_out(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iou = np.where(np.arange(100) < 30, 0.4, 0.5)
    iou[90:] = np.nan
    write(runs / "b" / "per_image.csv", iou, np.ones(100, bool))
    run(monkeypatch, runs / "a", runs / "b", "--out", runs / "out.json")
    errors = json.loads((runs / "out.json").read_text())["errors"]
    assert errors["gt_known_loc_err"]["a"]["value"] == pytest.approx(100 * 40 / 90)
    assert errors["top1_cls_err"]["b"]["value"] == 0


def test_only_what_both_tell_is_compared(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        write(runs / name / "per_image.csv", np.ones(9), np.ones(9, bool), ["id", "iou_true"])
    run(monkeypatch, runs / "a", runs / "b", "--out", runs / "out.json")
    assert list(json.loads((runs / "out.json").read_text())["errors"]) == ["gt_known_loc_err"]


def test_mistakes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, other = runs / "a", runs / "other.csv"
    assert problems(monkeypatch, a, other) == [f"{other} cannot be read: No such file or directory"]
    other.write_text("image,score\nx,1\n")
    assert "has no column id" in problems(monkeypatch, a, other)[0]
    other.write_text("id,label\nimage1,wren\nimage1,wren\n")
    assert problems(monkeypatch, a, other)[0] == f"{other} has 1 images more than once"
    other.write_text("id,label\nx,wren\n")
    assert f"{a} and {other} have no image in common" in problems(monkeypatch, a, other)[-1]
    other.write_text("id,label\nimage1,crow\n")
    assert "1 images have another label" in problems(monkeypatch, a, other, "--common")[0]
    other.write_text("id,label\nimage1,wren\n")
    assert "no error in common" in problems(monkeypatch, a, other, "--common")[0]
