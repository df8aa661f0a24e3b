"""MCI, as reconstructed: complementary halves, the modules that let them help each other, fusion by hand."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.layers import class_maps
from pipeline.methods import mci
from tests.pipeline.methods.builders import build

IMAGES, LABELS = torch.randn(2, 3, 32, 48), torch.tensor([4, 0])


def test_the_halves_are_complementary() -> None:
    model = build("mci", cell_sizes=[46])  # 8 pixels of 32 × 48
    images, targets = model.on_batch(IMAGES, LABELS, torch.Generator().manual_seed(0))
    first, second = images.chunk(2)
    assert torch.equal(first + second, IMAGES)
    shown, other = ((half != 0).any(1) for half in (first, second))
    assert not (shown & other).any() and (shown | other).all()
    cells = shown.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).float().mean(3)
    assert set(cells.flatten().tolist()) == {0.0, 1.0}  # whole cells
    assert torch.equal(targets, torch.tensor([4, 0, 4, 0]))


def test_all_cells_in_one_half_leave_the_other_empty() -> None:
    model = build("mci", probability=0.0)
    images, _ = model.on_batch(IMAGES, LABELS, torch.Generator().manual_seed(0))
    assert torch.equal(images[:2], IMAGES) and not images[2:].any()


def test_channel_assist_by_hand() -> None:
    assist = mci.ChannelAssist(2, reduction=2)
    squeeze, _, excite, _ = assist.excite
    with torch.no_grad():
        squeeze.weight.copy_(torch.tensor([[1.0, -1.0]]))
        squeeze.bias.zero_()
        excite.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        excite.bias.copy_(torch.tensor([0.0, 1.0]))
    features = torch.ones(1, 2, 1, 1)
    other = torch.tensor([[[[4.0, 2.0]], [[1.0, 0.0]]]])  # means 3 and 0.5: squeezed to 2.5
    weights = torch.sigmoid(torch.tensor([2.5, -4.0]))
    torch.testing.assert_close(assist(features, other).flatten(), 1 + weights)


def test_fusion_by_hand() -> None:
    first = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    second = torch.tensor([[[0.5, 0.2]]], requires_grad=True)
    loss = mci.fusion(first, second)  # the union is 1, 0.2
    assert loss.item() == pytest.approx((0.2**2 / 2 + 0.5**2 / 2) / 2)
    loss.backward()
    torch.testing.assert_close(first.grad, torch.tensor([[[0.0, -0.1]]]))


def test_each_half_is_helped_by_the_other() -> None:
    model = build("mci").train()
    images, targets = model.on_batch(IMAGES, LABELS, torch.Generator().manual_seed(0))
    outputs = model(images, targets)
    one, two = outputs.features.chunk(2)
    with torch.no_grad():
        first = model.first(model.attend(model.assist(one, two)))  # type: ignore[operator]
        second = model.second(model.attend(model.assist(two, one)))  # type: ignore[operator]
    torch.testing.assert_close(outputs.extras["first"].detach(), first)
    torch.testing.assert_close(outputs.extras["second"].detach(), second)
    expected = torch.cat([first.mean((2, 3)), second.mean((2, 3))])
    torch.testing.assert_close(outputs.logits.detach(), expected)


@pytest.mark.parametrize(("progress", "fuses"), [(0.0, False), (0.19, False), (0.2, True)])
def test_the_loss_and_when_fusion_begins(progress: float, fuses: bool) -> None:
    model = build("mci", fusion_weight=0.5).train()
    model.begin_epoch(progress)
    images, targets = model.on_batch(IMAGES, LABELS, torch.Generator().manual_seed(0))
    outputs = model(images, targets)
    halves = outputs.logits.chunk(2)
    expected = sum(F.cross_entropy(half, LABELS) for half in halves)
    if fuses:
        maps = [
            class_maps.min_max(outputs.extras[n][range(2), LABELS].relu())
            for n in ("first", "second")
        ]
        expected = expected + 0.5 * mci.fusion(*maps)
    torch.testing.assert_close(model.loss(outputs, targets, F.cross_entropy), expected)


def test_the_heatmap_is_the_larger_of_both_for_any_class() -> None:
    model = build("mci").eval()
    outputs = model(IMAGES)
    classes = torch.tensor([[0, 3], [1, 1]])
    maps = model.class_maps(outputs, classes)
    for i, row in enumerate(classes.tolist()):
        for q, label in enumerate(row):
            both = [
                class_maps.min_max(outputs.extras[n][i, label].relu()) for n in ("first", "second")
            ]
            torch.testing.assert_close(maps[i, q], torch.maximum(*both))
