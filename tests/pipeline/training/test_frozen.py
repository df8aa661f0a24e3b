"""A frozen trunk: what stays, what learns, and how long a training of few images is."""

from pathlib import Path

import pytest
import torch

from pipeline import params
from pipeline.backbones import build, load_weights
from pipeline.params import Params
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint, fingerprint, save_weights
from tests import tiny

BACKBONE = "timm:resnet18"  # random weights that still tell colours apart


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", {"train": 6, "val": 2})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "trunk.safetensors"
    save_weights(build(BACKBONE).trunk, path)
    return path


def settings_of(folder: Path, weights: Path, **changes: object) -> Params:
    given = {"backbone": BACKBONE, "weights": str(weights), "train__trunk": "frozen"}
    return params.load(tiny.write_params(folder, **{**given, **changes}))


@pytest.mark.parametrize("method", ["cam", "rcam", "ahd", "acol"])
def test_the_trunk_stays_and_the_rest_learns(
    tmp_path: Path, prepared: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    settings = settings_of(tmp_path, weights, method=method, train__epochs=4)
    checkpoint = Checkpoint.of(fingerprint(settings, prepared))
    model, history = loop.train(settings, prepared, checkpoint, loop.Progress())
    loaded = build(BACKBONE)
    load_weights(loaded, str(weights))
    before, after = loaded.trunk.state_dict(), model.backbone.trunk.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert history[-1]["train_loss"] < history[0]["train_loss"] + 1e-9
    assert history[-1]["val_loss"] > 0
    assert len(history) == (1 if method in ("cam", "rcam") else 4)


def test_the_same_head_whether_or_not_all_maps_fit(
    tmp_path: Path, prepared: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []
    for mib in (1, 4096):
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / str(mib)))
        (tmp_path / str(mib)).mkdir()
        settings = settings_of(tmp_path, weights, localize__features_mib=mib)
        checkpoint = Checkpoint.of(fingerprint(settings, prepared))
        model, history = loop.train(settings, prepared, checkpoint, loop.Progress())
        assert history[0]["train_accuracy"] > 80
        heads.append(model.classifier.weight)
    assert (heads[0] - heads[1]).abs().max() < 0.05 * heads[0].abs().max()


def test_few_images_get_more_epochs_and_frozen_ones_none(tmp_path: Path, weights: Path) -> None:
    settings = settings_of(tmp_path, weights, train__trunk="tuned", train__min_steps=100)
    given = settings.train  # 3 epochs of batches of 8
    longer = loop.long_enough(settings, 80).train
    assert (longer.epochs, longer.step_epochs) == (10, round(given.step_epochs * 10 / 3))
    assert loop.long_enough(settings, 8000).train == given
    frozen = settings_of(tmp_path, weights, train__min_steps=100)
    assert loop.long_enough(frozen, 80).train == frozen.train
