"""Text from outside (file names, class names, servers' answers), escaped where it leaves the program.

Terminals obey control characters, spreadsheets compute cells that begin with =, and Markdown shows HTML.
Escapes are visible, `\\x1b`, so that what was given can still be told.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from pipeline.addresses import without_secrets

# C0 but tab and newline, C1, line separators, and marks that reverse the order of what is shown.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# What tqdm draws its bars with: back to the start of the line, or up a line and nothing else.
MOVES = re.compile("(?:\n|\r|\x1b\\[A)*")
FORMULA = re.compile("'*[=+@\t\r-]")


def visible(text: str) -> str:
    """`text` with control characters spelled out; newlines and tabs stay."""
    return CONTROL.sub(_escape, text)


def line(text: str) -> str:
    """`text` on one line."""
    return visible(text.replace("\n", "\\n"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class Screen:
    """A text stream that shows control characters instead of obeying them, and no secrets of addresses."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not MOVES.fullmatch(text):
            start = "\r" if text.startswith("\r") else ""
            self._stream.write(start + visible(without_secrets(text.removeprefix("\r"))))
        else:
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def screened() -> Iterator[None]:
    """Escape what is written to standard output and error; letters they cannot encode as well."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (cast(TextIO, Screen(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def cell(value: Any) -> Any:
    """A CSV cell that a spreadsheet takes for text, by an apostrophe before what it would compute."""
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def uncell(text: str) -> str:
    """The text that `cell` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def markdown(text: str) -> str:
    """`text` in a cell of a Markdown table, without HTML."""
    return line(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
