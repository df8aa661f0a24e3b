"""One paper, one file: the file's name is the value of `method` in params.yaml."""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.methods.base import Method
    from pipeline.params import Section


def names() -> list[str]:
    """Every method there is, in alphabetical order; reads file names and imports none of them."""
    return sorted(module.name for module in iter_modules(__path__) if module.name != "base")


def build(
    name: str, backbone_name: str, weights: str, num_classes: int, params: "Section"
) -> "Method":
    """The named method on the named backbone, its trunk filled with `weights`.

    Raises UserError for a backbone or weights that do not exist or do not fit, and for plug points that are
    the same map on this backbone where the method needs several.
    """
    from pipeline import backbones  # here, so that `names` costs no torch

    backbone = backbones.build(backbone_name)
    params = _plugged(name, params, backbone)
    backbones.load_weights(backbone, weights)
    method: Method = import_module(f"pipeline.methods.{name}").Method(backbone, num_classes, params)
    return method


def _plugged(name: str, params: "Section", backbone: "Backbone") -> "Section":
    """`params` whose plug points are those that the backbone's hook is called with, each once."""
    points: tuple[str, ...] | None = getattr(params, "plug_points", None)
    if points is None:
        return params
    hooked = tuple(dict.fromkeys(map(backbone.hooked, points)))
    try:
        field = type(params).model_fields["plug_points"]
        TypeAdapter(field.rebuild_annotation()).validate_python(hooked)
    except ValueError:
        raise UserError(
            f"params.yaml: methods.{name}.plug_points is [{', '.join(points)}], which on {backbone.name} "
            f"are only {len(hooked)} maps; allowed: {len(points)} of {', '.join(backbone.points)}"
        ) from None
    return params.model_copy(update={"plug_points": hooked})
