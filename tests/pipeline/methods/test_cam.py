"""Equations 15 and 16, and what other methods rely on in CAM."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.methods.base import Outputs, weighted_maps
from tests.pipeline.methods.builders import CLASSES, build


def test_pooling_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0, 6.0]], [[0.0, 0.0, 3.0]]]])  # [1, 2, 1, 3]
    assert build("cam").pool(features).tolist() == [[3.0, 1.0]]


def test_map_by_hand() -> None:
    features = torch.tensor(
        [[[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], [[0.0, 4.0], [1.0, 0.0], [0.0, 0.0]]]]
    )
    weights = torch.tensor([[[2.0, -1.0], [0.0, 0.5]]])  # [1, Q=2, C=2]
    assert weighted_maps(features, weights).tolist() == [
        [[[2.0, -4.0], [3.0, 0.0], [0.0, 2.0]], [[0.0, 2.0], [0.5, 0.0], [0.0, 0.0]]]
    ]


def test_class_maps_agree_with_a_loop() -> None:
    model = build("cam")
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(2, model.backbone.out_channels, 3, 5, generator=generator)
    classes = torch.tensor([[4, 0, 0], [1, 3, 2]])
    maps = model.class_maps(Outputs(torch.zeros(2, CLASSES), features), classes)
    for image in range(2):
        for asked, c in enumerate(classes[image].tolist()):
            expected = torch.zeros(3, 5)
            for k in range(model.backbone.out_channels):
                expected += model.classifier.weight[c, k] * features[image, k]
            assert torch.allclose(maps[image, asked], expected, atol=1e-5)


def test_the_mean_of_a_map_and_the_bias_are_the_logit() -> None:
    """Zhou et al.: pooling then weighting is weighting then pooling."""
    model = build("cam").eval()
    with torch.no_grad():
        torch.nn.init.normal_(model.classifier.bias)
        outputs = model(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(4)))
        maps = model.class_maps(outputs, torch.arange(CLASSES).expand(2, -1))
    logits = maps.mean((2, 3)) + model.classifier.bias
    assert torch.allclose(logits, outputs.logits, rtol=1e-4, atol=1e-6)


def test_classifier_starts_as_published() -> None:
    classifier = build("cam").classifier
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not classifier.bias.any()


def test_targets_may_be_probabilities() -> None:
    model = build("cam").eval()
    outputs = model(torch.zeros(2, 3, 64, 96))
    labels = torch.tensor([1, 4])
    soft = F.one_hot(labels, CLASSES).float()
    assert torch.allclose(
        model.loss(outputs, soft, F.cross_entropy), model.loss(outputs, labels, F.cross_entropy)
    )


def test_every_plug_point_passes_through_on_feature_in_training_only() -> None:
    model = build("cam")
    seen: list[tuple[str, object]] = []

    def on_feature(
        point: str, features: torch.Tensor, targets: object, ratio: float
    ) -> torch.Tensor:
        seen.append((point, targets))
        return features

    model.on_feature = on_feature  # type: ignore[method-assign]
    targets = torch.tensor([1])
    model.train()(torch.zeros(1, 3, 64, 32), targets)
    assert [point for point, _ in seen] == list(model.backbone.points)
    assert all(given is targets for _, given in seen)
    model.eval()(torch.zeros(1, 3, 64, 32), targets)
    assert len(seen) == len(model.backbone.points)
