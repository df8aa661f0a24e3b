"""CutMix: boxes worked out by hand, labels by the area that was really pasted."""

import pytest
import torch

from pipeline.methods import cutmix
from tests.pipeline.methods.builders import CLASSES, build


@pytest.mark.parametrize(
    ("lam", "centre", "expected"),
    [
        (0.75, (20, 10), (10, 5, 30, 15)),  # side ½: 20 × 10 of 40 × 20
        (0.75, (0, 0), (0, 0, 10, 5)),  # cut off at the corner
        (1.0, (20, 10), (20, 10, 20, 10)),  # nothing
        (0.0, (20, 10), (0, 0, 40, 20)),  # everything
    ],
)
def test_box(lam: float, centre: tuple[int, int], expected: tuple[int, int, int, int]) -> None:
    assert cutmix.box(lam, centre, 20, 40) == expected


def test_labels_are_mixed_by_the_pasted_area() -> None:
    """The authors' code corrects λ for the part of the box beyond the border; so do we."""
    model = build("cutmix")
    labels = torch.arange(4)
    images = labels[:, None, None, None].float().expand(4, 3, 20, 40)
    for seed in range(20):
        mixed, targets = model.on_batch(images, labels, torch.Generator().manual_seed(seed))
        assert targets.shape == (4, CLASSES)
        for i in range(4):
            shares = [(mixed[i, 0] == k).float().mean().item() for k in range(CLASSES)]
            assert targets[i].tolist() == pytest.approx(shares, abs=1e-6)
    assert images[0].eq(0).all()  # the given images are left alone


def test_without_chance_it_is_cam() -> None:
    images, labels = torch.randn(3, 3, 20, 30), torch.tensor([2, 0, 1])
    seen, targets = build("cutmix", probability=0.0).on_batch(images, labels, torch.Generator())
    assert seen is images
    assert targets is labels
