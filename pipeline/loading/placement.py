"""Where the test grid lies on an image, and boxes from one to the other; without PyTorch.

`squash`: the grid is the whole image, made crop × crop; `center_crop`: the middle of resize × resize.
Sizes are (height, width); boxes are x0, y0, x1, y1, half-open edges in pixels.
"""

import numpy as np

from pipeline.params import Input


def test_size(input: Input) -> tuple[int, int]:
    """The (height, width) to decode test images to, for `geometry.test_batch`."""
    side = input.crop if input.test == "squash" else input.resize
    return side, side


def boxes_to_grid(boxes: np.ndarray, size: tuple[int, int], input: Input) -> np.ndarray:
    """Boxes float32 [n, 4] of an image of `size` → on the test grid (crop × crop).

    Under `center_crop` what lies outside the crop is cut off; a box wholly outside has no area.
    """
    scale, margin = _geometry(size, input)
    grid = boxes * scale - margin
    return (grid.clip(0, input.crop) if margin else grid).astype(np.float32)


def boxes_to_image(boxes: np.ndarray, size: tuple[int, int], input: Input) -> np.ndarray:
    """Boxes float32 [n, 4] on the test grid → in pixels of the image of `size`."""
    scale, margin = _geometry(size, input)
    return ((boxes + margin) / scale).astype(np.float32)


def _geometry(size: tuple[int, int], input: Input) -> tuple[np.ndarray, int]:
    """Grid pixels per image pixel for x, y, x, y, and the margin that the central crop leaves out."""
    height, width = size
    side, _ = test_size(input)
    scale = np.array([side / width, side / height] * 2)
    return scale, (side - input.crop) // 2


test_size.__test__ = False  # type: ignore[attr-defined]  # not for pytest
