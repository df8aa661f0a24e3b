"""Methods as params.yaml sets them, on any backbone."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline import methods
from pipeline.methods.base import Method
from pipeline.params import Section

CLASSES = 5


@cache
def _sections() -> dict[str, dict[str, Any]]:
    file = Path(__file__).parents[3] / "params.yaml"
    sections: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text("utf-8"))["methods"]
    return sections


def params(name: str, **changes: Any) -> Any:
    """The method's section of params.yaml with some values changed."""
    section: type[Section] = import_module(f"pipeline.methods.{name}").Params
    return section.model_validate({**_sections()[name], **changes})


def build(name: str, backbone: str = "vgg_small", **changes: Any) -> Method:
    """The method as params.yaml sets it with random weights, always the same; new heads are narrow."""
    if "width" in _sections()[name]:
        changes = {"width": 16, **changes}
    torch.manual_seed(0)
    return methods.build(name, backbone, "none", CLASSES, params(name, **changes))


def like(model: Method, name: str, **changes: Any) -> Method:
    """Another method with the weights of `model`."""
    other = build(name, model.backbone.name, **changes)
    other.load_state_dict(model.state_dict())
    return other.train(model.training)
