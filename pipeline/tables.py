"""CSV and text files that people make, read in the encoding and with the delimiter their program wrote."""

import codecs
import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.text import uncell

Row = dict[str, str]

BOMS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
DELIMITERS = (",", ";", "\t", "|")
SHOWN = 20  # mistakes of one file that are listed; the rest are counted


class Line(NamedTuple):
    """A row of a table and the line of the file on which it ends, from 1."""

    number: int
    values: Row


def decode(content: bytes, name: Path | str) -> str:
    """The text of a file: UTF-8, UTF-16 or UTF-32 with or without a byte order mark, else Windows-1252.

    Raises UserError naming the file if it is in none of them.
    """
    for encoding in (*_marked(content), *_unmarked(content)):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{name} is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


def _marked(content: bytes) -> list[str]:
    return [encoding for mark, encoding in BOMS if content.startswith(mark)][:1]


def _unmarked(content: bytes) -> list[str]:
    """What text without a mark may be in. In UTF-16 every other byte of a table's ASCII is zero."""
    head = content[:1000]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) * 4 > len(head):
        return ["utf-16-le" if odd > even else "utf-16-be"]
    return [] if 0 in head else ["utf-8", "cp1252"]


def read(path: Path, columns: Sequence[str], name: str = "") -> list[Line]:
    """The rows of a CSV file that has these `columns`, in any order and among others.

    Delimited by comma, semicolon, tab or bar, whichever splits the header into the columns; values are
    stripped, empty rows left out. name: what messages call the file, if not by its path. Raises
    UserError if the file cannot be read, lacks a column, or has a row of more cells than columns.
    """
    name = name or str(path)
    text = decode(_content(path, name), name)
    if text[:4].lower() == "sep=":  # the line by which Excel learns the delimiter
        text = "\n" + text.partition("\n")[2]
    header, delimiter = _header(text, columns)
    if lacking := [column for column in columns if header.count(column) != 1]:
        found = ", ".join(header) or "none"
        twice = [column for column in lacking if column in header]
        what = (
            f"has the column {twice[0]} twice" if twice else f"has no column {', '.join(lacking)}"
        )
        raise UserError(f"{name} {what}; its columns are {found}; needed: {','.join(columns)}")
    lines, problems = [], []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for cells in _filled(reader):
            values = [uncell(cell.strip()) for cell in cells]
            if values == header:
                continue
            if any(values[len(header) :]):
                problems.append(
                    f"{name}, line {reader.line_num} has {len(values)} cells, and the header "
                    f"{len(header)}; put text that holds {delimiter!r} in double quotes"
                )
            padded = values + [""] * (len(header) - len(values))
            lines.append(Line(reader.line_num, dict(zip(header, padded, strict=False))))
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num} is not CSV: {error}") from error
    raise_if_any(problems)
    return lines


def _content(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "it is a link to nothing" if path.is_symlink() else error.strerror
        raise UserError(f"{name} cannot be read: {reason}") from error


def _header(text: str, columns: Sequence[str]) -> tuple[list[str], str]:
    """The column names and the delimiter under which most of `columns` are among them."""
    found = []
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            first = [cell.strip() for cell in next(_filled(reader), [])]
        except csv.Error:
            first = []
        found.append((first, delimiter))
    return max(found, key=lambda option: (len(set(columns) & set(option[0])), len(option[0])))


def _filled(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    return (cells for cells in rows if any(cell.strip() for cell in cells))


def typed(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file that the pipeline wrote: numbers as numbers, empty cells as None."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _typed(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _typed(text: str) -> float | int | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return uncell(text) or None


def columns(path: Path) -> dict[str, NDArray[np.float64]]:
    """Such a file of numbers by column, NaN where a cell is empty; {} where the file is absent."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows or [{}])[0]
    }


def number(text: str) -> float:
    """A finite number, with a decimal point or comma; ValueError says what is wrong."""
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def raise_if_any(problems: Sequence[str]) -> None:
    """UserError with the first of the `problems` and the number of the others, if there is one."""
    if problems:
        raise UserError(shortened(problems))


def shortened(problems: Sequence[str]) -> list[str]:
    """The first of the `problems` and the number of the others."""
    more = len(problems) - SHOWN
    return [*problems[:SHOWN], *([f"and {more} more like these"] if more > 0 else [])]
