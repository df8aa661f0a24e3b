"""Images onto the network's grid.

Training: squashed to resize × resize, a random crop × crop of it, mirrored half of the time.
Test: `squash`, the whole image to crop × crop; or `center_crop` of resize × resize.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

# Of ImageNet's training images, in 0…255.
MEAN = torch.tensor([0.485, 0.456, 0.406]) * 255
STD = torch.tensor([0.229, 0.224, 0.225]) * 255


def decode(encoded: bytes, size: tuple[int, int]) -> Tensor:
    """A JPEG as uint8 [3, height, width] of exactly `size`; any JPEG that preprocess writes."""
    # PIL, not torchvision: as fast, and importing torchvision takes longer than a small split's decoding.
    return from_pil(Image.open(io.BytesIO(encoded)).convert("RGB"), size)


def from_pil(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """An RGB image as uint8 [3, height, width] of exactly `size`."""
    return _resize(torch.from_numpy(np.array(image)).permute(2, 0, 1), size)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, antialiased: shrinking averages all pixels, as it must for thin things to stay."""
    resized = nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return resized.contiguous()


def train_batch(
    images: Tensor,
    crop: int,
    generator: torch.Generator,
    rows: slice = slice(None),
    whole: int | None = None,
) -> Tensor:
    """uint8 [B, 3, H, W] → float32 [B, 3, crop, crop]: cropped and mirrored at random, normalised.

    The random numbers are drawn on the CPU from `generator`, the same on every device; where the images
    are the `rows` of a batch of `whole` images, for all of it.
    """
    count, _, height, width = images.shape
    size = (whole or count,)
    drawn = (
        torch.randint(height - crop + 1, size, generator=generator),
        torch.randint(width - crop + 1, size, generator=generator),
        torch.rand(size, generator=generator) < 0.5,
    )
    top, left, mirror = (x[rows].to(images.device, non_blocking=True) for x in drawn)
    # Every crop as a view: picking one per image copies whole rows and waits for nothing.
    windows = images.unfold(2, crop, 1).unfold(3, crop, 1)
    picked = windows[torch.arange(count, device=images.device), :, top, left]
    return normalise(torch.where(mirror[:, None, None, None], picked.flip(3), picked))


def test_batch(images: Tensor, crop: int) -> Tensor:
    """uint8 [B, 3, H, W] → float32 [B, 3, crop, crop]: the central crop, normalised."""
    top, left = (images.shape[2] - crop) // 2, (images.shape[3] - crop) // 2
    return normalise(images[:, :, top : top + crop, left : left + crop])


def normalise(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] → float32 with ImageNet's mean 0 and standard deviation 1."""
    mean, std = (x.to(images.device, non_blocking=True)[:, None, None] for x in (MEAN, STD))
    return images.float().sub_(mean).div_(std)


def denormalise(images: Tensor) -> Tensor:
    """The inverse of `normalise`: float [B, 3, H, W] → uint8, clipped."""
    mean, std = (x.to(images.device)[:, None, None] for x in (MEAN, STD))
    return (images.float() * std + mean).round().clamp(0, 255).to(torch.uint8)


test_batch.__test__ = False  # type: ignore[attr-defined]  # not for pytest
