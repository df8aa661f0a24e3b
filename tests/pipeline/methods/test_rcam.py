"""RCAM: weighted pooling and recombined weights, by hand, against loops, and where they are CAM."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.methods import rcam
from pipeline.methods.base import Outputs
from tests.pipeline.methods.builders import CLASSES, build, like


def images() -> Tensor:
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(5))


def features(channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(8)
    return 5 * torch.rand(2, channels, 3, 5, generator=generator) ** 3


def test_weighted_pooling_by_hand() -> None:
    maps = torch.tensor([[[[0.0, math.log(2.0), 0.0]], [[1.0, 1.0, 1.0]]]])  # [1, 2, 1, 3]
    pooled = rcam.weighted_average_pooling(maps)
    assert torch.allclose(pooled, torch.tensor([[0.5 * math.log(2.0), 1.0]]))


def test_weighted_pooling_agrees_with_a_loop() -> None:
    P = features()
    pooled = rcam.weighted_average_pooling(P)
    for image in range(2):
        for c in range(4):
            values = P[image, c].double().flatten().tolist()
            total = sum(math.exp(a) for a in values)
            expected = sum(a * math.exp(a) / total for a in values)
            assert pooled[image, c].item() == pytest.approx(expected, rel=1e-5)


def test_weighted_pooling_lies_between_mean_and_maximum() -> None:
    P = features()
    pooled = rcam.weighted_average_pooling(P)
    assert (pooled > P.mean((2, 3))).all() and (pooled < P.amax((2, 3))).all()


def test_weighted_pooling_of_a_flat_map_is_its_value() -> None:
    pooled = rcam.weighted_average_pooling(torch.full((1, 2, 3, 5), 0.7))
    assert torch.allclose(pooled, torch.full((1, 2), 0.7))


def test_large_activations_do_not_overflow() -> None:
    P = torch.zeros(1, 1, 3, 5, dtype=torch.bfloat16)
    P[0, 0, 1, 2] = 512.0
    pooled = rcam.weighted_average_pooling(P)
    assert pooled.dtype == torch.float32 and pooled.tolist() == [[512.0]]


def test_the_gradient_goes_through_the_weights_too() -> None:
    P = torch.tensor([[[[0.0, math.log(2.0), 0.0]]]], requires_grad=True)
    rcam.weighted_average_pooling(P).sum().backward()
    mean = 0.5 * math.log(2.0)
    expected = [s * (1 + a - mean) for s, a in ((0.25, 0.0), (0.5, math.log(2.0)), (0.25, 0.0))]
    assert P.grad is not None and torch.allclose(P.grad.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("divide", [False, True])
def test_division_by_the_area_is_a_param(divide: bool) -> None:
    pooled = build("rcam", divide_by_area=divide).pool(features())
    expected = rcam.weighted_average_pooling(features()) / (15 if divide else 1)
    assert torch.allclose(pooled, expected)


def test_recombined_map_by_hand() -> None:
    model = build("rcam")
    channels = model.backbone.out_channels
    F = torch.zeros(1, channels, 1, 3)
    F[0, 0, 0], F[0, 1, 0] = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 4.0])
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.weight[2, :2] = torch.tensor([3.0, -2.0])
    maps = model.class_maps(Outputs(torch.zeros(1, CLASSES), F), torch.tensor([[2]]))
    assert maps.tolist() == [[[[3.0, 8.0, 8.0]]]]  # M_p − M_n; Eq. 16 would give 3, 4, −8


def test_recombined_map_agrees_with_a_loop() -> None:
    model = build("rcam")
    F = features(model.backbone.out_channels)
    classes = torch.tensor([[3, 0], [1, 1]])
    maps = model.class_maps(Outputs(torch.zeros(2, CLASSES), F), classes)
    for image in range(2):
        for asked, c in enumerate(classes[image].tolist()):
            positive, negative = torch.zeros(3, 5), torch.zeros(3, 5)
            for k, w in enumerate(model.classifier.weight[c].tolist()):
                (positive if w > 0 else negative).add_(w * F[image, k])
            assert torch.allclose(maps[image, asked], positive - negative, atol=1e-5)


def test_recombination_leaves_the_classifier_and_its_logits() -> None:
    model = build("rcam", recombine=True).eval()
    before = model.classifier.weight.clone()
    outputs = model(images())
    model.class_maps(outputs, torch.zeros(3, 1, dtype=torch.int64))
    assert torch.equal(model.classifier.weight, before)
    assert torch.equal(outputs.logits, like(model, "rcam", recombine=False)(images()).logits)


def test_positive_weights_make_recombination_cam() -> None:
    model = build("rcam", pooling="gap", recombine=True).eval()
    with torch.no_grad():
        model.classifier.weight.abs_()
    cam = like(model, "cam")
    classes = torch.tensor([[0, 1], [2, 3], [4, 0]])
    assert torch.equal(
        model.class_maps(model(images()), classes), cam.class_maps(cam(images()), classes)
    )


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_gap_without_recombination_is_cam(training: bool, divide: bool) -> None:
    model = build("rcam", pooling="gap", recombine=False, divide_by_area=divide).train(training)
    cam = like(model, "cam")
    outputs, expected = model(images()), cam(images())
    classes = torch.tensor([[0, 1], [2, 3], [4, 0]])
    assert torch.equal(outputs.logits, expected.logits)
    assert torch.equal(model.class_maps(outputs, classes), cam.class_maps(expected, classes))


def test_boxes_are_chosen_in_two_stages() -> None:
    assert rcam.Method.box_selection == "two_stage"


def test_recombination_matters_at_evaluation_only() -> None:
    marked = {
        name
        for name, field in rcam.Params.model_fields.items()
        if isinstance(field.json_schema_extra, dict)
        and field.json_schema_extra.get("when") == "evaluation"
    }
    assert marked == {"recombine"}
