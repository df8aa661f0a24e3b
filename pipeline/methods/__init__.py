"""One paper, one file: the file's name is the value of `method` in params.yaml."""

from collections.abc import Sequence
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
    name: str,
    backbone_name: str,
    weights: str,
    num_classes: int,
    params: "Section",
    class_names: Sequence[str] = (),
) -> "Method":
    """The named method on the named backbone, its trunk filled with `weights`.

    Where all `class_names` are WordNet ids of ImageNet, a linear classifier that comes with the weights
    is kept, if the method has one: its rows of these classes, in their order.

    Raises UserError for a backbone or weights that do not exist or do not fit, and for plug points that are
    the same map on this backbone where the method needs several.
    """
    from pipeline import backbones  # here, so that `names` costs no torch

    backbone = backbones.build(backbone_name)
    params = _plugged(name, params, backbone)
    pretrained = backbones.load_weights(backbone, weights)
    method: Method = import_module(f"pipeline.methods.{name}").Method(backbone, num_classes, params)
    if pretrained is not None and class_names:
        rows = backbones.imagenet_rows(class_names, len(pretrained.bias))
        if rows is not None:
            method.keep_classifier(pretrained.weight[rows], pretrained.bias[rows])
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
