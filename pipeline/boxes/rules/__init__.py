"""Box rules: from a heatmap to one box. One file each, chosen by its name."""

from importlib import import_module
from typing import cast

from pipeline.boxes.rules.base import BoxRule


def load(name: str) -> BoxRule:
    """The rule of the file `name`."""
    return cast(BoxRule, import_module(f"pipeline.boxes.rules.{name}").Rule())
