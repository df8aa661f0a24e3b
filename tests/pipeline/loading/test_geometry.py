"""Images and their boxes go the same way, on images that are not square."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.loading import geometry, placement
from pipeline.params import Input
from tests.made import encode, noise

SQUASH = Input(resize=10, crop=8, test="squash")
CENTRE = Input(resize=12, crop=8, test="center_crop")


def indexed(count: int, height: int, width: int) -> Tensor:
    """uint8 [count, 3, height, width]; the channels hold y, x and the image's number."""
    y, x, n = torch.arange(height), torch.arange(width), torch.arange(count)
    planes = y[:, None].expand(height, width), x.expand(height, width)
    image = torch.stack([*planes, torch.zeros(height, width)]).to(torch.uint8)
    batch = image.repeat(count, 1, 1, 1)
    batch[:, 2] = n[:, None, None]
    return batch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_decode_gives_exactly_the_size(mode: str, subsampling: int) -> None:
    options = {"subsampling": subsampling} if mode == "RGB" else {}
    encoded = encode(noise(50, 70).convert(mode), quality=95, **options)
    decoded = geometry.decode(encoded, (20, 31))
    assert (decoded.dtype, decoded.shape) == (torch.uint8, (3, 20, 31))
    assert decoded.is_contiguous()
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    pil = np.asarray(image.resize((31, 20), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decoded.permute(1, 2, 0).numpy() - pil).max() <= 2  # antialiased as PIL is
    same = geometry.from_pil(image, (20, 31))
    assert (same.int() - decoded.int()).abs().max() <= 1


def test_decode_of_the_same_size_changes_nothing() -> None:
    encoded = encode(noise(9, 14), quality=95, subsampling=0)
    expected = np.asarray(Image.open(io.BytesIO(encoded)))
    assert (geometry.decode(encoded, (9, 14)).permute(1, 2, 0).numpy() == expected).all()


def test_train_crops_are_windows_of_their_own_image() -> None:
    images = indexed(64, 11, 17)
    seen = geometry.denormalise(geometry.train_batch(images, 8, generator()))
    corners, mirrored = set(), 0
    for i, crop in enumerate(seen.int()):
        top, left = int(crop[0, 0, 0]), int(crop[1, 0].min())
        window = images[i, :, top : top + 8, left : left + 8].int()
        flipped = bool(crop[1, 0, 0] > crop[1, 0, 1])
        assert (crop == (window.flip(2) if flipped else window)).all()
        corners.add((top, left))
        mirrored += flipped
    assert {top for top, _ in corners} == set(range(4))
    assert {left for _, left in corners} == set(range(10))
    assert 20 < mirrored < 44


def test_train_batch_follows_its_generator_and_leaves_its_input() -> None:
    images = indexed(4, 10, 10)
    before = images.clone()
    first = geometry.train_batch(images, 8, generator(1))
    assert torch.equal(first, geometry.train_batch(images, 8, generator(1)))
    assert not torch.equal(first, geometry.train_batch(images, 8, generator(2)))
    assert torch.equal(images, before)
    whole = geometry.train_batch(images[:1], 10, generator())  # a batch of one, nothing to crop
    assert whole.shape == (1, 3, 10, 10)
    assert whole.dtype == torch.float32


def test_normalisation_is_imagenets() -> None:
    images = torch.tensor([0, 255, 128], dtype=torch.uint8)[None, :, None, None]
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    normal = geometry.normalise(images)
    torch.testing.assert_close(normal.flatten(), torch.tensor(expected))
    assert torch.equal(geometry.denormalise(normal), images)
    assert geometry.denormalise(normal * 100).flatten().tolist() == [0, 255, 255]


def test_test_batch_is_the_centre() -> None:
    assert placement.test_size(SQUASH) == (8, 8)
    assert placement.test_size(CENTRE) == (12, 12)
    batch = geometry.denormalise(geometry.test_batch(indexed(2, 12, 13), 8))
    assert batch[1, 0, :, 0].tolist() == list(range(2, 10))
    assert batch[1, 1, 0].tolist() == list(range(2, 10))


def test_boxes_on_the_grid() -> None:
    box = np.array([[5, 10, 15, 20], [0, 0, 20, 40]], np.float32)  # in an image 20 wide, 40 high
    squashed = placement.boxes_to_grid(box, (40, 20), SQUASH)
    assert squashed.tolist() == [[2, 2, 6, 4], [0, 0, 8, 8]]
    centred = placement.boxes_to_grid(box, (40, 20), CENTRE)  # × 12/20, × 12/40, − 2, cut
    assert centred.tolist() == [[1, 1, 7, 4], [0, 0, 8, 8]]
    assert centred.dtype == np.float32
    outside = placement.boxes_to_grid(np.array([[0, 0, 1, 1]], np.float32), (40, 20), CENTRE)
    assert outside.tolist() == [[0, 0, 0, 0]]
    assert placement.boxes_to_grid(np.zeros((0, 4), np.float32), (40, 20), SQUASH).shape == (0, 4)


@pytest.mark.parametrize("input", [SQUASH, CENTRE])
def test_boxes_come_back(input: Input) -> None:
    box = np.array([[6, 11, 13, 28]], np.float32)
    grid = placement.boxes_to_grid(box, (40, 20), input)
    np.testing.assert_allclose(placement.boxes_to_image(grid, (40, 20), input), box, rtol=1e-6)


@pytest.mark.parametrize("input", [SQUASH, CENTRE])
def test_a_box_stays_around_what_it_is_around(input: Input) -> None:
    """A white rectangle in an image 48 wide and 24 high, seen through the test geometry."""
    image = np.zeros((24, 48, 3), np.uint8)
    box = np.array([[16, 8, 32, 20]], np.float32)
    image[8:20, 16:32] = 255
    batch = geometry.from_pil(Image.fromarray(image), placement.test_size(input))[None]
    seen = geometry.denormalise(geometry.test_batch(batch, input.crop))[0, 0] > 127
    ys, xs = torch.nonzero(seen, as_tuple=True)
    found = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    expected = placement.boxes_to_grid(box, (24, 48), input)[0]
    assert np.abs(expected - found).max() <= 0.5
