"""A network that sees colours: what it says of coloured squares is known beforehand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline import packed, params
from pipeline.backbones.base import Backbone
from pipeline.errors import UserError
from pipeline.evaluation import evaluator, results
from pipeline.evaluation.formats import map_file, per_class, threshold_curve
from pipeline.loading import geometry, placement
from pipeline.methods import base, cam
from pipeline.model.predictor import Prediction, Predictor
from pipeline.model.reader import Reader, resolve
from pipeline.params import Params
from tests import tiny
from tests.made import encode


class Colours(nn.Module):
    """A backbone whose features are the image itself."""

    out_channels = 3
    points = ()
    captured = Backbone.captured

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Identity()

    def forward(self, images: Tensor, at: object = None) -> Tensor:
        return images


class Oracle(base.Method):
    """Every class's map is high where its colour is: blue, green, red are channels 2, 1, 0."""

    def __init__(self) -> None:
        super().__init__(Colours(), 3, cam.Params())  # type: ignore[arg-type]
        weights = torch.tensor([[-1.0, -1, 2], [-1, 2, -1], [2, -1, -1]])
        self.classifier.weight.data.copy_(weights)

    def head(self, features: Tensor, targets: Tensor | None) -> base.Outputs:
        return base.Outputs(self.classifier(features.amax((2, 3))), features)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", {"val": 4, "test": 7})


def reader(settings: Params, selection: str = "fixed", threshold: float = 0.6) -> Reader:
    box = settings.box.model_copy(update={"selection": selection, "threshold": threshold})
    oracle = Oracle()
    return Reader(oracle, resolve(replace(settings, box=box), oracle, 64))


def evaluated(prepared: Path, settings: Params, split: str = "test") -> evaluator.Evaluation:
    return evaluator.evaluate(reader(settings), prepared, split, evaluator.Scoring.of(settings))


def test_the_maps_are_the_predicted_classs_on_the_localizers_grid(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = params.load(tiny.write_params(tmp_path, input__crop=64))
    found = evaluated(prepared, settings)
    images = packed.Split.open(prepared, "test")
    size = placement.test_size(settings.input)
    batch = torch.stack([geometry.decode(images.encoded(i), size) for i in range(len(images))])
    raw = reader(settings).read(batch).raw[:, 0].numpy()
    spread = (found.map_high - found.map_low)[:, None, None]
    again = found.map_low[:, None, None] + found.maps / np.float32(255) * spread
    assert found.maps.dtype == np.uint8 and found.maps.shape == raw.shape
    assert (abs(again - raw) <= spread * 0.51 / 255).all()
    monkeypatch.setattr(map_file, "LIMIT", len(images) * 100)
    coarse = evaluated(prepared, settings).maps
    assert coarse.shape == (len(images), 10, 10)
    peak = [np.array(np.unravel_index(m.argmax(), m.shape)) / m.shape for m in (coarse[0], raw[0])]
    assert abs(peak[0] - peak[1]).max() < 0.5


def test_a_perfect_map_scores_perfectly(tmp_path: Path, prepared: Path) -> None:
    settings = params.load(tiny.write_params(tmp_path, input__crop=64))
    seen = evaluated(prepared, settings)
    assert (seen.top[:, 0] == seen.labels).all()
    assert seen.iou_true.min() > 0.8
    np.testing.assert_array_equal(seen.boxes_true, seen.boxes_predicted)
    how = reader(settings).reading
    figures = results.summary(seen, settings, how, baselines={}, model_sha256="")
    for name in ("top1_cls_err", "top1_loc_err", "top5_loc_err", "gt_known_loc_err"):
        assert figures[name] == 0
        assert figures["intervals"][name] == [0, 0]
    assert figures["max_box_acc"] == 100
    assert figures["n"] == figures["n_boxes"] == 21
    assert figures["threshold"] == figures["reading"]["threshold"] == 0.6
    assert figures["boxes"]["label"] == "fixed 0.6"


@pytest.mark.parametrize("geometry", ["squash", "center_crop"])
def test_boxes_come_back_to_the_original_image(
    tmp_path: Path, prepared: Path, geometry: str
) -> None:
    settings = params.load(
        tiny.write_params(tmp_path, input__test=geometry, input__resize=72, input__crop=64)
    )
    seen = evaluated(prepared, settings)
    images = packed.Split.open(prepared, "test")
    rows = results.per_image_rows(seen, images, tiny.CLASSES, settings.input)
    assert len(rows) == 21
    if geometry == "squash":
        for row, truth in zip(rows, images.boxes, strict=True):
            box = np.array([row[edge] for edge in ("x0", "y0", "x1", "y1")])
            assert np.abs(box - truth[0]).max() < 4
    assert {row["predicted"] for row in rows} == set(tiny.CLASSES)


def test_the_benchmarks_protocol_starts_from_raw_maps_and_original_boxes(
    tmp_path: Path, prepared: Path
) -> None:
    settings = params.load(tiny.write_params(tmp_path, input__crop=64, box__protocol="wsoleval"))
    seen = evaluated(prepared, settings)
    classic = evaluated(prepared, params.load(tiny.write_params(tmp_path, input__crop=64)))
    assert np.abs(seen.curve_largest - classic.curve_largest).max() > 0  # one pixel larger boxes
    assert np.abs(seen.curve_largest[:, 12] - classic.curve_largest[:, 12]).max() < 0.25
    np.testing.assert_array_equal(seen.boxes_true, classic.boxes_true)
    with pytest.raises(UserError, match=r"allowed: input\.test: squash"):
        params.load(
            tiny.write_params(tmp_path, box__protocol="wsoleval", input__test="center_crop")
        )


def test_batches_do_not_change_the_result(tmp_path: Path, prepared: Path) -> None:
    whole = evaluated(prepared, params.load(tiny.write_params(tmp_path, evaluate__batch_size=64)))
    single = evaluated(prepared, params.load(tiny.write_params(tmp_path, evaluate__batch_size=1)))
    np.testing.assert_array_equal(whole.boxes_true, single.boxes_true)
    np.testing.assert_array_equal(whole.curve_any, single.curve_any)


def test_without_boxes_only_the_box_figures_are_missing(tmp_path: Path) -> None:
    prepared = tiny.prepare(tmp_path / "prepared", {"test": 3}, boxes=False)
    settings = params.load(tiny.write_params(tmp_path))
    seen = evaluated(prepared, settings)
    assert np.isnan(seen.iou_true).all()
    how = reader(settings).reading
    figures = results.summary(seen, settings, how, baselines={}, model_sha256="")
    assert figures["top1_cls_err"] == 0
    assert "gt_known_loc_err" not in figures
    assert figures["n_boxes"] == 0
    assert threshold_curve.columns(seen.scored, seen.thresholds) == {}
    assert per_class.rows(seen.scored, seen.labels, tiny.CLASSES)[0]["gt_known_loc_err"] == ""
    assert evaluator.centre_baseline(prepared, "test", settings.input) == {}


def test_the_threshold_of_val_is_the_one_most_often_right(tmp_path: Path, prepared: Path) -> None:
    settings = params.load(tiny.write_params(tmp_path))
    curve = np.array([[0.2, 0.6, 0.7, 0.1], [0.4, 0.4, 0.9, 0.5], [np.nan] * 4], np.float32)
    seen = evaluated(prepared, settings, "val")
    thresholds = np.array([0, 0.25, 0.5, 0.75])
    known = replace(seen, curve_largest=curve, thresholds=thresholds)
    assert evaluator.best_threshold(known) == 0.5


def test_two_stage_boxes_fall_back_and_say_so(tmp_path: Path, prepared: Path) -> None:
    settings = params.load(tiny.write_params(tmp_path, box__two_stage__min_seeds=10**6))
    how = reader(settings, "two_stage")
    seen = evaluator.evaluate(how, prepared, "test", evaluator.Scoring.of(settings))
    assert not seen.found.any()
    np.testing.assert_array_equal(seen.boxes_true, evaluated(prepared, settings).boxes_true)


def test_curve_rows(tmp_path: Path, prepared: Path) -> None:
    settings = params.load(tiny.write_params(tmp_path))
    seen = evaluated(prepared, settings)
    columns = threshold_curve.columns(seen.scored, seen.thresholds)
    threshold_curve.write(tmp_path / threshold_curve.FILE, columns)
    read = threshold_curve.read(tmp_path)
    assert list(read) == list(columns)
    assert read["threshold"].tolist() == [round(i / 20, 6) for i in range(20)]
    assert (read["box_acc_70"] <= read["box_acc_50"]).all()
    assert (read["box_acc_50"] <= read["box_acc_30"]).all()
    assert (read["any_box_acc_50"] >= read["box_acc_50"]).all()


def test_the_centre_box_by_hand(tmp_path: Path, prepared: Path) -> None:
    np.testing.assert_allclose(evaluator.centre_boxes(1, 64, 0.5), [[16, 16, 48, 48]])
    settings = params.load(tiny.write_params(tmp_path))
    figures = evaluator.centre_baseline(prepared, "test", settings.input)
    assert figures["max_box_acc"] >= 100 - figures["gt_known_loc_err"] - 100 / 21
    assert set(figures) == {"gt_known_loc_err", "max_box_acc", "max_box_acc_v2"}


def test_a_predictor_says_the_same(tmp_path: Path, prepared: Path) -> None:
    settings = params.load(tiny.write_params(tmp_path, input__crop=64))
    predictor = Predictor(reader(settings), tiny.CLASSES)
    image = np.full((60, 90, 3), 120, np.uint8)
    image[10:40, 30:80] = (40, 230, 40)
    (seen,) = predictor([encode(Image.fromarray(image), "PNG")])
    assert isinstance(seen, Prediction)
    assert seen.label == "green"
    assert 0 < seen.score <= 1
    assert np.abs(np.array(seen.box) - (30, 10, 80, 40)).max() < 3
    assert seen.heatmap.shape == (64, 64)
