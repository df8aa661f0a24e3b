"""ACoL: what is erased by hand, any class's map alone, and its law: δ > 1 erases nothing."""

import torch
import torch.nn.functional as F

from pipeline.layers import class_maps
from pipeline.methods import acol
from tests.pipeline.methods.builders import build

IMAGES, LABELS = torch.randn(3, 3, 32, 48), torch.tensor([4, 0, 2])


def test_what_reaches_the_share_of_the_range_is_erased() -> None:
    maps = torch.tensor([[[[-2.0, 0.0], [1.0, 3.0]]]])  # normalised: 0 0.4 / 0.6 1
    assert acol.kept(maps, 0.6).tolist() == [[[[True, True], [False, False]]]]
    assert acol.kept(maps, 1.1).all()


def test_the_second_head_sees_what_the_first_map_of_the_label_leaves() -> None:
    model = build("acol").train()
    outputs = model(IMAGES, LABELS)
    for i, label in enumerate(LABELS.tolist()):
        first = model.first(outputs.features[[i]])[:, label]  # type: ignore[operator]
        left = (class_maps.min_max(first) < 0.6).float()
        second = model.second(outputs.features[[i]] * left[:, None]).mean((2, 3))  # type: ignore[operator]
        torch.testing.assert_close(outputs.extras["second"][[i]], second)
    loss = model.loss(outputs, LABELS, F.cross_entropy)
    both = (outputs.logits, outputs.extras["second"])
    torch.testing.assert_close(loss, torch.stack([F.cross_entropy(x, LABELS) for x in both]).sum())


def test_a_class_has_its_own_erasure_also_if_it_is_not_predicted() -> None:
    model = build("acol").eval()
    outputs = model(IMAGES)
    classes = torch.tensor([[0, 3], [1, 1], [4, 2]])
    maps = model.class_maps(outputs, classes)
    for i, row in enumerate(classes.tolist()):
        for q, c in enumerate(row):
            first = model.first(outputs.features[[i]])[0, c]  # type: ignore[operator]
            left = class_maps.min_max(first) < 0.6
            second = model.second(outputs.features[[i]] * left)[0, c]  # type: ignore[operator]
            expected = torch.maximum(class_maps.min_max(first), class_maps.min_max(second))
            torch.testing.assert_close(maps[i, q], expected, rtol=1e-4, atol=1e-4)


def test_a_threshold_above_one_erases_nothing() -> None:
    model = build("acol", erase_threshold=1.1).train()
    outputs = model(IMAGES, LABELS)
    expected = model.second(outputs.features).mean((2, 3))  # type: ignore[operator]
    torch.testing.assert_close(outputs.extras["second"], expected)
