"""The same image gets the same box from evaluate, the galleries, predict and the served model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline import packed, params
from pipeline.evaluation import evaluator, results
from pipeline.loading import geometry, placement
from pipeline.methods.base import Outputs
from pipeline.model.predictor import Prediction, Predictor
from pipeline.model.reader import Reader, Reading, resolve
from pipeline.params import Params
from pipeline.raw import images as raw
from tests import tiny
from tests.made import encode
from tests.pipeline.methods.builders import build


class Bright:
    """An absolute localizer: how much brighter than `level` the network's input is, in its own unit."""

    unit, threshold, depths, regresses = "absolute", 0.0, ("stride8",), False
    level = 1.0

    def maps(self, features: dict[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        map = features["stride8"].float().mean(1, keepdim=True) - self.level
        return map.expand(-1, classes.shape[1], -1, -1)

    def boxes(self, features: dict[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        raise AssertionError("it has maps")


class Left(Bright):
    """A regressor: the left half of whatever it is shown."""

    unit, regresses = "relative", True

    def boxes(self, features: dict[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        half = torch.tensor([0, 0, 0.5, 1])
        return half.expand(*classes.shape, 4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", {"val": 2, "test": 4})


def settings_of(folder: Path, **changes: object) -> Params:
    return params.load(tiny.write_params(folder, input__crop=64, **changes))


def evaluated(reader: Reader, prepared: Path, settings: Params) -> evaluator.Evaluation:
    return evaluator.evaluate(reader, prepared, "test", evaluator.Scoring.of(settings))


WAYS: dict[str, dict[str, object]] = {
    "fixed": {},
    "two_stage": {"box__selection": "two_stage"},
    "ivr": {"box__normalise": "ivr"},
    "gradcam": {"heatmap": "gradcam"},
    "center_crop": {"input__test": "center_crop", "input__resize": 80},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("localizer", [None, Bright(), Left()], ids=["map", "absolute", "boxes"])
def test_predict_says_of_the_stored_image_what_evaluate_says(
    tmp_path: Path, prepared: Path, precision: str, way: str, localizer: Any
) -> None:
    settings = settings_of(tmp_path, train__precision=precision, **WAYS[way])
    model = build("cam").eval()
    reader = Reader(model, resolve(settings, model, 72, localizer), localizer)
    seen = evaluated(reader, prepared, settings)
    images = packed.Split.open(prepared, "test")
    rows = results.per_image_rows(seen, images, [*"abcde"], settings.input)
    # What another process reads from localization.json.
    reading = Reading.model_validate(json.loads(reader.reading.model_dump_json()))
    assert reading == reader.reading
    predictor = Predictor(replace(reader, reading=reading), [*"abcde"])
    files = [images.encoded(i) for i in range(len(images))]
    answers = [*predictor(files[:5]), *predictor(files[5:6]), *predictor(files[6:])]
    for row, answer in zip(rows, answers, strict=True):
        assert isinstance(answer, Prediction)
        assert answer.label == row["predicted"]
        assert [round(edge, 2) for edge in answer.box] == [
            row[edge] for edge in ("x0", "y0", "x1", "y1")
        ]


def test_an_absolute_threshold_is_in_the_maps_own_unit(tmp_path: Path, prepared: Path) -> None:
    settings, model, localizer = settings_of(tmp_path), build("cam").eval(), Bright()
    reader = Reader(model, resolve(settings, model, 72, localizer), localizer)
    assert (reader.reading.rule, reader.reading.threshold) == ("fixed", 0)
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    localizer.level = 0.0
    level = float(reader.read(images).maps.median())
    localizer.level = level
    centred = reader.read(images)
    localizer.level = 0.0
    same = replace(reader, reading=reader.reading.at(level)).read(images)
    assert centred.maps.min() < 0 < centred.maps.max()
    np.testing.assert_array_equal(centred.boxes(0).boxes, same.boxes(0).boxes)
    assert centred.shown.min() == 0 and centred.shown.max() == 1


def test_the_curve_of_absolute_maps_covers_their_range(tmp_path: Path, prepared: Path) -> None:
    settings, model, localizer = settings_of(tmp_path), build("cam").eval(), Bright()
    reader = Reader(model, resolve(settings, model, 72, localizer), localizer)
    seen = evaluated(reader, prepared, settings)
    values = np.concatenate(
        [
            maps.raw[:, 1].flatten()
            for _, maps in evaluator.read(
                reader, prepared, "test", evaluator.Scoring.of(settings), None
            )
        ]
    )
    low, high = np.percentile(values, (1, 99))
    assert len(seen.thresholds) == 20 and (np.diff(seen.thresholds) > 0).all()
    slack = 0.1 * (high - low)
    assert low - slack <= seen.thresholds[0] <= low and high <= seen.thresholds[-1] <= high + slack
    assert len(seen.thresholds) == 20
    tight = replace(reader, reading=reader.reading.at(float(seen.thresholds[7])))
    again = evaluated(tight, prepared, settings)
    np.testing.assert_allclose(again.iou_true, seen.curve_largest[:, 7], rtol=1e-6)
    chosen = evaluator.best_threshold(seen)
    assert chosen in seen.thresholds


def test_a_regressed_box_is_the_same_at_every_threshold(tmp_path: Path, prepared: Path) -> None:
    settings, model, localizer = settings_of(tmp_path), build("cam").eval(), Left()
    reader = Reader(model, resolve(settings, model, 72, localizer), localizer)
    seen = evaluated(reader, prepared, settings)
    np.testing.assert_array_equal(seen.boxes_predicted, np.tile([0, 0, 32, 64], (12, 1)))
    assert (seen.curve_largest == seen.curve_largest[:, :1]).all()
    shown = reader.read(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shown[0, 0]
    assert (shown[:, :32] == 1).all() and (shown[:, 32:] == 0).all()


def photograph(height: int, width: int) -> Image.Image:
    """A bright object on a smooth ground, on which boxes do not hang by a thread."""
    y, x = np.mgrid[:height, :width]
    inside = ((y / height - 0.4) / 0.25) ** 2 + ((x / width - 0.6) / 0.2) ** 2 < 1
    ground = 90 + 40 * np.sin(x / width * 5) + 20 * np.cos(y / height * 4)
    layers = [np.where(inside, of, ground) for of in (230, 60, 40)]
    return Image.fromarray(np.stack(layers, 2).astype(np.uint8))


def grey16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def transparent(image: Image.Image) -> Image.Image:
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, image.width // 3, image.height))
    layered = image.convert("RGBA")
    layered.putalpha(alpha)
    return layered


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(image, "JPEG", quality=95, exif=exif.tobytes())


FILES: dict[str, Callable[[Image.Image], bytes]] = {
    "large": lambda image: encode(image.resize((3000, 2000)), "JPEG", quality=90),
    "grey16": lambda image: encode(grey16(image), "PNG"),
    "transparent": lambda image: encode(transparent(image), "PNG"),
    "turned": turned,
    "palette": lambda image: encode(image.quantize(64), "GIF"),
    "tiff": lambda image: encode(image, "TIFF"),
    "narrow": lambda image: encode(image.resize((40, 700)), "PNG"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predict_on_the_file_and_evaluate_on_the_stored_image_agree(
    tmp_path: Path, precision: str
) -> None:
    """As preprocess stores them, and as a user has them: boxes apart by what the JPEG costs."""
    side = 96
    files = [of(photograph(300, 420)) for of in FILES.values()]
    stored = [raw.prepare(file, side, 95, upright=True) for file in files]
    settings = settings_of(tmp_path, train__precision=precision)
    model = build("cam").eval()
    reader = Reader(model, resolve(settings, model, side, Bright()), Bright())
    batch = torch.stack(
        [geometry.decode(jpeg, placement.test_size(settings.input)) for jpeg, _ in stored]
    )
    level = float(reader.read(batch).maps.mean())
    reader = replace(reader, reading=reader.reading.at(level))
    grid = reader.read(batch).boxes(0).boxes
    for name, box, (_, size), answer in zip(
        FILES, grid, stored, Predictor(reader, [*"abcde"])(files), strict=True
    ):
        assert isinstance(answer, Prediction) and answer.size == size, name
        evaluated = placement.boxes_to_image(box[None], size, settings.input)[0]
        pixel = np.tile(np.array(size)[::-1] / settings.input.crop, 2)  # of the test grid
        assert (np.abs(evaluated - answer.box) <= 2 * pixel + 1e-3).all(), name


def test_a_file_that_cannot_be_read_spoils_no_other(tmp_path: Path) -> None:
    settings, model = settings_of(tmp_path), build("cam").eval()
    predictor = Predictor(Reader(model, resolve(settings, model, 96)), [*"abcde"])
    good = encode(photograph(60, 90), "PNG")
    first, second, third = predictor([good, b"no image", good])
    assert first == replace(third, heatmap=first.heatmap)  # type: ignore[arg-type, union-attr]
    assert isinstance(second, raw.UnreadableImageError)
    assert isinstance(predictor([b""])[0], raw.UnreadableImageError)
