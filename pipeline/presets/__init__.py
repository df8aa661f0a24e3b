"""Ready-made params.yaml files: overlays that name only what differs from the committed default.

`default.yaml` is the committed params.yaml, byte for byte; every other file here is an overlay, which may
extend another one. Those whose names begin with _ are only extended. The first line of the comment at the
head is the title, the rest says how to run the preset and what to expect.
"""

import copy
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from pipeline.errors import UserError
from pipeline.params import key_problem, leaves, yamlfile

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Every preset, the default first."""
    found = sorted(path.stem for path in FOLDER.glob("[!_]*.yaml") if path.stem != "default")
    return sorted(found, key=lambda name: name != "quick")


def title(name: str) -> str:
    """What the preset is for, in a line."""
    return (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()[0].lstrip("# ").rstrip(".")


@cache
def default() -> str:
    """The committed params.yaml."""
    return (FOLDER / "default.yaml").read_text("utf-8")


def values_of(name: str) -> dict[str, Any]:
    """What the preset changes of the default, by dotted key. Raises UserError for an unknown name."""
    if name not in names():
        raise UserError(f"unknown preset {name!r}; allowed: {', '.join(names())}")
    return _overlay(name)


def _overlay(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.yaml"
    own: dict[str, Any] = yamlfile.parse(path.read_text("utf-8"), path.name)
    below = own.pop("extends", None)
    return (_overlay(below) if below else {}) | leaves(own)


def applied(name: str, before: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """The text of params.yaml under a preset with the user's `own` values, by dotted key.

    It begins as the default, so nothing of an earlier trial is left and comments and layout are the
    committed ones. What `before`, the user's file, has beyond the default (a dataset, a method, a variant
    of theirs) stays. Raises UserError for an unknown preset and for keys that neither file has.
    """
    yaml = YAML()
    yaml.width = 2**16  # no line is broken
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _null)
    document = yaml.load(default())
    _add_missing(document, before)
    if problems := [problem for key in own if (problem := key_problem(document, key))]:
        raise UserError(problems)
    for key, value in {**values_of(name), **own}.items():
        *parents, last = key.split(".")
        section = document
        for parent in parents:
            section = section[parent]
        section[last] = _in_one_line(value) if isinstance(value, list) else value
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _add_missing(document: Any, before: Mapping[str, Any]) -> None:
    """Take over the sections of datasets, methods and variants that only `before` has."""
    for path in (
        *(("datasets",), ("methods",), ("localizers",)),
        *(("train", "per_method"), ("ablate", "variants")),
    ):
        ours, theirs = document, before
        for key in path:
            ours = ours.get(key, {})
            found = theirs.get(key)
            theirs = found if isinstance(found, Mapping) else {}
        for key, value in theirs.items():
            if key not in ours:
                ours[key] = copy.deepcopy(value)


def _in_one_line(values: list[Any]) -> CommentedSeq:
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
