"""What every file of pipeline/localizers promises."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import localizers
from pipeline.localizers.base import Localizer
from tests.pipeline.localizers.builders import (
    CHANNELS,
    CLASSES,
    GRID,
    build,
    photographs,
    read,
    training,
)

NAMES = localizers.names()
OWN = [name for name in NAMES if name != "class_map"]


@pytest.fixture(scope="module", params=OWN)
def fitted(request: pytest.FixtureRequest) -> Localizer:
    return fit(request.param)


def fit(name: str) -> Any:
    features, labels, _ = photographs(24)
    more = {"epochs": 40, "batch_size": 4, "learning_rate": 0.01} if name == "c2am" else {}
    localizer = build(name, **more)
    localizer.fit(training(features, labels))
    return localizer.eval()


def test_every_file_is_a_localizer_and_all_are_tested() -> None:
    files = {p.stem for p in Path(localizers.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert set(NAMES) == files
    assert len(NAMES) == 7


def test_the_class_map_is_the_methods_own() -> None:
    assert build("class_map") is None


def test_maps_are_finite_the_same_every_time_and_keep_the_grids_shape(fitted: Localizer) -> None:
    features, _, _ = photographs(4, seed=1)
    given = {depth: x.clone() for depth, x in features.items()}
    classes = torch.tensor([[0, 2], [1, 1], [2, 0], [0, 1]])
    maps = read(fitted, features, classes)
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all()
    if fitted.regresses:
        x0, y0, x1, y1 = maps.unbind(2)
        assert maps.shape == (4, 2, 4) and maps.min() >= 0 and maps.max() <= 1
        assert (x0 < x1).all() and (y0 < y1).all()
    else:
        assert maps.shape == (4, 2, *GRID)
        assert (maps.amax((2, 3)) > maps.amin((2, 3))).all()
    assert torch.equal(maps, read(fitted, features, classes))
    assert all(torch.equal(given[depth], x) for depth, x in features.items())


def test_the_object_is_what_is_above_zero(fitted: Localizer) -> None:
    if fitted.regresses:
        pytest.skip("pooled features of these images do not say where the object is")
    features, labels, masks = photographs(12, seed=2)
    maps = read(fitted, features, labels[:, None])
    found = torch.nn.functional.interpolate(maps, masks.shape[1:])[:, 0] > 0
    overlap = (found & masks).sum((1, 2)) / (found | masks).sum((1, 2))
    assert overlap.mean() > 0.35, overlap  # the last map is blurred by a cell


def test_an_image_alone_gets_the_map_it_gets_in_a_batch(fitted: Localizer) -> None:
    features, labels, _ = photographs(4, seed=1)
    maps = read(fitted, features, labels[:, None])
    alone = read(fitted, {depth: x[2:3] for depth, x in features.items()}, labels[2:3, None])
    assert torch.allclose(alone, maps[2:3], rtol=1e-4, atol=1e-5)


def test_constant_features_give_finite_maps(fitted: Localizer) -> None:
    features = {depth: torch.ones(1, channels, *GRID) for depth, channels in CHANNELS.items()}
    maps = read(fitted, features, torch.zeros(1, 1, dtype=torch.int64))
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize("name", OWN)
def test_fitting_twice_gives_the_same_bytes(name: str) -> None:
    first, second = fit(name).state_dict(), fit(name).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_saved_state_reads_the_same(fitted: Localizer, tmp_path: Path) -> None:
    name = type(fitted).__module__.rpartition(".")[2]
    path = tmp_path / "localizer.safetensors"
    save_file({key: value.contiguous() for key, value in fitted.state_dict().items()}, path)
    other = build(name).eval()
    other.load_state_dict(load_file(path))
    features, labels, _ = photographs(3, seed=1)
    maps = read(fitted, features, labels[:, None])
    assert torch.equal(maps, read(other, features, labels[:, None]))


@pytest.mark.parametrize("name", OWN)
def test_classes_without_images_and_a_single_image_are_no_error(name: str) -> None:
    features, _, _ = photographs(1)
    localizer = build(name)
    localizer.fit(training(features, torch.tensor([1])))
    localizer.eval()
    for label in range(CLASSES):
        assert torch.isfinite(read(localizer, features, torch.tensor([[label]]))).all()
