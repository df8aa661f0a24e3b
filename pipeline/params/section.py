"""What a section of params.yaml is, and what is wrong with one, in words a user can act on."""

import difflib
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from pipeline.cache import project_path
from pipeline.errors import UserError
from pipeline.params import yamlfile


class Section(BaseModel):
    """One section of params.yaml: every field is required, nothing else is allowed, no conversion.

    A YAML list becomes a tuple, so a section cannot be changed once it is read.
    Ranges sit on the fields. A check over several fields is a `model_validator(mode="after")` that
    raises ValueError with one line per problem, each beginning with the field's name:
    `crop is 160; allowed: at most resize, which is 144`. A `field_validator` says only what is
    allowed: `an odd number`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


class DatasetSection(Section):
    """The section of a dataset."""

    own_val: ClassVar[bool] = False
    """Whether it may bring held-out images of its own."""

    def without_val_boxes(self) -> str | None:
        """Why no image of `val` can have a box; None where some may."""
        return None


def _in_place(text: str) -> str:
    return str(project_path(text))


@dataclass(frozen=True)
class External:
    """Marks a value that may name files outside the project; `pipeline.inputs` knows these types."""


def names_files(annotation: Any, metadata: Iterable[object] = ()) -> bool:
    """Whether a field of this type may name files outside the project."""
    marks = (*metadata, *getattr(annotation, "__metadata__", ()))
    return any(isinstance(mark, External) for mark in marks) or any(
        names_files(part) for part in get_args(annotation)
    )


FilePath = Annotated[str, AfterValidator(_in_place), External()]
"""A file, made relative to where the stage runs."""
InputFile = Annotated[str, External()]
"""A file, as written; or an address, or a name that is no file's."""
InputFolder = Annotated[str, External()]
"""A folder, as written: all files in it at any depth."""
InputArchives = Annotated[str, External()]
"""A folder, as written: the archives directly in it."""

S = TypeVar("S", bound=Section)


def validated(section: type[S], given: object, where: str, problems: list[str]) -> S | None:
    """`given` as a `section`; None where it is not one, with every reason added to `problems`.

    `where` is the dotted name of the section in params.yaml, empty for the whole file.
    """
    try:
        return section.model_validate(given)
    except ValidationError as error:
        told = [line for e in error.errors() for line in _told(section, given, where, e)]
        problems.extend(dict.fromkeys(told))  # the same once, where several items of a list are bad
        return None


def unknown(name: str, beside: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """The problem with a dotted `name` that is none of those `beside` it, nor `elsewhere`."""
    known = {other.rpartition(".")[2]: other for other in beside}
    close = difflib.get_close_matches(name.rpartition(".")[2], known, n=1)
    if meant := [known[last] for last in close] or difflib.get_close_matches(name, elsewhere, n=1):
        return f"{name} is unknown; did you mean {meant[0]}?"
    return f"{name} is unknown; allowed: {', '.join(known.values()) or 'nothing'}"


def wrong(name: str, value: object, allowed: str) -> str:
    """The problem with the `value` of `name`: what was given, what is allowed, how YAML misled."""
    number = _as_number(value) if "number" in allowed else None
    if number is None:
        return f"{name} is {shown(value)}; allowed: {allowed}"
    try:
        unquoted = yamlfile.parse(str(value), name)
    except UserError:  # two versions of YAML would read it differently
        return f"{name} is the text {value!r}; allowed: {allowed} (write {number})"
    quoted = not isinstance(unquoted, str)
    hint = "write it without quotes" if quoted else f"YAML reads {value} as text: write {number}"
    return f"{name} is the text {value!r}; allowed: {allowed} ({hint})"


def described(annotation: Any, metadata: Iterable[object] = ()) -> str:
    """What a field of this type and these limits allows, as in `a number from 0 to 1`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return described(arguments[0], annotation.__metadata__)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        kinds = [described(a, metadata) for a in arguments if a is not type(None)]
        return " or ".join(kinds + ["null"] * (type(None) in arguments))
    if origin is tuple:
        some = "MinLen" in {type(limit).__name__ for limit in _limits(metadata)}
        return f"a {'non-empty ' * some}list, each item: {described(arguments[0])}"
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        kind = "a whole number" if annotation is int else "a number"
        return f"{kind}{_range(_limits(metadata))}"
    if annotation is str:
        patterns = [p for limit in _limits(metadata) if (p := getattr(limit, "pattern", None))]
        return " that matches ".join(["a text", *patterns])
    if isinstance(annotation, type) and issubclass(annotation, Section):
        names = ", ".join(annotation.model_fields)
        return f"a section with {names}" if names else "the empty section {}"
    return "a section"


def _told(section: type[Section], given: object, where: str, error: Mapping[str, Any]) -> list[str]:
    """The lines that tell one pydantic error of `section`."""
    path, field, siblings = _place(section, error["loc"])
    name = ".".join(filter(None, [where, *path]))
    beside = name.rpartition(".")[0]
    if error["type"] == "extra_forbidden":
        return [unknown(name, (f"{beside}.{s}".lstrip(".") for s in siblings))]
    allowed = described(field.annotation, field.metadata) if field else described(section)
    if error["type"] == "missing":
        return [f"{name} is missing; allowed: {allowed}"]
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        if field is None or _section_of(field.annotation):
            return [f"{name}.{line}".lstrip(".") for line in text.splitlines()]
        allowed = text
    value: Any = given
    for part in path:
        value = value[part]
    return [wrong(name or "the file", value, allowed)]


def _place(
    section: type[Section], loc: tuple[int | str, ...]
) -> tuple[list[str], FieldInfo | None, list[str]]:
    """How far `loc` follows named fields: their names, the last field, its siblings' names."""
    path: list[str] = []
    field: FieldInfo | None = None
    inside: type[Section] | None = section
    siblings = list(section.model_fields)
    for part in map(str, loc):
        if inside is not None:
            siblings = list(inside.model_fields)
            field = inside.model_fields.get(part)
        elif field is None or get_origin(field.annotation) is not dict:
            break  # inside a value: the value is reported as a whole
        else:  # a mapping of names to sections
            field = FieldInfo(annotation=get_args(field.annotation)[1])
        path.append(part)
        inside = _section_of(field.annotation) if field else None
    return path, field, siblings


def _section_of(annotation: Any) -> type[Section] | None:
    kinds = [annotation, *get_args(annotation)] if get_origin(annotation) is not dict else []
    sections = [k for k in kinds if isinstance(k, type) and issubclass(k, Section)]
    return sections[0] if sections else None


def _limits(metadata: Iterable[object]) -> list[object]:
    """Single limits; a `Field(ge=…, le=…)` inside an annotation carries its own list of them."""
    return [limit for m in metadata for limit in (m.metadata if isinstance(m, FieldInfo) else [m])]


def _range(limits: Iterable[object]) -> str:
    bound = {type(limit).__name__: limit for limit in limits}
    values = {
        word: getattr(bound[kind], kind.lower())
        for kind, word in {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}.items()
        if kind in bound
    }
    if values.keys() == {">=", "<="}:
        return f" from {values['>=']} to {values['<=']}"
    return " and".join(f" {word} {value}" for word, value in values.items())


def _as_number(value: object) -> str | None:
    """The number that a text spells, as YAML wants it written; None where it spells none."""
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return f"{Decimal(value.strip().replace('_', '')):f}" if math.isfinite(number) else None


def shown(value: object) -> str:
    """A value in one line, as messages show it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(v if isinstance(v, str) else shown(v) for v in value)}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a section" if isinstance(value, dict) else repr(value)
