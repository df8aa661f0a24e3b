"""Backbones by name, one family a file: each lists its NETWORKS, and which are PUBLISHED with weights."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from pipeline.backbones import timm
from pipeline.backbones.base import Backbone, Hook, Segment, identity
from pipeline.backbones.weights import Classifier, imagenet_rows, load_weights
from pipeline.errors import UserError

__all__ = [
    "Backbone",
    "Classifier",
    "Hook",
    "Segment",
    "build",
    "identity",
    "imagenet_rows",
    "load_weights",
    "module",
    "names",
    "problems",
    "published",
]


def _families() -> Iterator[ModuleType]:
    for module in iter_modules(__path__):
        if module.name not in ("base", "weights"):
            yield import_module(f"{__name__}.{module.name}")


def names() -> list[str]:
    """Every backbone there is, in alphabetical order."""
    return sorted(name for family in _families() for name in family.NETWORKS)


def published() -> list[str]:
    """The backbones that have weights trained on ImageNet."""
    return sorted(name for family in _families() for name in family.PUBLISHED)


def _family(name: str) -> ModuleType:
    if name.startswith(timm.PREFIX):
        return timm
    for family in _families():
        if name in family.NETWORKS:
            return family
    raise UserError(f"params.yaml: {_unknown(name)}")


def _unknown(name: str) -> str:
    return f"backbone is {name!r}; allowed: {', '.join(names())}, {timm.PREFIX}<a name of timm>"


def module(name: str) -> str:
    """The dotted name of the module that builds the backbone."""
    return _family(name).__name__


def build(name: str, input_channels: int = 3) -> Backbone:
    """The named backbone with random weights. Raises UserError for an unknown name."""
    if name.startswith(timm.PREFIX):
        return timm.build(name, input_channels)
    backbone: Backbone = _family(name).NETWORKS[name](input_channels)
    return backbone


def problems(name: str, weights: str) -> list[str]:
    """Why params.yaml cannot ask for this backbone, or for its weights by name."""
    if name.startswith(timm.PREFIX):
        problem = timm.problem(name, weights)
        return [] if problem is None else [problem]
    if name not in names():
        return [_unknown(name)]
    if weights == "imagenet" and name not in published():
        return [
            f"weights is 'imagenet', which {name} has none of; "
            f"allowed: weights none or a file, or backbone {', '.join(published())}"
        ]
    return []
