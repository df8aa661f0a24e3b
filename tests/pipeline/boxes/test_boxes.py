import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import boxes
from pipeline.boxes import wsoleval
from tests.imports import ROOT
from tests.pipeline.boxes.box_references import opencv_boxes, plain_iou, scipy_boxes

KINDS = ("noise", "plateaus", "smooth", "rings", "negative", "constant")


def make_map(kind: str, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A map of one kind, of any range; `smooth` has few components, `rings` many holes."""
    noise = rng.random((height, width))
    if kind == "constant":
        noise[:] = rng.choice([-1.0, 0.0, 0.5])
    elif kind == "plateaus":
        noise = np.round(noise * 3) / 3
    elif kind == "negative":
        noise = -noise - rng.integers(0, 2) * 0.1
    elif kind == "smooth":
        padded = np.pad(noise, 2, mode="edge")
        shifts = [padded[y : y + height, x : x + width] for y in range(5) for x in range(5)]
        noise = np.mean(shifts, axis=0)
    elif kind == "rings":
        noise[:] = 0
        for _ in range(6):
            x, y = rng.integers(0, width), rng.integers(0, height)
            x1, y1 = x + rng.integers(1, 8), y + rng.integers(1, 8)
            value = rng.random()
            noise[y, x : x1 + 1] = noise[y1 : y1 + 1, x : x1 + 1] = value
            noise[y : y1 + 1, x] = noise[y : y1 + 1, x1 : x1 + 1] = value
    return noise.astype(np.float32)


maps = st.builds(
    lambda kind, height, width, seed: make_map(kind, height, width, np.random.default_rng(seed)),
    st.sampled_from(KINDS),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 2**32 - 1),
)
threshold_lists = st.lists(st.floats(0, 1.1), min_size=1, max_size=30).map(sorted)
TRUTH = np.array([[2.5, 3, 9, 12.25], [0, 0, 4, 4]])


def scaled(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return wsoleval.normalise(values[None].astype(np.float64))[0]


def boxes_by_threshold(
    values: NDArray[Any], taus: NDArray[np.float64], protocol: boxes.Protocol
) -> list[list[tuple[int, ...]]]:
    spans = boxes.components(values, taus, protocol).tolist()
    return [
        sorted(tuple(box) for *box, first, last in spans if first <= k <= last)
        for k in range(len(taus))
    ]


@settings(max_examples=400, deadline=None)
@given(values=maps, thresholds=threshold_lists)
def test_classic_is_scipy_at_every_threshold(
    values: NDArray[np.float32], thresholds: list[float]
) -> None:
    taus = np.array(thresholds)
    plain = [scipy_boxes(values, tau) for tau in taus]
    assert boxes.sweep(values[None], taus)[0].tolist() == [list(box) for box, _ in plain]
    curve = boxes.curve(values[None], [TRUTH], taus)
    for k, (largest, every) in enumerate(plain):
        assert curve.largest[0, k] == np.float32(max(plain_iou(largest, t, 0) for t in TRUTH))
        best = max(plain_iou(box, t, 0) for box in every or [largest] for t in TRUTH)
        assert curve.any[0, k] == np.float32(best)
    assert boxes_by_threshold(values, taus, "classic") == [sorted(every) for _, every in plain]


@settings(max_examples=400, deadline=None)
@given(values=maps, thresholds=threshold_lists)
def test_wsoleval_is_opencv_at_every_threshold(
    values: NDArray[np.float32], thresholds: list[float]
) -> None:
    values, taus = scaled(values), np.array(thresholds)
    truth = np.trunc(TRUTH)
    plain = [opencv_boxes(wsoleval.quantise(values), tau) for tau in taus]
    assert boxes.sweep(values[None], taus, "wsoleval")[0].tolist() == [list(b) for b, _ in plain]
    curve = boxes.curve(values[None], [truth], taus, "wsoleval")
    for k, (largest, every) in enumerate(plain):
        assert curve.largest[0, k] == np.float32(max(plain_iou(largest, t, 1) for t in truth))
        best = max(plain_iou(box, t, 1) for box in every or [largest] for t in truth)
        assert curve.any[0, k] == np.float32(best)
    assert boxes_by_threshold(values, taus, "wsoleval") == [sorted(every) for _, every in plain]


@pytest.mark.parametrize("protocol", boxes.PROTOCOLS)
@pytest.mark.parametrize("seed", range(4))
def test_smooth_maps_whose_runs_are_gathered(protocol: boxes.Protocol, seed: int) -> None:
    from pipeline.boxes.threshold_sweep.basins import basins_room, find_basins, gather_runs
    from pipeline.boxes.threshold_sweep.runs import find_runs, runs_room

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :56]
    bumps = [(rng.uniform(0, 48), rng.uniform(0, 56), rng.uniform(20, 200)) for _ in range(5)]
    values = sum(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / spread) for cy, cx, spread in bumps)
    values, taus = scaled(np.asarray(values, np.float32)), np.arange(1, 40) / 40
    of, plain = (
        (values, scipy_boxes)
        if protocol == "classic"
        else (wsoleval.quantise(values), opencv_boxes)
    )
    found = [plain(of, tau) for tau in taus]
    assert boxes.sweep(values[None], taus, protocol)[0].tolist() == [list(b) for b, _ in found]
    assert boxes_by_threshold(values, taus, protocol) == [sorted(every) for _, every in found]

    level = boxes._levels(values[None], taus, protocol, 1)[0].ravel()
    runs = find_runs(level, 58, False, runs_room(50, 58))
    room = basins_room(50, 58, len(taus))
    basin, count = find_basins(level, 58, runs, True, room)
    gathered, *_ = gather_runs(level, 58, runs, False, basin, count, room)
    assert gathered, "this test is for the road that smooth maps take"


def test_a_map_worked_by_hand() -> None:
    values = np.array(
        [
            [0.9, 0.1, 0.1, 0.5, 0.5],
            [0.1, 1.0, 0.1, 0.1, 0.5],
            [0.1, 0.1, 0.1, 0.5, 0.5],
        ],
        np.float32,
    )
    swept = boxes.sweep(values[None], [0.0, 0.3, 0.8, 0.95, 1.01])[0]
    # everything; the 5-pixel bracket, not the diagonal pair; the pair; its brighter pixel; nothing
    assert swept.tolist() == [[0, 0, 5, 3], [3, 0, 5, 3], [0, 0, 2, 2], [1, 1, 2, 2], [0, 0, 5, 3]]
    assert boxes.boxes_at(values[None], 0.3).tolist() == [[3, 0, 5, 3]]


def test_contour_area_goes_through_pixel_centres() -> None:
    values = np.zeros((9, 20), np.float64)
    values[1, 2:18] = 1  # a line of 16 pixels has no area
    values[4:7, 5:8] = 1  # 3 × 3 pixels have area 4
    line = boxes.boxes_at(values[None], 0.5)[0]
    square = boxes.boxes_at(values[None], 0.5, "wsoleval")[0]
    assert line.tolist() == [2, 1, 18, 2]
    assert square.tolist() == [5, 4, 8, 7]  # inclusive, and so one pixel too large


def test_equal_components() -> None:
    values = np.zeros((1, 5, 9))
    values[0, 3, 1] = values[0, 1, 4] = values[0, 3, 7] = 1
    assert boxes.boxes_at(values, 0.5).tolist() == [[4, 1, 5, 2]]  # first pixel first
    assert boxes.boxes_at(values, 0.5, "wsoleval").tolist() == [[7, 3, 8, 4]]  # first pixel last


def test_the_border_of_a_hole_counts_under_wsoleval_only() -> None:
    ring = np.zeros((1, 12, 12))
    ring[0, 1:11, 1:11] = 1
    ring[0, 5:7, 5:7] = 0
    hole = [np.array([[4.0, 4, 8, 8]])]
    assert boxes.curve(ring, hole, [0.5], "wsoleval").any[0, 0] == 1
    assert boxes.curve(ring, hole, [0.5], "classic").any[0, 0] == np.float32(16 / 100)


def test_nothing_on() -> None:
    zeros = np.zeros((1, 6, 8), np.float32)
    assert boxes.boxes_at(zeros, 0.2).tolist() == [[0, 0, 8, 6]]  # 0 ≥ 0.2 · 0: all is on
    assert boxes.boxes_at(zeros + 1, 1.5).tolist() == [[0, 0, 8, 6]]
    one_peak = np.array([[[1.0, 0.25]]], np.float32)
    assert boxes.sweep(one_peak, [0, 0.5, 1.5]).tolist() == [
        [[0, 0, 2, 1], [0, 0, 1, 1], [0, 0, 2, 1]]
    ]
    assert boxes.boxes_at(zeros, 0.2, "wsoleval").tolist() == [[0, 0, 0, 0]]
    nothing = boxes.curve(zeros, [np.array([[0.0, 0, 0, 0]])], [0.2], "wsoleval")
    assert nothing.largest == nothing.any == 1  # the benchmark's empty box has one pixel


def test_each_image_has_its_threshold_and_its_truth() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([make_map("smooth", 13, 17, rng) for _ in range(40)])
    taus = rng.random(40)
    alone = [boxes.boxes_at(values[i : i + 1], taus[i])[0].tolist() for i in range(40)]
    assert boxes.boxes_at(values, taus).tolist() == alone
    truth = [np.empty((0, 4)), *[np.array([[i % 9, 2, 15, 11]]) for i in range(39)]]
    batch = boxes.curve(values, truth, [0.2, 0.5], threads=3)
    assert np.isnan(batch.largest[0]).all() and np.isnan(batch.any[0]).all()
    for i in range(1, 40):
        one = boxes.curve(values[i : i + 1], truth[i : i + 1], [0.2, 0.5])
        assert (one.largest == batch.largest[i]).all() and (one.any == batch.any[i]).all()


def test_float64_maps_keep_their_last_bits() -> None:
    values = np.array([[[1.0, 0.3 + 1e-12, 0.3]]])
    assert boxes.boxes_at(values, 0.3 + 1e-13).tolist() == [[0, 0, 2, 1]]


@settings(max_examples=200, deadline=None)
@given(maps, st.integers(1, 300), st.floats(1e-3, 3), st.sampled_from([np.float32, np.float64]))
def test_levels_are_exact_where_thresholds_are_even(
    values: NDArray[np.float32], count: int, last: float, dtype: Any
) -> None:
    taus = np.arange(count) / count * last
    values = values.astype(dtype)
    top = np.float64(values.max())
    reached = values[..., None] >= taus * top
    # On the thresholds, and just below and above.
    values = np.where(reached.any(2), taus[reached.sum(2) - 1] * top, values).astype(dtype)
    values.flat[:3] = np.nextafter(values.flat[:3], [-np.inf, np.inf, 0][: values.size])
    top = np.float64(values.max())
    levels = boxes._levels(values[None], taus, "classic", 1)[0][0]
    reached = values[..., None].astype(np.float64) >= taus * top
    assert (levels[1:-1, 1:-1] == reached.sum(2)).all()
    assert {*levels[0], *levels[-1], *levels[:, 0], *levels[:, -1]} == {-1}


def test_more_thresholds_than_16_bits_count() -> None:
    values = make_map("smooth", 9, 14, np.random.default_rng(5))
    taus = np.arange(40_000) / 40_000
    few = taus[::2000]
    swept = boxes.curve(values[None], [TRUTH], taus)
    assert swept.any.shape == (1, 40_000)
    assert (swept.any[:, ::2000] == boxes.curve(values[None], [TRUTH], few).any).all()


def test_boxes_follow_a_flip() -> None:
    values = make_map("smooth", 21, 34, np.random.default_rng(3))
    taus = np.arange(20) / 20
    x0, y0, x1, y1 = boxes.sweep(values[None], taus)[0].T
    flipped = boxes.sweep(np.ascontiguousarray(values[None, :, ::-1]), taus)[0]
    assert flipped.tolist() == np.stack([34 - x1, y0, 34 - x0, y1], 1).tolist()


def test_no_images() -> None:
    none = np.empty((0, 5, 7), np.float32)
    assert boxes.sweep(none, [0.1, 0.2]).shape == (0, 2, 4)
    assert boxes.curve(none, [], [0.1, 0.2]).any.shape == (0, 2)


@pytest.mark.parametrize(
    ("values", "thresholds", "protocol", "text"),
    [
        (np.zeros((5, 7)), [0.1], "classic", r"shape \(5, 7\)"),
        (np.zeros((1, 0, 7)), [0.1], "classic", "not empty"),
        (np.full((1, 2, 2), np.nan), [0.1], "classic", "NaN"),
        (np.full((1, 2, 2), np.inf), [0.1], "classic", "infinite"),
        (np.zeros((1, 2, 2)), [0.2, 0.1], "classic", "rising"),
        (np.zeros((1, 2, 2)), [np.nan], "classic", "rising"),
        (np.zeros((1, 2, 2)), [], "classic", "at least one"),
        (np.full((1, 2, 2), 1.5), [0.1], "wsoleval", "leave 0 … 1"),
        (np.zeros((1, 2, 2)), [0.1], "voc", "protocol"),
    ],
)
def test_bad_input(values: NDArray[Any], thresholds: list[float], protocol: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        boxes.sweep(values, thresholds, protocol)


def test_truth_for_every_map() -> None:
    with pytest.raises(ValueError, match="2 maps but ground truth for 1"):
        boxes.curve(np.zeros((2, 3, 3)), [TRUTH], [0.1])


def test_importing_costs_nothing() -> None:
    code = "import sys, pipeline.boxes; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_compiling_is_announced_once(tmp_path: Path) -> None:
    code = (
        "import numpy; from pipeline.boxes.threshold_sweep.basins import begin;"
        " begin(numpy.zeros(3, 'u4'))"
    )

    def told() -> list[str]:
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        run = [sys.executable, "-c", code]
        done = subprocess.run(run, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stderr.splitlines()

    (line,) = told()
    assert "compiling the sweep" in line
    assert told() == []


def test_resize_is_bilinear_between_pixel_centres() -> None:
    values = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    wide = boxes.resize(values, (2, 4))
    assert wide.tolist() == [[[0, 0.25, 0.75, 1], [2, 2.25, 2.75, 3]]]


def test_normalise_per_image() -> None:
    values = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]], [[2.0, 2.0], [2.0, 2.0]]])
    assert boxes.normalise(values).tolist() == [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]]
