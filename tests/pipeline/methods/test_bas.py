"""BAS: the suppression ratio by hand, the loss from its parts, and a rest of the network that does not learn."""

import copy

import pytest
import torch
import torch.nn.functional as F

from pipeline.methods import bas
from tests.pipeline.methods.builders import build

IMAGES, LABELS = torch.randn(2, 3, 32, 48), torch.tensor([4, 0])


def test_suppression_by_hand() -> None:
    background = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
    score = torch.tensor([4.0, 2.0, 2.0], requires_grad=True)
    ratio = bas.suppression(background, score)
    torch.testing.assert_close(ratio.detach(), torch.tensor([0.25, 0.0, 0.0]))
    ratio.sum().backward()
    torch.testing.assert_close(background.grad, torch.tensor([0.25, 0.0, 0.0]))
    assert score.grad is None  # the object's score is a constant: it is not to fall


def test_the_loss_from_its_parts() -> None:
    model = build("bas", area_weight=0.7, foreground_weight=0.5).train()
    outputs = model(IMAGES, LABELS)
    mask = outputs.extras["mask"]
    for i, label in enumerate(LABELS.tolist()):
        assert torch.equal(mask[i, 0], outputs.extras["masks"][i, label])
    score = outputs.logits[range(2), LABELS]
    background = outputs.extras["background"][range(2), LABELS]
    ratio = [b / s if b < s else 0 * b for b, s in zip(background, score.detach(), strict=True)]
    maps = outputs.extras["maps"]
    inside = (maps * F.adaptive_avg_pool2d(mask, maps.shape[2:])).mean((2, 3))
    expected = (
        F.cross_entropy(outputs.logits, LABELS)
        + 0.5 * F.cross_entropy(inside, LABELS)
        + torch.stack(ratio).mean()
        + 0.7 * mask.mean()
    )
    torch.testing.assert_close(model.loss(outputs, LABELS, F.cross_entropy), expected)


@pytest.mark.parametrize(
    ("progress", "acts"), [(0.0, False), (0.24, False), (0.25, True), (0.9, True)]
)
def test_the_mask_begins_once_the_classifier_has(progress: float, acts: bool) -> None:
    """Before, only the mask's area would count, since the background's score exceeds the image's."""
    model = build("bas", mask_start=0.25).train()
    model.begin_epoch(progress)
    outputs = model(IMAGES, LABELS)
    loss = model.loss(outputs, LABELS, F.cross_entropy)
    plain = F.cross_entropy(outputs.logits, LABELS)
    assert torch.equal(loss, plain) is not acts
    assert ("background" in outputs.extras) is acts


def test_the_background_teaches_the_mask_alone() -> None:
    model = build("bas").train()
    model(IMAGES, LABELS).extras["background"].sum().backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"generator.weight", "generator.bias"} <= learns
    trunk = [name for name in learns if "first" in name]
    assert not trunk, "the head behind the mask is a constant to it"


def test_the_statistics_see_the_whole_images_only() -> None:
    torch.manual_seed(1)
    model = build("bas").train()
    other = copy.deepcopy(model)
    model(IMAGES, LABELS)
    other(IMAGES)  # without labels there is no second pass
    for (name, ours), theirs in zip(model.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_nothing_left_out_is_the_whole_network() -> None:
    model = build("bas").eval()
    features = []
    model.backbone(IMAGES, lambda point, x: features.append(x) or x if point == model.point else x)  # type: ignore[func-returns-value,attr-defined]
    rest = model._frozen_rest(features[0])  # type: ignore[attr-defined]
    torch.testing.assert_close(rest, model(IMAGES).logits)


@pytest.mark.parametrize("top_classes", [0, 2, 80])
def test_the_heatmap_is_a_mask_or_the_mean_of_the_best_classes(top_classes: int) -> None:
    model = build("bas", top_classes=top_classes).eval()
    outputs = model(IMAGES)
    classes = torch.tensor([[0, 3], [1, 1]])
    maps = model.class_maps(outputs, classes)
    masks = outputs.extras["masks"]
    for i, row in enumerate(classes.tolist()):
        for q, label in enumerate(row):
            best = outputs.logits[i].argsort(descending=True)[:top_classes]
            expected = masks[i, best].mean(0) if top_classes else masks[i, label]
            torch.testing.assert_close(maps[i, q], expected)
