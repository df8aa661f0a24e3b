import argparse
import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.evaluation.saved_maps import Truth
from tests.pipeline.boxes.box_references import opencv_boxes, plain_iou, scipy_boxes
from tools import score, wsol

HEADER = "image_id,x0,y0,x1,y1,width,height\n"
SIZES = {"bird/one": (30, 40), "two": (25, 25), "three": (60, 33)}
BOXES = {"bird/one": [(3, 4, 20, 15), (25, 1, 40, 9)], "two": [(2, 3, 25, 20)], "three": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of two boxes, one and none, with noisy maps smaller than they are."""
    lines = []
    rng = np.random.default_rng(0)
    for image, (height, width) in SIZES.items():
        for box in BOXES[image] or [("", "", "", "")]:
            lines.append(",".join(map(str, (image, *box, width, height))))
        path = tmp_path / "maps" / f"{image}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.standard_normal((7, 9)))
    (tmp_path / "boxes.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return tmp_path


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    """Score folder/maps against folder/boxes.csv; what was written."""
    command = ["score", "--maps", f"{folder}/maps", "--boxes", f"{folder}/boxes.csv"]
    wsol.run([*command, "--out", f"{folder}/scores.json", *options])
    result: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return result


def mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    with pytest.raises(UserError) as raised:
        run(folder, monkeypatch, "--protocol", "classic", *options)
    assert not (folder / "scores.json").exists()
    return [problem.replace(f"{folder}/", "") for problem in raised.value.problems]


def accuracy(ious: list[list[float]], delta: float) -> float:
    """Best over the thresholds: ious[image][threshold]."""
    return max(100 * float(np.mean([iou[k] >= delta for iou in ious])) for k in range(len(ious[0])))


def smooth(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((9, 9))
    wide = cv2.resize(noise, (224, 224), interpolation=cv2.INTER_CUBIC)
    return np.asarray((wide - wide.min()) / (wide.max() - wide.min()))


SCORE_MAPS = {
    "zeros": np.zeros((224, 224)),
    "ones": np.ones((224, 224), np.float32),
    "half": np.full((224, 224), 0.5),
    "low": 0.6 * smooth(1),
    "high": 0.3 + 0.7 * smooth(2),
    "narrow": (0.2 + 0.1 * smooth(3)).astype(np.float32),
    # In double precision k / 255 · 255 of a float32 is often below k, in single it is k.
    "steps": (np.round(smooth(4) * 255) / 255).astype(np.float32),
    "double": smooth(5),
    "mask": smooth(6) > 0.5,
}


@pytest.mark.parametrize("name", SCORE_MAPS)
def test_score_maps_on_the_benchmarks_grid_are_scored_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As clovaai/wsolevaluation reads files: times 255 to 8 bits, then its thresholds."""
    scores = SCORE_MAPS[name]
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", scores)
    (tmp_path / "boxes.csv").write_text(HEADER + "a,40,30,180,150,224,224\n")
    run(tmp_path, monkeypatch, "--protocol", "wsoleval", "--bootstrap", "0")
    curve = json.loads((tmp_path / "scores.json").read_text())["curve"]
    values = (scores * 255).astype(np.uint8)
    for k, tau in enumerate(np.arange(1000) / 1000):
        largest, every = opencv_boxes(values, tau)
        for prefix, boxes in (("box_acc", [largest]), ("any_box_acc", every or [largest])):
            best = max(plain_iou(box, (40, 30, 180, 150), 1) for box in boxes)
            for delta in (30, 50, 70):
                assert curve[f"{prefix}_{delta}"][k] == 100 * (best >= delta / 100), (tau, prefix)


@pytest.mark.parametrize("worst", [-0.01, 1.01, 255.0])
def test_score_maps_on_the_grid_that_leave_0_to_1_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worst: float
) -> None:
    (tmp_path / "maps").mkdir()
    scores = smooth(1)
    scores[5, 7] = worst
    np.save(tmp_path / "maps" / "a.npy", scores)
    (tmp_path / "boxes.csv").write_text(HEADER + "a,40,30,180,150,300,400\n")
    with pytest.raises(UserError, match=r"a\.npy is 224 × 224.*allowed: 0 … 1"):
        run(tmp_path, monkeypatch, "--protocol", "wsoleval")
    assert run(tmp_path, monkeypatch, "--protocol", "classic")["n"] == 1


def test_wsoleval_is_the_benchmark_computed_with_opencv(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(folder, monkeypatch, "--protocol", "wsoleval")
    largest, every = [], []
    for image, boxes in BOXES.items():
        if boxes:
            height, width = SIZES[image]
            raw = np.load(folder / "maps" / f"{image}.npy")
            wide = cv2.resize(raw, (224, 224), interpolation=cv2.INTER_CUBIC)
            wide -= wide.min()
            values = (wide / wide.max() * 255).astype(np.uint8)
            truth = [
                [int(c * 224 / s) for c, s in zip(box, (width, height) * 2, strict=True)]
                for box in boxes
            ]
            plain = [opencv_boxes(values, tau) for tau in np.arange(0, 1, 0.001)]
            largest.append([max(plain_iou(box, t, 1) for t in truth) for box, _ in plain])
            every.append(
                [max(plain_iou(b, t, 1) for b in of or [box] for t in truth) for box, of in plain]
            )
    assert result["max_box_acc"] == accuracy(largest, 0.5)
    assert result["max_box_acc_v2"] == np.mean([accuracy(every, d) for d in (0.3, 0.5, 0.7)])
    assert (result["n"], result["n_boxes"], result["size"]) == (3, 2, 224)
    fixed = [iou[200] for iou in largest]
    assert result["gt_known_loc_err"] == 100 - 100 * np.mean([iou >= 0.5 for iou in fixed])


def test_classic_is_scored_in_the_images_own_pixels(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ious = []
    rng = np.random.default_rng(1)
    for image, (height, width) in SIZES.items():
        values = rng.random((height, width))  # nothing to resize
        np.save(folder / "maps" / f"{image}.npy", values)
        values = (values - values.min()) / (values.max() - values.min())
        if BOXES[image]:
            taus = np.arange(50) / 50
            boxes = [scipy_boxes(values, tau)[0] for tau in taus]
            ious.append([max(plain_iou(b, t, 0) for t in BOXES[image]) for b in boxes])
    result = run(folder, monkeypatch, "--protocol", "classic", "--thresholds", "50")
    assert result["max_box_acc"] == accuracy(ious, 0.5)
    assert len(result["curve"]["threshold"]) == len(result["curve"]["any_box_acc_70"]) == 50
    assert "MaxBoxAccV2" in capsys.readouterr().out


def test_perfect_maps_and_masks_score_100(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "masks" / "bird").mkdir(parents=True)
    for image, (height, width) in SIZES.items():
        values = np.zeros((height, width), np.uint8)
        for x0, y0, x1, y1 in BOXES[image]:
            values[y0:y1, x0:x1] = 255
        np.save(folder / "maps" / f"{image}.npy", values)
        Image.fromarray(values).save(folder / "masks" / f"{image}.png")
    options = ["--masks", f"{folder}/masks", "--per-image", f"{folder}/per_image.csv"]
    result = run(folder, monkeypatch, "--protocol", "classic", *options)
    assert result["gt_known_loc_err"] == 0
    assert result["max_box_acc"] == result["max_box_acc_v2"] == result["pxap"] == 100
    assert result["intervals"]["pxap"] == [100, 100]
    with (folder / "per_image.csv").open() as file:
        rows = {row["id"]: row["iou_true"] for row in csv.DictReader(file)}
    assert rows["two"] == "1.000000" and rows["three"] == ""
    on_grid = run(folder, monkeypatch, "--protocol", "classic", "--size", "50")
    assert on_grid["size"] == 50 and on_grid["max_box_acc"] == 100


def test_ignored_pixels_are_not_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "boxes.csv").write_text(HEADER + "two,,,,,25,25\n")
    values = np.zeros((25, 25), np.float32)
    values[:5] = 1
    np.save(folder / "maps" / "two.npy", values)
    mask = np.zeros((25, 25), np.uint8)
    mask[:4] = 1
    (folder / "masks").mkdir()
    Image.fromarray(mask).save(folder / "masks" / "two.png")
    options = ["--protocol", "classic", "--masks", f"{folder}/masks"]
    assert run(folder, monkeypatch, *options)["pxap"] == pytest.approx(80)
    ignore = np.zeros((25, 25), np.uint8)
    ignore[4] = 1
    Image.fromarray(ignore).save(folder / "masks" / "two_ignore.png")
    result = run(folder, monkeypatch, *options)
    assert result["pxap"] == 100
    assert result["n_boxes"] == 0 and "max_box_acc" not in result


def test_bad_maps_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = folder / "maps"
    np.save(maps / "two.npy", np.zeros((3, 4, 5)))
    np.save(maps / "three.npy", np.array([[1.0, np.nan]]))
    (maps / "bird/one.npy").write_text("no array")
    told = mistakes(folder, monkeypatch)
    assert told[0].startswith("maps/bird/one.npy cannot be read as an array")
    assert told[1] == "maps/two.npy has shape (3, 4, 5); allowed: (height, width)"
    assert told[2] == "maps/three.npy holds NaN or infinite values"
    for values, what in (
        (np.zeros((3, 4), complex), "complex128; allowed: real numbers"),
        (np.array([[1e308, -1e308]]), "values of 1.0e+308; allowed: up to 1.1e+307"),
        (np.array([[3e38, 0]], np.float32), "values of 3.0e+38; allowed: up to 2.1e+37"),
    ):
        np.save(maps / "two.npy", values)
        assert mistakes(folder, monkeypatch)[1] == f"maps/two.npy holds {what}"
    np.save(maps / "two.npy", np.array([[{}]]), allow_pickle=True)
    assert "allow_pickle=False" in mistakes(folder, monkeypatch)[1]
    with (maps / "two.npy").open("wb") as file:
        np.savez(file, np.zeros((3, 4)))
    assert mistakes(folder, monkeypatch)[1].startswith("maps/two.npy holds several arrays")


def test_missing_files_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "maps" / "two.npy").unlink()
    (folder / "masks").mkdir()
    told = mistakes(folder, monkeypatch, "--masks", f"{folder}/masks")
    assert told[0] == "maps/two.npy is missing: boxes.csv names it"
    assert told[1] == "masks/bird/one.png is missing: boxes.csv names it"
    (folder / "boxes.csv").unlink()
    assert mistakes(folder, monkeypatch) == ["boxes.csv cannot be read: No such file or directory"]


def test_no_folder_of_maps_is_one_mistake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "maps").rename(folder / "elsewhere")
    assert mistakes(folder, monkeypatch) == ["maps is no folder"]


def test_memory_is_bounded_whatever_the_images_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = argparse.Namespace(protocol="classic", size=None, boxes="boxes.csv")
    photograph, small = (Truth(size, np.zeros((0, 4))) for size in ((3000, 4000), (30, 40)))
    assert score.at_once([small, photograph], options) == 5
    assert score.at_once([small], options) == 64
    (folder / "boxes.csv").write_text(HEADER + "two,1,2,3,4,600000,400000\n")
    (told,) = mistakes(folder, monkeypatch)
    assert told.startswith("boxes.csv has an image of 600000 × 400000; allowed: up to 67,108,864")
    assert run(folder, monkeypatch, "--protocol", "classic", "--size", "50")["n"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image_id,x0\na,1\n", "boxes.csv has no column y0, x1, y1, width, height"),
        (HEADER, "boxes.csv names no image"),
        (HEADER + "a,1,2,x,4,9,9\n", "boxes.csv, line 2: x1 is 'x'; allowed: a number"),
        (HEADER + "a,1,2,3,,9,9\n", "boxes.csv, line 2: y1 is ''; allowed: a number"),
        (HEADER + "a,1,2,3,4,9\n", "boxes.csv, line 2: height is ''; allowed: a number"),
        (HEADER + "a,1,2,3,4,0,9\n", "boxes.csv, line 2: a is 0 × 9; allowed: whole pixels"),
        (HEADER + "../a,1,2,3,4,9,9\n", "boxes.csv, line 2: image_id is '../a'"),
        (HEADER + "a,1,2,3,4,9,9\na,1,2,3,4,9,8\n", "boxes.csv, line 3: a has another width"),
        (HEADER + "a,1,2,12,4,9,8\n", "boxes.csv, line 2: box 1, 2, 12, 4 of a is not inside"),
        (HEADER + "a,5,2,3,4,9,8\n", "boxes.csv, line 2: box 5, 2, 3, 4 of a is not inside"),
    ],
)
def test_bad_boxes_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    (folder / "boxes.csv").write_text(text)
    assert mistakes(folder, monkeypatch)[0].startswith(told)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_boxes_are_read_in_the_encodings_of_spreadsheets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    text = (folder / "boxes.csv").read_text()
    (folder / "boxes.csv").write_bytes(text.replace(",", ";").encode(encoding))
    assert run(folder, monkeypatch, "--protocol", "classic")["n"] > 0


def test_shares_are_refused_and_percent_is_suspected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "boxes.csv").write_text(HEADER + "a,0,0,1,0.5,9,9\nb,0.1,0.2,0.3,0.4,9,9\n")
    (told,) = mistakes(folder, monkeypatch)
    assert told.startswith("boxes.csv: no edge of a box is above 1, so these are shares")
    np.save(folder / "maps" / "a.npy", np.eye(300, 200))
    (folder / "boxes.csv").write_text(HEADER + "a,10,20,99,90,200,300\n")
    run(folder, monkeypatch, "--protocol", "classic")
    assert "boxes.csv: no edge of a box lies beyond 100" in capsys.readouterr().err
    (folder / "boxes.csv").write_text(HEADER + "a,10,20,101,90,200,300\n")
    run(folder, monkeypatch, "--protocol", "classic")
    assert "lies beyond" not in capsys.readouterr().err


def test_many_mistakes_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "boxes.csv").write_text(HEADER + "a,1,2,99,4,9,8\n" * 50)
    told = mistakes(folder, monkeypatch)
    assert len(told) == 21 and told[-1] == "and 30 more like these"


@pytest.mark.parametrize(
    "options",
    [("--thresholds", "0"), ("--threshold", "1"), ("--size", "9", "--protocol", "wsoleval")],
)
def test_bad_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    with pytest.raises(UserError):
        run(folder, monkeypatch, "--protocol", "classic", *options)
