"""One paper, one file: the file's name is the value of `method` in params.yaml."""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.methods.base import Method
    from pipeline.params import Section


def names() -> list[str]:
    """Every method there is, in alphabetical order; reads file names and imports none of them."""
    return sorted(module.name for module in iter_modules(__path__) if module.name != "base")


def build(
    name: str, backbone_name: str, weights: str, num_classes: int, params: "Section"
) -> "Method":
    """The named method on the named backbone, its trunk filled with `weights`.

    Raises UserError for a backbone, weights or plug points that do not exist or do not fit.
    """
    from pipeline import backbones  # here, so that `names` costs no torch

    backbone = backbones.build(backbone_name)
    points: tuple[str, ...] = getattr(params, "plug_points", ())
    if not set(points) <= set(backbone.points):
        raise UserError(
            f"params.yaml: methods.{name}.plug_points is [{', '.join(points)}]; "
            f"allowed: {', '.join(backbone.points)} (the plug points of {backbone_name})"
        )
    backbones.load_weights(backbone, weights)
    method: Method = import_module(f"pipeline.methods.{name}").Method(backbone, num_classes, params)
    return method
