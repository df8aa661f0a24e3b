"""Plates of photographs for print: rows of views at equal heights, written as PNG and PDF.

Drawn by matplotlib without its global state. A plate is 7 inches wide, two columns of a paper; text
is 7 points. Boxes differ by colour (of Okabe and Ito's palette) and by line: the prediction is green
and solid, the ground truth red and dashed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.files import whole_file

if TYPE_CHECKING:  # importing matplotlib takes a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREEN, RED, INK = "#009e73", "#d55e00", "#1f2328"
SERIES = ("#0072b2", "#e69f00", "#56b4e9")
WIDTH, GAP, TITLE, MARGIN, LABEL = 7.0, 0.05, 0.16, 0.05, 0.2  # inches
TALLEST = 1.6  # inches: a photograph
FONT = 7
TYPES = ("png", "pdf")


@dataclass(frozen=True)
class View:
    """A photograph uint8 [H, W, 3], or in its place a mask bool [h, w], True where white.

    aspect: width over height in which it is shown. heat: float [h, w] in 0…1, laid over the photograph.
    Boxes x0, y0, x1, y1 as shares of width and height. chosen: framed.
    """

    image: np.ndarray
    aspect: float
    title: str = ""
    heat: np.ndarray | None = None
    box: np.ndarray | None = None
    truth: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))
    chosen: bool = False


def plate(rows: Mapping[str, Sequence[View]] | Sequence[Sequence[View]]) -> "Figure":
    """Rows of views; the keys of a mapping are the rows' labels."""
    from matplotlib.figure import Figure

    labels = list(rows) if isinstance(rows, Mapping) else [""] * len(rows)
    views = list(rows.values()) if isinstance(rows, Mapping) else list(rows)
    left = MARGIN + (LABEL if any(labels) else 0)
    widest = max(sum(view.aspect for view in row) for row in views)
    longest = max(map(len, views))
    height = min(TALLEST, (WIDTH - left - MARGIN - GAP * (longest - 1)) / widest)
    titles = [TITLE if any(view.title for view in row) else GAP for row in views]
    total = len(views) * height + sum(titles) + MARGIN
    figure = Figure(figsize=(WIDTH, total))
    bottom = total
    for label, row, title in zip(labels, views, titles, strict=True):
        bottom, x = bottom - height - title, left
        if label:
            y = (bottom + height / 2) / total
            figure.text(MARGIN / WIDTH, y, label, rotation=90, va="center", fontsize=FONT)
        for view in row:
            width = height * view.aspect
            axes = figure.add_axes((x / WIDTH, bottom / total, width / WIDTH, height / total))
            _draw(axes, view)
            x += width + GAP
    return figure


def _draw(axes: "Axes", view: View) -> None:
    from matplotlib.patches import Rectangle

    axes.set_axis_off()
    extent = (0, 1, 1, 0)
    if view.image.dtype == bool:
        axes.imshow(view.image, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=0.5))
    elif view.heat is None:
        axes.imshow(view.image, extent=extent)
    else:
        grey = view.image.mean(2)
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
        alpha = 0.25 + 0.45 * view.heat  # the cold keeps its photograph
        axes.imshow(
            view.heat, cmap="viridis", vmin=0, vmax=1, alpha=alpha, extent=extent,
            interpolation="bilinear",
        )  # fmt: skip
    axes.set(aspect="auto", xlim=(0, 1), ylim=(1, 0))
    if view.chosen:
        frame = Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=2.5, clip_on=False)
        axes.add_patch(frame)
    for box in view.truth:
        _outline(axes, box, RED, dashes=(3.0, 2.0))
    if view.box is not None:
        _outline(axes, view.box, GREEN)
    weight = "bold" if view.chosen else "normal"
    axes.set_title(view.title, fontsize=FONT, pad=2, loc="left", weight=weight)


def _outline(
    axes: "Axes", box: np.ndarray, colour: str, dashes: tuple[float, float] | None = None
) -> None:
    """A box whose line has a white casing: visible on any photograph."""
    x0, y0, x1, y1 = box
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    for edge, width in (("white", 2.0), (colour, 1.0)):
        (line,) = axes.plot(*zip(*corners, strict=True), color=edge, linewidth=width)
        if dashes:
            line.set_dashes([length / width for length in dashes])


def bars(shares: Mapping[str, Mapping[str, float]], title: str) -> "Figure":
    """Stacked bars of shares that add up to 1, a bar per key, its parts labelled in percent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 2, 0.5 + 0.3 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    start = np.zeros(len(shares))
    for colour, part in zip(SERIES, next(iter(shares.values())), strict=False):
        widths = np.array([of[part] for of in shares.values()])
        drawn = axes.barh(list(shares), widths, left=start, color=colour, label=part)
        texts = [f"{100 * width:.0f} %" if width >= 0.08 else "" for width in widths]
        axes.bar_label(drawn, texts, label_type="center", fontsize=FONT)
        start += widths
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xticks=[])
    axes.set_title(title, fontsize=FONT, loc="left")
    axes.tick_params(labelsize=FONT)
    axes.legend(fontsize=FONT, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write `figure` as PNG and PDF, each whole or not at all; the same figure gives the same bytes."""
    paths = [folder / f"{name}.{kind}" for kind in TYPES]
    for path in paths:
        with whole_file(path) as partial:
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(partial, format=path.suffix[1:], dpi=300, metadata=metadata)
    return paths
