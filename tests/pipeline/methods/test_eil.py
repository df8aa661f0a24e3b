"""EIL: the erased streams by hand, and its law: nothing erased is CAM, counted once per stream."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.layers import hiding
from tests.pipeline.methods.builders import build, like

IMAGES, LABELS = torch.randn(4, 3, 32, 48), torch.tensor([0, 1, 2, 3])


def frozen(model: torch.nn.Module) -> torch.nn.Module:
    """In training, but with batch norms that do not look at the batch."""
    for module in model.train().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


@pytest.mark.parametrize("points", [["stride16_early"], ["stride8", "stride16_early"]])
def test_nothing_erased_is_cam(points: list[str]) -> None:
    model = frozen(build("eil", plug_points=points, erase_threshold=1.1, weight=0.5))
    outputs = model(IMAGES, LABELS)
    expected = frozen(like(model, "cam"))(IMAGES).logits  # type: ignore[arg-type]
    for logits in (outputs.logits, *outputs.extras.values()):
        torch.testing.assert_close(logits, expected)
    loss = model.loss(outputs, LABELS, F.cross_entropy)  # type: ignore[operator]
    plain = F.cross_entropy(expected, LABELS)
    torch.testing.assert_close(loss, (1 + 0.5 * len(points)) * plain)


def test_each_point_erases_the_stream_before_it() -> None:
    model = frozen(build("eil", plug_points=["stride8", "stride16_early"], erase_threshold=0.7))
    outputs, backbone = model(IMAGES, LABELS), model.backbone
    seen = {}

    def watch(point: str, features: torch.Tensor) -> torch.Tensor:
        seen[point] = features
        return features

    def erased(features: torch.Tensor) -> torch.Tensor:
        return features * (features.mean(1, True) < 0.7 * features.mean(1, True).amax((2, 3), True))

    backbone(IMAGES, watch)  # type: ignore[operator]
    first = backbone(erased(seen["stride8"]), watch, after="stride8")  # type: ignore[operator]
    second = backbone(erased(seen["stride16_early"]), after="stride16_early")  # type: ignore[operator]
    for point, features in (("stride8", first), ("stride16_early", second)):
        logits = model.classifier(features.mean((2, 3)))  # type: ignore[operator]
        torch.testing.assert_close(outputs.extras[point], logits)


def test_evaluation_is_one_pass_of_cam() -> None:
    model = build("eil").eval()
    outputs = model(IMAGES)
    assert outputs.extras == {}
    assert torch.equal(outputs.logits, like(model, "cam")(IMAGES).logits)
    assert hiding.drop_mask(torch.ones(1, 1, 2, 2), 1.1).all()
