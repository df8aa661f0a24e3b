"""ASS: which maps are hidden where, and the settings under which it is CAM."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.layers import hiding
from pipeline.methods.base import Method
from pipeline.params.plug_points import POINTS
from tests.pipeline.methods.builders import build, like

# Everything is passed: nothing is dispersed, and every target has a share of peak pixels.
HIDES_NOTHING: dict[str, Any] = {"dispersion_threshold": 1e9, "peak_proportion": 0.0}


def images() -> Tensor:
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(5))


def features(channels: int = 32, size: tuple[int, int] = (7, 10), count: int = 24) -> Tensor:
    """Feature maps from flat to peaked, so that every branch is taken."""
    generator = torch.Generator().manual_seed(6)
    shape = torch.rand(count, 1, *size, generator=generator) ** torch.linspace(0.2, 12, count).view(
        -1, 1, 1, 1
    )
    return shape * (0.9 + 0.2 * torch.rand(count, channels, *size, generator=generator))


def strategy(model: Method) -> hiding.Strategy:
    assert isinstance(model.params, hiding.Strategy)
    return model.params


def test_features_are_multiplied_by_the_selected_mask() -> None:
    model = build("ass", dispersion_threshold=9.0).train()
    F = features()
    mask, branch = hiding.select(hiding.attention_map(F), strategy(model), 1.0)
    assert set(branch.tolist()) == {0, 1, 2}
    assert torch.equal(model.on_feature("stride8", F, None, 1.0), F * mask)
    assert model.statistics() == {
        f"ass/stride8/{name}": (branch == index).sum().item() / len(F)
        for index, name in enumerate(hiding.BRANCHES)
    }


def test_always_hides_the_peak_of_every_map() -> None:
    model = build("ass", selection="always").train()
    F = features()
    mask = hiding.drop_mask(hiding.attention_map(F), 0.8)
    assert torch.equal(model.on_feature("stride16_early", F, None, 1.0), F * mask)
    assert not mask.flatten(1).all(1).any()
    assert model.statistics()["ass/stride16_early/hidden"] == 1.0


def test_masks_are_constants_to_the_gradient() -> None:
    model = build("ass", dispersion_threshold=9.0).train()
    F = features().requires_grad_()
    mask, _ = hiding.select(hiding.attention_map(F), strategy(model), 1.0)
    model.on_feature("stride8", F, None, 1.0).sum().backward()
    assert F.grad is not None and torch.equal(F.grad, mask.expand_as(F).float())


def test_other_points_are_left_alone() -> None:
    model = build("ass", plug_points=["stride16_early"]).train()
    F = features()
    assert model.on_feature("stride8", F, None, 1.0) is F


def test_half_precision_stays_half_precision() -> None:
    model = build("ass").train()
    assert model.on_feature("stride8", features().bfloat16(), None, 1.0).dtype == torch.bfloat16


@pytest.mark.parametrize("changes", [HIDES_NOTHING, {"plug_points": []}])
def test_hiding_nothing_is_cam(changes: dict[str, Any]) -> None:
    model = build("ass", **changes).train()
    cam = like(model, "cam")
    assert torch.equal(model(images()).logits, cam(images()).logits)


def test_it_does_hide_in_training() -> None:
    model = build("ass", selection="always").train()
    assert not torch.equal(model(images()).logits, like(model, "cam")(images()).logits)


@pytest.mark.parametrize("selection", ["strategy", "always"])
def test_evaluation_is_cam(selection: str) -> None:
    model = build("ass", selection=selection, plug_points=POINTS).eval()
    cam = like(model, "cam")
    classes = torch.tensor([[0, 1], [2, 3], [4, 0]])
    outputs, expected = model(images()), cam(images())
    assert torch.equal(outputs.logits, expected.logits)
    assert torch.equal(model.class_maps(outputs, classes), cam.class_maps(expected, classes))
