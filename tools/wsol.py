"""Weakly supervised object localization: train on image labels, read off boxes.

wsol preset cub-vgg16 && dvc repro
wsol predict my/photos --out predictions

`wsol COMMAND -h` explains one command. Exit codes: 0 done, 1 failed, 2 a mistake in what was given, 130
interrupted. Completion: eval "$(wsol --print-completion bash)" (or zsh).
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import UserError
from stages import entry
from tools import __version__

COMMANDS = (
    *("predict", "score", "compare", "experiments", "figures", "heatmaps"),
    *("preset", "summary", "track", "ui", "doctor"),
)


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as every user's mistake is."""

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=formatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; allowed: see {self.prog} -h")


def main() -> None:
    """The console command."""
    entry.run(lambda: run(sys.argv[1:]))


def run(given: Sequence[str]) -> None:
    """Parse `given` and call the command it names; nothing is imported for the others."""
    full = bool(given) and given[0].startswith("--print-completion")
    name = "" if full else next((word for word in given if not word.startswith("-")), "")
    if name and name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown command {name!r}; allowed: {', '.join(COMMANDS)}{meant}")
    options, unknown = parser(COMMANDS if full else {name}).parse_known_args(given)
    if unknown:
        raise UserError(
            f"unknown argument {unknown[0]!r}; allowed: see {f'wsol {name}'.strip()} -h"
        )
    if not hasattr(options, "run"):
        raise UserError(f"no command given; allowed: {', '.join(COMMANDS)} (see wsol -h)")
    options.run(options)


def parser(imported: Collection[str]) -> Parser:
    """The parser of `wsol`; the arguments of commands outside `imported` are left unknown."""
    import shtab

    top = Parser(prog="wsol", description=__doc__)
    top.add_argument("--version", action="version", version=f"wsol {__version__}")
    shtab.add_argument_to(top, "--print-completion", help="print a shell's completion script")
    commands = top.add_subparsers(metavar="COMMAND", title="commands")
    for name in COMMANDS:
        description = docstring(name)
        short = description.partition("\n")[0].replace("%", "%%")
        command = commands.add_parser(name, help=short, description=description)
        if name in imported:
            module = importlib.import_module(f"tools.{name}")
            module.arguments(command)
            command.set_defaults(run=module.main)
    return top


def docstring(name: str) -> str:
    """The docstring of a command's module, read without importing it."""
    import ast

    source = Path(__file__).with_name(f"{name}.py").read_text("utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


if __name__ == "__main__":
    main()
