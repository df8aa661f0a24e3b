"""SPG: seeds and guidance by hand, who teaches whom, and that only the trunk is asked in evaluation."""

import torch
import torch.nn.functional as F

from pipeline.layers import class_maps
from pipeline.methods import spg
from tests.pipeline.methods.builders import build, like

IMAGES, LABELS = torch.randn(2, 3, 32, 48), torch.tensor([4, 0])


def test_seeds_by_hand() -> None:
    maps = torch.tensor([[[[0.9, 0.7, 0.3], [0.04, 0.05, 0.8]]]])
    label, counted = spg.seeds(maps, 0.7, 0.05, 2)
    assert label.long().tolist() == [[[[1, 0, 0], [0, 0, 1]]]]
    assert counted.long().tolist() == [[[[1, 0, 0], [1, 0, 1]]]]  # above, or below: both strictly


def test_the_fallback_threshold_is_each_images_own() -> None:
    """The authors' code keeps the threshold it lowered for one image for all that follow in the batch: the
    second image here would get 0.35 and two object pixels instead of one.
    """
    maps = torch.tensor([[[[0.5, 0.4, 0.1]]], [[[0.9, 0.6, 0.1]]]])
    label, _ = spg.seeds(maps, 0.7, 0.05, 1)
    assert label.long().tolist() == [[[[1, 1, 0]]], [[[1, 0, 0]]]]


def test_background_overrules() -> None:
    maps = torch.tensor(
        [[[[0.02, 0.01]]]]
    )  # the fallback, 0.014, is below the background's threshold
    label, counted = spg.seeds(maps, 0.7, 0.05, 1)
    assert not label.any() and counted.all()


def test_guidance_counts_seeds_only() -> None:
    logits = torch.tensor([[[[0.0, 2.0, -1.0, 50.0]]]])
    label = torch.tensor([[[[True, True, False, False]]]])
    counted = torch.tensor([[[[True, True, True, False]]]])
    expected = (
        torch.tensor(0.5).log().neg()
        + F.softplus(torch.tensor(-2.0))
        + F.softplus(torch.tensor(-1.0))
    ) / 3
    torch.testing.assert_close(spg.guided(logits, label, counted), expected)
    assert spg.guided(logits, label, torch.zeros_like(counted)) == 0


def test_who_teaches_whom() -> None:
    model = build("spg").train()
    outputs = model(IMAGES, LABELS)
    params = model.params
    up = F.interpolate(
        model.class_maps(outputs, LABELS[:, None]), (32, 48), mode="bilinear", align_corners=False
    )
    b1, b2, c = (outputs.extras[name] for name in ("b1", "b2", "c"))
    mean = (b1.sigmoid() + b2.sigmoid()) / 2
    expected = F.cross_entropy(outputs.logits, LABELS)
    few = params.min_pixels * 32 * 48 / 224**2  # type: ignore[attr-defined]
    for k, (branch, teacher) in enumerate(
        [(b2, class_maps.min_max(up)), (b1, b2.sigmoid()), (c, mean)]
    ):
        label, counted = spg.seeds(teacher, params.high[k], params.low[k], few)  # type: ignore[attr-defined]
        if counted.any():
            each = F.binary_cross_entropy(branch.sigmoid(), label.float(), reduction="none")
            expected = expected + each[counted].mean()
    torch.testing.assert_close(
        model.loss(outputs, LABELS, F.cross_entropy), expected, rtol=1e-4, atol=1e-4
    )


def test_guidance_teaches_no_teacher() -> None:
    model = build("spg").train()
    outputs = model(IMAGES, LABELS)
    teacher = outputs.extras["b2"].sigmoid()
    label, counted = spg.seeds(teacher, 0.7, 0.05, 0)
    spg.guided(outputs.extras["b1"], label, counted).backward()
    assert all(p.grad is None for p in model.last.parameters())
    second = model.private[model.params.plug_points[1]]  # type: ignore[attr-defined,index]
    assert all(p.grad is None for p in second.parameters())


def test_evaluation_is_cams() -> None:
    model = build("spg").eval()
    cam = build("cam").eval()
    cam.load_state_dict(model.state_dict(), strict=False)
    classes = torch.tensor([[0, 3], [1, 1]])
    torch.testing.assert_close(
        model.class_maps(model(IMAGES), classes), cam.class_maps(cam(IMAGES), classes)
    )
    assert not model(IMAGES).extras
    assert like(model, "spg").training is False
