"""maps.npz: heatmaps come back within half a level, in the order they were given, in bounded room."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.evaluation.formats import map_file
from pipeline.evaluation.formats.map_file import Maps


def test_maps_come_back_within_half_a_level_of_their_own_range(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).normal(3, [[[1]], [[50]], [[0.01]]], (3, 5, 7))
    map_file.write(tmp_path, ["b/1.jpg", "a", "ü \u9ce5"], Maps.of(raw))
    ids, maps = map_file.read(tmp_path)
    assert ids == ["b/1.jpg", "a", "ü \u9ce5"]
    assert maps.values.dtype == np.uint8
    low, spread = maps.low[:, None, None], (maps.high - maps.low)[:, None, None]
    assert (abs(low + maps.values / 255 * spread - raw) <= spread * 0.51 / 255).all()
    assert (maps.values.min((1, 2)) == 0).all() and (maps.values.max((1, 2)) == 255).all()


def test_a_constant_map_and_one_that_is_not_finite() -> None:
    raw = np.stack([np.full((2, 2), 7.0), np.array([[np.nan, 1], [np.inf, 2]])])
    maps = Maps.of(raw)
    assert maps.values.tolist() == [[[0, 0], [0, 0]], [[0, 128], [0, 255]]]
    assert (maps.low.tolist(), maps.high.tolist()) == ([7, 0], [7, 2])


@pytest.mark.parametrize(("images", "side"), [(1, 224), (5794, 224), (50_000, 224), (50_000, 28)])
def test_the_grid_keeps_the_file_below_its_limit(images: int, side: int) -> None:
    height, width = map_file.grid(images, side, side)
    assert images * height * width <= map_file.LIMIT
    own = images * side * side <= map_file.LIMIT
    assert (height == side) == own
    assert own or images * (height + 1) * (width + 1) > map_file.LIMIT


def test_no_image_and_more_than_the_limit_holds() -> None:
    assert map_file.grid(0, 7, 9) == (7, 9)
    assert map_file.grid(10**9, 7, 9) == (1, 1)


def test_the_same_maps_are_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        map_file.write(tmp_path, ["a"], Maps.of(np.arange(6.0).reshape(1, 2, 3)))
        written.append((tmp_path / "maps.npz").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"maps\.npz does not exist; `dvc repro evaluate`"):
        map_file.read(tmp_path)
    (tmp_path / "maps.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"maps\.npz is damaged"):
        map_file.read(tmp_path)


def test_a_file_cut_short_is_damaged(tmp_path: Path) -> None:
    map_file.write(tmp_path, ["a"], Maps.of(np.random.default_rng(0).random((1, 40, 40))))
    whole = (tmp_path / "maps.npz").read_bytes()
    (tmp_path / "maps.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"maps\.npz is damaged"):
        map_file.read(tmp_path)
