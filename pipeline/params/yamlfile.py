"""Reading YAML strictly: no key twice, keys are text, syntax errors in one line with their number."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from pipeline.errors import UserError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads a float as Python and `dvc exp run -S` write it."""


# DVC writes 0.00001 as 1e-05, which YAML 1.1 takes for text; a hand-written 1e-5 stays text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[1-9]e[-+][0-9]{2,}$"), list("+-123456789")
)


def parse(text: str, name: str) -> Any:
    """The plain value that the YAML `text` of the file `name` holds."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if problems := [f"{name}: {problem}" for problem in _key_problems(node, "")]:
            raise UserError(problems)
        return None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        what = " ".join(str(part) for part in (error.problem, error.context) if part)
        raise UserError(f"{name}: {where}this is no YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserError(f"{name}: line {line}: this is no YAML: {error.reason}") from None


def _key_problems(node: yaml.Node | None, where: str) -> Iterator[str]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _key_problems(item, where)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag != "tag:yaml.org,2002:str":
            yield f"line {line}: the key {key.value!r} is no text; allowed: a name"
            continue
        path = f"{where}{key.value}"
        if key.value in first:
            yield f"{path} is given twice (lines {first[key.value]} and {line}); keep one"
        first.setdefault(key.value, line)
        yield from _key_problems(value, f"{path}.")
