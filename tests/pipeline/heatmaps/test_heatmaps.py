"""Heatmaps by name: values by hand, plain-loop references, the laws between them, and every method under each."""

import copy
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline import boxes, heatmaps, methods
from pipeline.errors import UserError
from pipeline.methods.base import Method, Outputs
from pipeline.params import Heatmaps
from pipeline.params.settings import HeatmapName
from tests.pipeline.methods.builders import build

NAMES = ("cam", "gradcam", "gradcam++", "smooth_gradcam++", "scorecam", "layercam")
SETTINGS = Heatmaps(layer="last", samples=3, noise=0.15, channels=0, batch_size=7)
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([[4, 0], [1, 1]])


def trained(name: str = "cam", backbone: str = "vgg_small") -> Method:
    """A model in evaluation mode whose batch norm has seen images, so that its maps are not all noise."""
    model = build(name, backbone).train()
    for _ in range(3):
        model(*model.on_batch(IMAGES, torch.tensor([0, 1]), torch.Generator().manual_seed(0)))
    return model.eval()


def maps_of(
    model: Method, name: str, settings: Heatmaps = SETTINGS, images: Tensor = IMAGES
) -> Tensor:
    with torch.no_grad():
        outputs = model(images)
        return heatmaps.class_maps(name, settings, model, images, outputs, CLASSES[: len(images)])


def test_all_that_params_allow_is_tested() -> None:
    assert get_args(HeatmapName) == NAMES


# --- the weights, by hand --------------------------------------------------------------------

A = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]])  # sums 4 and 2
G = torch.tensor([[[[1.0, 0.0], [-1.0, 2.0]], [[0.0, -1.0], [0.5, 0.5]]]])  # means 0.5 and 0


def test_gradcam_by_hand() -> None:
    assert heatmaps.gradcam(A, G).tolist() == [[[0.5, 1.0], [0.0, 0.5]]]


def test_layercam_by_hand() -> None:
    assert heatmaps.layercam(A, G).tolist() == [[[1.0, 0.0], [0.5, 2.0]]]


def test_gradcam_pp_by_hand() -> None:
    """The denominator is 2g² + (Σ A)·g³, as in Eq. 19: torch-cam's Σ (A·g³), with each pixel's own gradient
    inside the sum, is 2 + (1 + 0 + 8) instead of 2 + 4 at the first pixel, and another map.
    """
    # k = 0: g = 1: 1/(2 + 4) · 1; g = 2: 4/(8 + 32) · 2.   k = 1: g = 0.5, twice: 0.25/(0.5 + 0.25) · 0.5
    first, second = 1 / 6 + 0.2, 2 * 0.5 / 3
    expected = first * A[:, 0] + second * A[:, 1]
    torch.testing.assert_close(heatmaps.gradcam_pp(A, G), expected)


def test_gradcam_pp_is_finite_where_the_gradient_is_zero() -> None:
    assert heatmaps.gradcam_pp(A, torch.zeros_like(A)).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("scale", [1e-9, 1e-30])
def test_gradcam_pp_of_gradients_too_small_for_their_third_power(scale: float) -> None:
    """With (Σ A)·g far below 2, α is ½: half of relu(g)'s sum weighs each channel."""
    expected = (G.relu().sum((2, 3), keepdim=True) / 2 * A).sum(1)
    torch.testing.assert_close(heatmaps.gradcam_pp(A, G * scale) / scale, expected)


def test_ivr_by_hand() -> None:
    maps = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [[7.0] * 3] * 2])
    seen = boxes.ivr(maps, 0.4)  # the 0.4 quantile of 0…5 is 2
    torch.testing.assert_close(seen[0], torch.tensor([[0.0, 0.0, 0.0], [1 / 3, 2 / 3, 1.0]]))
    assert seen[1].tolist() == [[0.0] * 3] * 2
    torch.testing.assert_close(boxes.ivr(maps, 0.0), boxes.normalise(maps))


# --- against plain loops on a network --------------------------------------------------------


def test_gradcam_is_cam_by_area_where_pooling_and_a_linear_layer_follow() -> None:
    model = trained()
    cam = maps_of(model, "cam")
    area = cam.shape[2] * cam.shape[3]
    torch.testing.assert_close(maps_of(model, "gradcam"), cam.relu() / area, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", ["last", "stride16_early", "stride16_late"])
@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "layercam"])
def test_gradients_as_one_image_and_class_at_a_time(name: str, layer: str) -> None:
    model = trained()
    seen = maps_of(model, name, SETTINGS.model_copy(update={"layer": layer}))
    for i, row in enumerate(CLASSES.tolist()):
        for q, label in enumerate(row):
            at: list[Tensor] = []
            points = {}

            def keep(point: str, x: Tensor, points: dict[str, Tensor] = points) -> Tensor:
                points[point] = x
                return x

            features = model.backbone(IMAGES[[i]], keep)
            at.append(points[layer])
            (g,) = torch.autograd.grad(model.head(features, None).logits[0, label], at[0])
            expected = torch.zeros_like(at[0][0, 0])
            for a, slope in zip(at[0][0], g[0], strict=True):
                if name == "gradcam":
                    expected += slope.mean() * a
                elif name == "layercam":
                    expected += slope.clamp_min(0) * a
                else:
                    weight = torch.zeros(())
                    for value in slope.flatten().tolist():
                        below = 2 * value**2 + a.sum().item() * value**3
                        if value > 0:
                            weight += value**2 / below * value
                    expected += weight * a
            expected = expected.relu().detach()
            scale = expected.max().item() + 1e-9
            torch.testing.assert_close(seen[i, q] / scale, expected / scale, rtol=1e-3, atol=1e-3)


def test_smooth_gradcam_pp_is_the_mean_over_noisy_copies() -> None:
    model = trained()
    copies = heatmaps.noisy_copies(IMAGES, SETTINGS)
    assert copies.shape == (3, *IMAGES.shape)
    spread = IMAGES.amax((1, 2, 3)) - IMAGES.amin((1, 2, 3))
    noise = (copies - IMAGES) / spread[:, None, None, None]
    torch.testing.assert_close(noise[:, 0], noise[:, 1], rtol=1e-3, atol=1e-4)
    assert abs(noise.std().item() / 0.15 - 1) < 0.05
    expected = torch.stack([maps_of(model, "gradcam++", images=x) for x in copies]).mean(0)
    torch.testing.assert_close(maps_of(model, "smooth_gradcam++"), expected)


@pytest.mark.parametrize("channels", [0, 5])
def test_scorecam_as_one_mask_at_a_time(channels: int) -> None:
    model = trained()
    seen = maps_of(model, "scorecam", SETTINGS.model_copy(update={"channels": channels}))
    with torch.no_grad():
        features = model(IMAGES).features
        for i, row in enumerate(CLASSES.tolist()):
            order = features[i].mean((1, 2)).sort(descending=True).indices.tolist()
            chosen = order[: channels or None]
            logits = []
            for k in chosen:
                up = F.interpolate(
                    features[i, k][None, None],
                    IMAGES.shape[2:],
                    mode="bilinear",
                    align_corners=False,
                )
                span = up.max() - up.min()
                mask = (up - up.min()) / span if span > 0 else torch.zeros_like(up)
                logits.append(model(IMAGES[[i]] * mask).logits[0])
            for q, label in enumerate(row):
                weights = torch.stack([row[label] for row in logits]).softmax(0)
                expected = sum(w * features[i, k] for w, k in zip(weights, chosen, strict=True))
                torch.testing.assert_close(seen[i, q], expected.relu(), rtol=1e-3, atol=1e-5)  # type: ignore[union-attr]


# --- what holds for all ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=methods.names())
def model(request: pytest.FixtureRequest) -> Method:
    return trained(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_any_heatmap_of_any_method_and_the_model_is_left_as_it_was(
    model: Method, name: str
) -> None:
    settings = SETTINGS.model_copy(update={"channels": 8})
    before = copy.deepcopy(model.state_dict())
    maps = maps_of(model, name, settings)
    assert maps.shape[:2] == CLASSES.shape and maps.shape[2] * 48 == maps.shape[3] * 32
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all()
    assert not maps.requires_grad
    assert torch.equal(maps, maps_of(model, name, settings))
    scale = maps.amax().item() + 1e-9
    alone = maps_of(model, name, settings, IMAGES[:1])
    torch.testing.assert_close(alone / scale, maps[:1] / scale, rtol=1e-3, atol=1e-3)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_plug_point_of_any_method(model: Method) -> None:
    maps = maps_of(model, "layercam", SETTINGS.model_copy(update={"layer": "stride16_early"}))
    assert torch.isfinite(maps).all() and maps.amax() > 0


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("name", NAMES)
def test_any_backbone_and_plug_point(backbone: str, name: str) -> None:
    model = trained("cam", backbone)
    layers = ("last",) if name in ("cam", "scorecam") else model.backbone.points[-2:]
    for layer in layers:
        settings = SETTINGS.model_copy(update={"layer": layer, "channels": 4})
        heatmaps.check(name, settings)
        maps = maps_of(model, name, settings)
        assert maps.shape[:2] == CLASSES.shape and torch.isfinite(maps).all()


def test_the_cost_is_said() -> None:
    def cost(name: str, **changes: object) -> int:
        return heatmaps.passes(name, SETTINGS.model_copy(update=changes), 128)

    assert [cost(name) for name in NAMES] == [1, 1, 1, 4, 129, 1]
    assert cost("scorecam", channels=64) == 65
    assert cost("scorecam", channels=999) == 129
    assert cost("layercam", layer="stride16_early") == 2


def test_a_layer_that_will_not_do() -> None:
    with pytest.raises(UserError) as caught:
        heatmaps.check("scorecam", SETTINGS.model_copy(update={"layer": "stride16_early"}))
    assert str(caught.value) == (
        "params.yaml: heatmaps.layer is 'stride16_early', which scorecam cannot use; "
        "allowed: last, or heatmap gradcam, gradcam++, smooth_gradcam++, layercam"
    )


def test_what_the_model_said_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient heatmaps of the last map need no second forward pass through the trunk."""
    model = trained()
    with torch.no_grad():
        outputs: Outputs = model(IMAGES)
    monkeypatch.setattr(model.backbone, "forward", None)
    for name in ("gradcam", "gradcam++", "layercam"):
        heatmaps.class_maps(name, SETTINGS, model, IMAGES, outputs, CLASSES)
