"""Localizers fitted to a trained model: every pair with a method, the samples, resuming, saving."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import localizers, methods, packed, params
from pipeline.errors import UserError
from pipeline.evaluation import evaluator
from pipeline.methods.base import Method
from pipeline.model import features, fitting
from pipeline.model.localizer import load
from pipeline.model.reader import Reader, resolve
from pipeline.params import CLASS_MAP, Params
from tests import tiny
from tests.pipeline.methods.builders import params as method_params

LOCALIZERS = [name for name in localizers.names() if name != CLASS_MAP]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", {"train": 4, "test": 2})


@pytest.fixture(autouse=True)
def _own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def settings_of(folder: Path, **changes: object) -> Params:
    return params.load(tiny.write_params(folder, **{"input__crop": 64, **changes}), localizer=True)


def model_of(name: str, backbone: str = "vgg_small") -> Method:
    torch.manual_seed(0)
    changes = {"width": 16} if hasattr(method_params(name), "width") else {}
    return methods.build(name, backbone, "none", 3, method_params(name, **changes)).eval()


def fitted(model: Method, prepared: Path, settings: Params, said: list[str]) -> Path:
    folder = fitting.fit(model, "0" * 64, prepared, settings, say=said.append)
    assert folder is not None
    return folder


@pytest.mark.parametrize("method", methods.names())
@pytest.mark.parametrize("localizer", LOCALIZERS)
def test_every_localizer_reads_boxes_off_every_method(
    tmp_path: Path, prepared: Path, method: str, localizer: str
) -> None:
    settings = settings_of(tmp_path, method=method, localizer=localizer)
    model = model_of(method)
    found = load(fitted(model, prepared, settings, []), model)
    reader = Reader(model, resolve(settings, model, 64, found), found)
    assert reader.reading.localizer == localizer
    scoring = evaluator.Scoring.of(settings)
    seen = evaluator.evaluate(reader, prepared, "test", scoring)
    boxes = seen.boxes_predicted
    assert boxes.shape == (6, 4) and np.isfinite(boxes).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 64


def test_there_are_pairs() -> None:
    assert len(LOCALIZERS) == 6 and len(methods.names()) >= 15


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50", "mobilenet_v2", "timm:test_vit"])
@pytest.mark.parametrize("localizer", LOCALIZERS)
def test_every_localizer_reads_every_backbone(
    tmp_path: Path, prepared: Path, backbone: str, localizer: str
) -> None:
    settings = settings_of(tmp_path, backbone=backbone, localizer=localizer)
    model = model_of("cam", backbone)
    found = load(fitted(model, prepared, settings, []), model)
    reader = Reader(model, resolve(settings, model, 64, found), found)
    maps = reader.read(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert torch.isfinite(maps.raw).all() and maps.boxes(0).boxes.shape == (2, 4)


def test_the_same_fit_is_done_once_and_another_again(tmp_path: Path, prepared: Path) -> None:
    model, said = model_of("cam"), list[str]()
    settings = settings_of(tmp_path, localizer="foreground")
    first = fitted(model, prepared, settings, said)
    state = (first / "localizer.safetensors").read_bytes()
    assert said == []
    again = fitted(model, prepared, settings, said)
    assert again == first and said == ["the same localizer is fitted already; it is taken"]
    for changes in ({"localizers__foreground__rounds": 0}, {"seed": 1}):
        said.clear()
        other = settings_of(tmp_path, localizer="foreground", **changes)
        assert fitted(model, prepared, other, said) != first and said == []
    (first / "localizer.json").unlink()
    assert (fitted(model, prepared, settings, []) / "localizer.safetensors").read_bytes() == state


def test_a_pass_that_was_cut_short_is_resumed(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, evaluate__batch_size=3)
    source = features.of_trunk(model_of("cam").backbone, settings)
    images = features.chosen([(source, ["last"])], prepared, settings)
    passes: list[int] = []

    def stop_at_second(done: int, total: int) -> None:
        passes.append(done)
        if done == 6:
            raise KeyboardInterrupt

    def collect(progress: features.Progress) -> torch.Tensor:
        with features.collected(
            source, ["last"], images, prepared, settings, say=print, progress=progress
        ) as maps:
            return maps("last", slice(None))

    with pytest.raises(KeyboardInterrupt):
        collect(stop_at_second)
    resumed = collect(lambda done, total: passes.append(done))
    assert passes == [0, 3, 6, 6, 9, 12]
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "other"))
    assert torch.equal(resumed, collect(lambda done, total: None))


def test_of_more_images_than_fit_an_even_sample_of_each_class_is_taken() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 20)
    chosen = features.sample(labels, 15, seed=0)
    assert labels[chosen].bincount().tolist() == [6, 3, 6]
    assert chosen.unique().shape == chosen.shape
    assert torch.equal(chosen, features.sample(labels, 15, seed=0))
    assert not torch.equal(chosen, features.sample(labels, 15, seed=1))
    assert sorted(features.sample(labels, 1000, seed=0).tolist()) == list(range(73))


def test_disk_bounds_the_images(tmp_path: Path, prepared: Path) -> None:
    settings = settings_of(tmp_path, localize__features_mib=1, input__resize=256, input__crop=256)
    source = features.of_trunk(model_of("cam").backbone, settings)
    # 128 channels of 32 × 32 cells are a quarter of a MiB.
    assert len(features.chosen([(source, ["last"])], prepared, settings)) == 4


def test_a_localizer_of_another_model_is_one_line(tmp_path: Path, prepared: Path) -> None:
    settings = settings_of(tmp_path, localizer="foreground")
    folder = fitted(model_of("cam"), prepared, settings, [])
    with pytest.raises(UserError, match="holds no localizer that fits the model"):
        load(folder, model_of("cam", "mobilenet_v2"))
    (folder / "localizer.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="dvc repro localize"):
        load(folder, model_of("cam"))
    with pytest.raises(UserError, match="holds no localizer"):
        load(tmp_path / "nowhere", model_of("cam"))


def test_fitting_opens_no_box(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed.Split, "boxes", property(lambda self: pytest.fail("a box was read")))
    settings = settings_of(tmp_path, localizer="psol")
    fitted(model_of("cam"), prepared, settings, [])
