"""Numbers stated at 224 px, at other inputs."""

import pytest

from pipeline.layers import cells


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(224, 224, 1.0), (448, 448, 2.0), (112, 112, 0.5), (112, 448, 1.0)],
)
def test_the_ratio_is_of_a_square_of_the_same_area(
    height: int, width: int, expected: float
) -> None:
    assert cells.side_ratio(height, width) == pytest.approx(expected)


def test_lengths_at_96_px() -> None:
    """Hide-and-Seek's cells; 0 hides nothing at any size, and no cell vanishes."""
    ratio = cells.side_ratio(96, 96)
    assert [cells.scaled_length(n, ratio) for n in (0, 16, 32, 44, 56)] == [0, 7, 14, 19, 24]
    assert cells.scaled_length(1, ratio) == 1
    assert [cells.scaled_length(n, 1.0) for n in (0, 16, 56)] == [0, 16, 56]


@pytest.mark.parametrize(
    ("side", "expected"), [(224, 3), (96, 1), (128, 1), (160, 3), (320, 5), (448, 7), (32, 1)]
)
def test_squares_keep_a_centre(side: int, expected: int) -> None:
    assert cells.scaled_odd(3, cells.side_ratio(side, side)) == expected
