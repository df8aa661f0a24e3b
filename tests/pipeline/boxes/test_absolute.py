"""Thresholds in the maps' own unit, held to plain comparisons and scipy's labels."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.boxes import absolute
from pipeline.evaluation import metrics
from tests.pipeline.boxes.box_references import EIGHT


def plain(values: np.ndarray, threshold: float) -> tuple[int, int, int, int]:
    label, n = ndimage.label(values >= threshold, structure=EIGHT)
    if n == 0:
        return 0, 0, values.shape[1], values.shape[0]
    rows, columns = ndimage.find_objects(label)[np.bincount(label.ravel())[1:].argmax()]
    return columns.start, rows.start, columns.stop, rows.stop


@pytest.mark.parametrize("low", [-9.0, -0.5, 0.0, 1e-6, 4.0])
def test_a_pixel_is_on_where_its_value_reaches_the_threshold(low: float) -> None:
    rng = np.random.default_rng(0)
    maps = ndimage.gaussian_filter(rng.normal(size=(12, 17, 23)), (0, 1.5, 1.5)).astype(np.float32)
    maps += np.float32(low)
    maps[0] = low  # constant
    for threshold in (low - 0.1, low, low + 0.05, float(maps[3, 4, 5]), float(maps.max()) + 1):
        expected = [plain(values, threshold) for values in maps]
        np.testing.assert_array_equal(absolute.boxes_at(maps, threshold), expected)


def test_the_curve_is_that_of_each_threshold() -> None:
    rng = np.random.default_rng(1)
    maps = ndimage.gaussian_filter(rng.normal(size=(6, 14, 20)), (0, 2, 2)).astype(np.float32)
    truth = [np.array([[3, 2, 12, 9]], float)] * 5 + [np.empty((0, 4))]
    thresholds = np.linspace(-0.3, 0.3, 31)
    found = absolute.curve(maps, truth, thresholds)
    for t, threshold in enumerate(thresholds):
        iou = metrics.best_iou(absolute.boxes_at(maps, threshold), truth)
        np.testing.assert_allclose(found.largest[:, t], iou, rtol=1e-6)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        absolute.boxes_at(np.full((1, 2, 2), np.nan), 0)
