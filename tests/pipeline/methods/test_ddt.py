"""DDT: the component against numpy's, its sign, the map by hand, and a trunk that stays as loaded."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.methods.ddt import Moments
from tests.pipeline.methods.builders import CLASSES, build

IMAGES = torch.randn(4, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_the_component_is_that_of_all_descriptors_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 0.2])[:, None, None]
    batches = [torch.randn(n, 3, 4, 6, generator=generator) * spread + 1 for n in (2, 3)]
    moments = Moments(3, torch.device("cpu"))
    for batch in batches:
        moments.add(batch)
    mean, first = moments.component()
    rows = torch.cat(batches).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5)
    _, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    assert abs(abs(first.numpy() @ vectors[:, -1]) - 1) < 1e-6


def test_the_image_border_is_background() -> None:
    features = torch.zeros(1, 2, 5, 5)
    features[0, 0, 1:4, 1:4] = 1.0  # what the inside has in common
    for sign in (1, -1):
        moments = Moments(2, torch.device("cpu"))
        moments.add(sign * features)
        mean, first = moments.component()
        projected = torch.einsum("c,chw->hw", first.float(), sign * features[0])
        projected = projected - mean.float() @ first.float()
        assert (projected[1:4, 1:4] > 0).all() and projected[0, 0] < 0


def by_class(labels: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    yield IMAGES[:3], torch.tensor(labels[:3])
    yield IMAGES[3:], torch.tensor(labels[3:])


def test_each_class_has_its_transform_and_the_trunk_stays() -> None:
    model = build("ddt")
    before = copy.deepcopy(model.backbone.state_dict())
    labels = [0, 2, 2, 2]
    model.train()
    model(IMAGES).logits.sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    model.eval()
    model.end_training(lambda: by_class(labels))
    with torch.no_grad():
        features = model.backbone(IMAGES)
    for label, which in ((0, [0]), (2, [1, 2, 3])):
        moments = Moments(features.shape[1], features.device)
        moments.add(features[which])
        mean, first = moments.component()
        torch.testing.assert_close(model.mean[label], mean.float())  # type: ignore[index]
        torch.testing.assert_close(model.direction[label], first.float())  # type: ignore[index]
    for label in {*range(CLASSES)} - {0, 2}:  # has no images
        assert not model.mean[label].any()  # type: ignore[index]
    outputs = model(IMAGES)
    classes = torch.tensor([[0, 2]] * 4)
    maps = model.class_maps(outputs, classes)
    for q, label in enumerate((0, 2)):
        rows = features - model.mean[label][:, None, None]  # type: ignore[index]
        expected = torch.einsum("bchw,c->bhw", rows, model.direction[label]).relu()  # type: ignore[index]
        torch.testing.assert_close(maps[:, q], expected, rtol=1e-3, atol=1e-5)
    after = model.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
