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


LARGEST = 2**20  # characters of a file; params.yaml has 15,000
MOST_VALUES = 20_000  # with aliases written out
TRUTHS = re.compile(r"(?:yes|no|on|off)$", re.IGNORECASE)
# Octal (010, 0o10), binary, digits grouped by _, and minutes or hours (1:30): text to one version of
# YAML and a number to the other, or two different numbers.
NUMBERS = re.compile(
    r"[-+]?(?:0[0-9_]+|0[bo][0-7_]+|0x[0-9a-f]*_[0-9a-f_]*|"
    r"(?=[0-9_.]*_)[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?|"
    r"[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)$",
    re.IGNORECASE,
)


def parse(text: str, name: str) -> Any:
    """The plain value that the YAML `text` of the file `name` holds.

    Raises UserError for what is not YAML, for values that YAML 1.1 (this reader) and 1.2 (DVC's) read
    differently, and for what is too large, also by aliases of aliases.
    """
    if len(text) > LARGEST:
        raise UserError(f"{name}: {len(text):,} characters; allowed: at most {LARGEST:,}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _size(node, {}, name)
        problems = [*_key_problems(node, ""), *_ambiguous(node, "")]
        if problems:
            raise UserError([f"{name}: {problem}" for problem in problems])
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise UserError(f"{name}: its lists or sections are nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        what = " ".join(str(part) for part in (error.problem, error.context) if part)
        raise UserError(f"{name}: {where}invalid YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserError(f"{name}: line {line}: invalid YAML: {error.reason}") from None
    except ValueError as error:  # a number of too many digits, a date that is none
        raise UserError(f"{name}: invalid YAML: {error}") from None


def _size(node: yaml.Node | None, sizes: dict[int, int], name: str) -> int:
    """The number of values below a node, each alias counted as what it stands for; 0: not known yet."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise UserError(
                f"{name}: line {node.start_mark.line + 1}: an anchor holds its own alias"
            )
        return sizes[id(node)]
    sizes[id(node)] = 0
    items = node.value if isinstance(node, yaml.SequenceNode) else [v for _, v in node.value]
    size = 1 + sum(_size(item, sizes, name) for item in items)
    if size > MOST_VALUES:
        raise UserError(
            f"{name}: line {node.start_mark.line + 1}: more than {MOST_VALUES:,} values, "
            "with aliases written out; allowed: fewer"
        )
    sizes[id(node)] = size
    return size


def _ambiguous(node: yaml.Node | None, where: str) -> Iterator[str]:
    """The values that YAML 1.1 and 1.2 read differently."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _ambiguous(item, where)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _ambiguous(value, f"{where}.{key.value}".lstrip("."))
    elif isinstance(node, yaml.ScalarNode):
        number = node.tag.endswith((":int", ":float"))
        if node.style is not None and not number:
            return  # quoted: text to both
        for forms, instead in ((TRUTHS, "true or false"), (NUMBERS, "a plain decimal number")):
            if forms.match(node.value):
                yield (
                    f"line {node.start_mark.line + 1}: {where} is {node.value}, which YAML 1.1 and 1.2 "
                    f"read differently; allowed: {instead}, or text in quotes"
                )


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
            yield f"line {line}: the key {key.value!r} is not text; allowed: a name"
            continue
        path = f"{where}{key.value}"
        if key.value in first:
            yield f"{path} is given twice (lines {first[key.value]} and {line}); keep one"
        first.setdefault(key.value, line)
        yield from _key_problems(value, f"{path}.")
