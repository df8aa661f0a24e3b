"""Pictures of `wsol predict`: their names and their size."""

from pathlib import Path

import numpy as np
import pytest

from tools import predict


def test_a_picture_has_its_images_name_unless_two_images_share_it() -> None:
    root = Path("photos")
    found = [root / name for name in ("a.jpg", "b.JPG", "b.png", "more/a.b.webp", "more/B.jpg")]
    names = predict.picture_names(found, root)
    assert [names[path].as_posix() for path in found] == [
        *("a.png", "b.JPG.png", "b.png.png", "more/a.b.png", "more/B.png"),
    ]


@pytest.mark.parametrize(
    "found",
    [("x.jpg", "x.jpg.jpg", "X.png", "x.jpg.png", "x"), ("x.jpg", "x.png", "x.jpg.jpg")],
)
def test_no_two_pictures_have_one_name(found: tuple[str, ...]) -> None:
    drawn = predict.picture_names([Path(name) for name in found], Path())
    assert len({str(name).lower() for name in drawn.values()}) == len(found)


@pytest.mark.parametrize(
    ("shape", "tile"),
    [((1200, 900), (1200, 1200)), ((300, 900), (300, 900)), ((21, 40), (210, 400))],
)
def test_pictures_are_full_size(shape: tuple[int, int], tile: tuple[int, int]) -> None:
    assert predict.full_size(np.zeros((*shape, 3), np.uint8)) == tile
