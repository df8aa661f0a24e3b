"""How the report writes figures, differences and tables in Markdown."""

from collections.abc import Mapping, Sequence

from pipeline.evaluation.metrics import Figure
from pipeline.text import markdown

NONE = "–"


def cell(figure: Figure | None) -> str:
    """A figure with its interval: `37.4 (33.0–42.1)`."""
    if figure is None:
        return NONE
    value = f"{figure.value:.1f}"
    return value if figure.low is None else f"{value} ({interval(figure)})"


def interval(figure: Figure) -> str:
    """The interval alone: `33.0–42.1`."""
    return NONE if figure.low is None else f"{figure.low:.1f}–{figure.high:.1f}"


def points(delta: Figure | None) -> str:
    """A difference in percentage points, always signed: `−3.1 (−6.0 to −0.2)`."""
    if delta is None:
        return NONE
    value, *ends = (f"{end:+.1f}".replace("-", "−") for end in delta if end is not None)
    return f"{value} ({' to '.join(ends)})" if ends else value


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table that also reads well as plain text.

    The first `left` columns are aligned left, the others (numbers) right.
    """
    lines = [[markdown(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (w - 1) + ("-" if i < left else ":") for i, w in enumerate(widths)]
    padded = [
        [
            t.ljust(w) if i < left else t.rjust(w)
            for i, (t, w) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def change(values: Mapping[str, object]) -> str:
    """A variant's own values without their sections: `plug_points: [pool4, conv5_3]`."""
    shown = []
    for key, value in values.items():
        if isinstance(value, list | tuple):
            value = f"[{', '.join(map(str, value))}]"
        elif isinstance(value, bool):
            value = str(value).lower()
        shown.append(f"{key.split('.')[-1]}: {value}")
    return "; ".join(shown)
