"""Localizers, ways to read boxes off a trained model: the file's name is the value of `localizer`."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from pipeline.params import CLASS_MAP

if TYPE_CHECKING:
    from pipeline.localizers.base import Depths, Localizer
    from pipeline.params import Section


def names() -> list[str]:
    """Every localizer, in alphabetical order; reads file names and imports none of them."""
    return sorted(module.name for module in iter_modules(__path__) if module.name != "base")


def build(
    name: str, backbone: "Depths", num_classes: int, sections: Mapping[str, "Section"]
) -> "Localizer | None":
    """The named localizer, not yet fitted, for the feature maps of `backbone`; None for the class map.

    sections: of params.yaml, by localizer: its own, and those of the localizers it learns from.
    """
    if name == CLASS_MAP:
        return None
    module = import_module(f"pipeline.localizers.{name}")
    localizer: Localizer = module.Localizer(backbone, num_classes, sections[name])
    for teacher in localizer.learns_from:
        localizer.add_module(teacher, build(teacher, backbone, num_classes, sections))
    return localizer
