"""Plug points: one name per depth, the same on every backbone.

`stride4` is the last map of a quarter of the image's side, and so on. Of the maps of a sixteenth,
`stride16_early` is the first stage's and `stride16_late` the second's; `last` is the map that the head reads.
"""

from typing import Annotated

from pydantic import AfterValidator

POINTS = ("stride2", "stride4", "stride8", "stride16_early", "stride16_late", "last")
ALIASES = {
    "pool1": "stride2",
    "pool2": "stride4",
    "pool3": "stride8",
    "pool4": "stride16_early",
    "conv5_3": "stride16_late",
    "last_map": "last",
}
"""The thesis's names, those of VGG16's layers, and an older name of `last`."""

_ALLOWED = f"{', '.join(POINTS)} (or VGG16's names {', '.join(list(ALIASES)[:-1])})"


def canonical(name: str) -> str:
    """The depth that `name` stands for. Raises ValueError with the allowed names."""
    point = ALIASES.get(name, name)
    if point not in POINTS:
        raise ValueError(_ALLOWED)
    return point


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in names if ALIASES.get(name, name) not in POINTS]:
        raise ValueError(f"a list of {_ALLOWED}, not {', '.join(unknown)}")
    points = tuple(map(canonical, names))
    if len(set(points)) < len(points):
        raise ValueError("a list that names each plug point once")
    return points


PlugPoint = Annotated[str, AfterValidator(canonical)]
PlugPoints = Annotated[tuple[str, ...], AfterValidator(_distinct)]
