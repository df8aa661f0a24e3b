"""The report's curves, drawn by matplotlib's Agg without its global state.

Every function returns a PIL image (`pictures.save` writes it): the same numbers, the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline import tables
from pipeline.evaluation.formats import threshold_curve as curves
from pipeline.evaluation.metrics import IOU_CORRECT, IOU_V2
from pipeline.evaluation.runs import Results, Run
from pipeline.report import published

if TYPE_CHECKING:  # importing matplotlib takes a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe-Ito
GREY = "#656d76"


def of(results: Results) -> Iterator[tuple[str, str, Image.Image]]:
    """The curves these results have the files for: (name, title, picture)."""
    methods = {
        published.name(run.values["method"]): run
        for run in results.variants.values()
        if run.key == f"methods-{run.values['method']}"
    }
    lines = {name: _line(run, IOU_CORRECT) for name, run in methods.items()}
    if len(drawn := {name: line for name, line in lines.items() if line}) > 1:
        chosen = {name: t for name in drawn if (t := methods[name].threshold) is not None}
        title = f"Images located at IoU ≥ {IOU_CORRECT}, by method"
        yield "methods", title, threshold_curve(drawn, chosen=chosen)
    main = results.main
    deltas = {f"IoU ≥ {delta}": _line(main, delta) for delta in IOU_V2}
    if drawn := {name: line for name, line in deltas.items() if line}:
        threshold = main.threshold
        chosen = {} if threshold is None else dict.fromkeys(drawn, threshold)
        title = f"Images located by {published.name(main.values['method'])}, by IoU"
        yield "thresholds", title, threshold_curve(drawn, chosen=chosen)
    if epochs := tables.columns(main.folder / "epochs.csv"):
        yield "training", "Training", training_curves(epochs)


def _line(run: Run, delta: float) -> tuple[np.ndarray, np.ndarray] | None:
    curve = curves.read(run.folder)
    return (curve["threshold"], curve[curves.name(delta)]) if curve else None


def threshold_curve(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    chosen: Mapping[str, float] | None = None,
) -> Image.Image:
    """Percent of images whose box is right against the box threshold, one line per name.

    lines: name → (thresholds [T], accuracies in percent [T]). A ring marks each line's maximum, the
    oracle threshold of MaxBoxAcc; a dot the threshold `chosen` without looking at test images.
    """
    figure, (axes,) = _figure(1)
    for number, (name, (thresholds, accuracies)) in enumerate(lines.items()):
        colour = SERIES[number % len(SERIES)]
        axes.plot(thresholds, accuracies, color=colour, label=name)
        if np.isfinite(accuracies).any():
            top = int(np.nanargmax(accuracies))
            axes.plot(thresholds[top], accuracies[top], "o", color=colour, mfc="white", ms=7)
        if chosen and name in chosen:
            height = np.interp(chosen[name], thresholds, accuracies)
            axes.plot(chosen[name], height, "o", color=colour, ms=7)
    ends = np.array([(t[0], t[-1]) for t, _ in lines.values()])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    relative = low >= 0 and high <= 1
    unit = "fraction of the heatmap's range" if relative else "in the map's own unit"
    axes.set(xlabel=f"box threshold, {unit}", ylabel="images located, %")
    axes.set(xlim=(0, 1) if relative else (low, high), ylim=(0, 102))
    marks = "○ best on the test images (oracle)" + ("    ● used" if chosen else "")
    axes.annotate(marks, (0, 1), (0, 6), "axes fraction", "offset points", color=GREY, fontsize=9)
    return _rendered(figure)


def training_curves(epochs: Mapping[str, np.ndarray]) -> Image.Image:
    """Loss and accuracy (percent) by epoch, training and validation.

    epochs: columns of epochs.csv, [E] each; a column that is absent or all NaN is not drawn.
    """
    from matplotlib.ticker import MaxNLocator

    figure, panes = _figure(2)
    for axes, quantity in zip(panes, ("loss", "accuracy"), strict=True):
        for split, colour, name in (
            ("train", SERIES[0], "training"),
            ("val", SERIES[1], "held out"),
        ):
            values = epochs.get(f"{split}_{quantity}")
            if values is not None and np.isfinite(values).any():
                mark = "o" if len(values) <= 30 else ""
                axes.plot(epochs["epoch"], values, color=colour, marker=mark, ms=4, label=name)
        axes.set_title(quantity + (", %" if quantity == "accuracy" else ""), loc="left")
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0, top=102 if quantity == "accuracy" else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _rendered(figure)


def _figure(panes: int) -> tuple["Figure", Sequence["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2 if panes == 1 else 9.6, 4.2), dpi=110, layout="constrained")
    row: Any = figure.subplots(1, panes, squeeze=False)
    for axes in row[0]:
        axes.grid(color="#d8dee4", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return figure, row[0]


def _rendered(figure: "Figure") -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for axes in figure.axes:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
