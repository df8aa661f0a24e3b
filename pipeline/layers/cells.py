"""Numbers that count cells or pixels, scaled from the input size they are stated at.

The papers' numbers hold for inputs of 224 × 224. A backbone's grid grows with its input, so at another
input a length is multiplied by the ratio of the sides and an area by its square, at every depth alike.
"""

STATED_AT = 224  # pixels: side of the input that every such number in params.yaml belongs to


def side_ratio(height: int, width: int) -> float:
    """The side of an input of height × width pixels over 224; of a square of the same area."""
    return (height * width) ** 0.5 / STATED_AT


def scaled_length(length: int, ratio: float) -> int:
    """A side in whole cells or pixels, at least 1; 0 stays 0."""
    return max(1, round(length * ratio)) if length else 0


def scaled_odd(length: int, ratio: float) -> int:
    """The odd number nearest to length · ratio, the larger of two: the side of a centred square."""
    return 2 * int(length * ratio // 2) + 1
