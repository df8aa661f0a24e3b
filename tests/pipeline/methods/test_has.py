"""Hide-and-Seek against a plain loop, and its law: nothing hidden is CAM."""

import numpy as np
import pytest
import torch

from pipeline.layers import grid
from pipeline.layers.cells import side_ratio
from tests.pipeline.methods.builders import build


@pytest.mark.parametrize(("height", "width"), [(48, 48), (20, 50), (50, 20), (33, 7)])
def test_cells_tile_the_image_also_one_that_is_not_square(height: int, width: int) -> None:
    """A known port of HaS walks along the wrong side of images that are not square."""
    at_224 = [round(side / side_ratio(height, width)) for side in (0, 5, 16)]
    size = 6, height, width
    sides, kept = grid.draw_grid(tuple(at_224), 0.5, size, torch.Generator().manual_seed(3))
    assert {0, 5, 16} == set(sides.tolist())
    mask = grid.grid_mask(sides, kept, height, width)
    expected = np.ones((6, 1, height, width), bool)
    for i, side in enumerate(sides.tolist()):
        for y in range(height if side else 0):
            for x in range(width):
                expected[i, 0, y, x] = kept[i, y // side, x // side]
    np.testing.assert_array_equal(mask.numpy(), expected)
    assert 0.2 < mask[sides == 5].float().mean() < 0.8


def test_a_hidden_cell_is_the_normalised_mean_and_labels_stay() -> None:
    model = build("has", cell_sizes=[4], probability=1.0)
    images, labels = torch.randn(3, 3, 9, 6), torch.tensor([2, 0, 1])
    hidden, targets = model.on_batch(images, labels, torch.Generator())
    assert hidden.eq(0).all()
    assert targets is labels


@pytest.mark.parametrize("changes", [{"probability": 0.0}, {"cell_sizes": [0]}])
def test_nothing_hidden_is_cam(changes: dict[str, object]) -> None:
    images, labels = torch.randn(3, 3, 20, 30), torch.tensor([2, 0, 1])
    seen, _ = build("has", **changes).on_batch(images, labels, torch.Generator())
    assert torch.equal(seen, images)
