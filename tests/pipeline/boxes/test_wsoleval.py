import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.boxes import wsoleval

sides = st.integers(1, 40)


@settings(max_examples=100, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 2**32 - 1))
def test_resize_is_opencv_bit_for_bit(h: int, w: int, height: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((1, h, w)) * 3
    theirs = cv2.resize(values[0], (width, height), interpolation=cv2.INTER_CUBIC)
    assert (wsoleval.resize(values, (height, width))[0] == theirs).all()


@pytest.mark.parametrize("side", [7, 14, 28, 224])
def test_resize_to_the_grid(side: int) -> None:
    values = np.random.default_rng(side).random((3, side, side)).astype(np.float32)
    ours = wsoleval.resize(values, wsoleval.GRID)
    for one, of in zip(ours, values.astype(np.float64), strict=True):
        assert (one == cv2.resize(of, (224, 224), interpolation=cv2.INTER_CUBIC)).all()


def test_cubic_overshoot_is_scaled_away() -> None:
    raw = np.zeros((1, 4, 4))
    raw[0, 1:3, 1:3] = 1
    wide = wsoleval.resize(raw, (16, 16))
    assert wide.min() < 0 and wide.max() > 1
    maps = wsoleval.heatmaps(raw, (16, 16))
    assert maps.min() == 0 and maps.max() == 1


def test_constant_maps_and_nan_become_zeros() -> None:
    maps = np.stack([np.full((2, 3), 7.0), np.full((2, 3), np.nan), np.arange(6.0).reshape(2, 3)])
    maps[1, 0, 0] = 1
    scaled = wsoleval.normalise(maps)
    assert (scaled[:2] == 0).all()
    assert scaled[2].tolist() == [[0, 0.2, 0.4], [0.6, 0.8, 1]]


def test_quantise_truncates() -> None:
    assert wsoleval.quantise(np.array([0, 0.5, 0.999, 1])).tolist() == [0, 127, 254, 255]


def test_boxes_are_scaled_with_truncation() -> None:
    # the benchmark's own unit test: width 10, height 20 → width 35, height 10
    assert wsoleval.scale([[1, 2, 4, 3]], (20, 10), (10, 35)).tolist() == [[3, 1, 14, 1]]


def test_corners_of_the_cub_lists() -> None:
    # first test image, 500 × 335: x, y, width, height = 60, 27, 325, 304 → 60, 27, 385, 331
    assert wsoleval.corners([[60, 27, 385, 331]], (335, 500)).tolist() == [[60, 27, 385, 331]]
    assert wsoleval.corners([[0.7, 2.9, 500, 335]], (335, 500)).tolist() == [[0, 2, 499, 334]]


@settings(max_examples=50, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 2**32 - 1))
def test_masks_are_resized_as_opencv_does(
    h: int, w: int, height: int, width: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 2, (1, h, w), dtype=np.uint8)
    theirs = cv2.resize(values[0], (width, height), interpolation=cv2.INTER_NEAREST)
    assert (wsoleval.mask(values, size=(height, width)) == theirs).all()


def test_what_is_object_is_never_ignored() -> None:
    instances = np.array([[[255, 0, 0, 0]], [[0, 255, 0, 0]]], np.uint8)
    ignore = np.array([[255, 0, 255, 0]], np.uint8)
    assert wsoleval.mask(instances, ignore, (1, 4)).tolist() == [[1, 1, 255, 0]]


def plain_pxap(
    maps: NDArray[np.float64], masks: NDArray[np.uint8], thresholds: list[float]
) -> float:
    """The definition: histograms over [thresholds, 1, 2, 3], precision and recall from the top."""
    edges = [*thresholds, 1.0, 2.0, 3.0]
    on = np.histogram(maps[masks == 1], edges)[0][::-1].cumsum()
    off = np.histogram(maps[masks == 0], edges)[0][::-1].cumsum()
    area, before = 0.0, 0.0
    for true, false in zip(on, off, strict=True):
        if true + false:
            area += true / (true + false) * (true / on[-1] - before)
        before = true / on[-1]
    return 100 * area


@pytest.mark.parametrize("step", [0.1, 0.001])
def test_pxap_is_its_definition(step: float) -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((3, 11, 17))
    maps[0, 0] = [0, 1, *[0.5] * 15]
    masks = rng.choice(np.array([0, 1, 255], np.uint8), (3, 11, 17))
    taus = np.arange(0, 1, step)
    counts = wsoleval.count_pixels(maps, masks, taus)
    assert counts.shape == (3, 2, len(taus) + 2)
    assert counts.sum() == (masks < 2).sum()
    assert wsoleval.pxap(counts.sum(0)) == pytest.approx(
        plain_pxap(maps, masks, list(taus)), rel=1e-12
    )


def test_pxap_by_hand() -> None:
    maps = np.array([[[0.9, 0.6, 0.4, 0.1]]])
    masks = np.array([[[1, 0, 1, 0]]], np.uint8)
    counts = wsoleval.count_pixels(maps, masks, [0, 0.25, 0.5, 0.75])
    # from the top: 0.75 finds one of two (precision 1), 0.25 the other (precision 2/3)
    assert wsoleval.pxap(counts[0]) == pytest.approx(100 * (1 / 2 + 2 / 3 / 2))
    assert wsoleval.pxap(wsoleval.count_pixels(masks[:1] * 1.0, masks, [0, 0.5])[0]) == 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(wsoleval.pxap(counts[0] * [[1], [0]]))


@pytest.mark.parametrize("count", [100, 1000])
def test_even_thresholds_reach_the_integers_of_the_benchmarks_arange(count: int) -> None:
    ours, theirs = np.arange(count) / count, np.arange(0, 1, 1 / count)
    assert [int(tau * 255) for tau in ours] == [int(tau * 255) for tau in theirs]
