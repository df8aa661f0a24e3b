"""Write ready-made settings into params.yaml, comments kept; without a name, list them.

wsol preset cub-vgg16 -S method=ahd -S 'methods.ahd.plug_points=[pool4, conv5_3]'
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import params, presets
from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.params import section, yamlfile


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", help="left out: the presets are listed")
    parser.add_argument(
        "-S",
        "--set-param",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a value of your own, by dotted key and in YAML, as in `dvc exp run -S`",
    )


def main(options: argparse.Namespace) -> None:
    if options.preset is None:
        if options.set_param:
            raise UserError("-S goes with a preset; single values are changed in params.yaml")
        print(listing())
    else:
        print(apply(options.preset, overrides(options.set_param)))


def listing() -> str:
    """One line for each preset."""
    names = presets.names()
    width = max(map(len, names))
    return "\n".join(f"{name:{width}}  {presets.title(name)}" for name in names)


def overrides(given: list[str]) -> dict[str, Any]:
    """Values by dotted key of arguments `key=value`."""
    values = {}
    for argument in given:
        key, equals, text = argument.partition("=")
        if not equals:
            raise UserError(f"-S {argument!r} has no value; allowed: key=value")
        values[key] = value_of(key, text)
    return values


def value_of(key: str, text: str) -> Any:
    """`text` read as YAML; UserError where that would not be the text the user typed."""
    quoting = f"a text with brackets, quotes, # or : needs quotes of its own: -S \"{key}='…'\""
    try:
        value = yamlfile.parse(text, f"-S {key}")
    except UserError as error:
        problems = error.problems
        raise UserError(
            [f"{line}; {quoting}" if "invalid YAML" in line else line for line in problems]
        ) from None
    plain = isinstance(value, str) and not text.lstrip().startswith(("'", '"'))
    if (plain and value != text.strip()) or (isinstance(value, dict) and "{" not in text):
        raise UserError(f"-S {key} is read as {section.shown(value)}, not as {text!r}; {quoting}")
    return value


def apply(name: str, own: Mapping[str, Any], path: Path = params.FILE) -> str:
    """Write the preset `name` with the user's `own` values into `path`; tell what changed.

    Whole or not at all: what would not pass the check is not written.
    """
    before = params.read(path)
    after = presets.applied(name, before, own)
    params.load_all(path, after)
    write_text(path, after)
    changes = difference(before, yamlfile.parse(after, str(path)))
    count = f"{len(changes)} value{'' if len(changes) == 1 else 's'} changed"
    return "\n".join([f"{path}: {name}, {count}", *changes])


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each value that is not the same: `train.epochs: 14 → 50`."""
    old, new = params.leaves(before), params.leaves(after)
    keys = [key for key in {**new, **old} if old.get(key, ...) != new.get(key, ...)]
    return [f"  {key}: {_shown(old, key)} → {_shown(new, key)}" for key in keys]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return section.shown(values[key]) if key in values else "absent"
