"""The report's ablation studies: a table each, what beats CAM, what has no results."""

from collections.abc import Callable, Iterator

from pipeline.evaluation import metrics
from pipeline.evaluation.runs import Results, Run, difference
from pipeline.report import published
from pipeline.report.markdown import NONE, cell, change, points, table

STUDIES = {
    "methods": "Methods",
    "localizers": "Localizers: how boxes are read off CAM's model",
    "positions_ass": "ASS: where it is plugged in",
    "selection": "ASS: hiding every time",
    "positions_ahd": "AHD: where it is plugged in",
    "masks": "AHD: what is hidden",
    "rcam": "RCAM: its parts",
}


def sections(results: Results) -> Iterator[str]:
    """One table per study; which methods beat CAM; what has no results."""
    studies: dict[str, list[Run]] = {}
    for run in results.variants.values():
        studies.setdefault(run.study, []).append(run)
    if not studies and not results.missing:
        return
    yield (
        "## Ablation studies\n\nErrors in percent (95 %). Δ: difference to the baseline row in "
        "points, with its interval over the same images; in errors negative is better, and an interval that "
        "holds zero shows no difference."
    )
    for study, runs in studies.items():
        yield f"### {STUDIES.get(study, study)}\n\n{_study(results, runs)}"
        verdicts = [_verdict(results, run) for run in runs] if study == "methods" else []
        if any(verdicts):
            yield "\n".join(f"- {verdict}" for verdict in verdicts if verdict)
    if results.missing:
        yield f"No results yet: {', '.join(f'`{key}`' for key in results.missing)}."


def _study(results: Results, runs: list[Run]) -> str:
    """Below plain CAM and the unchanged method, each variant with its difference to the latter."""
    study, shown = runs[0].study, list(runs)
    for other in (results.baseline(study, runs[0]), results.plain("cam", runs[0])):
        if other is not None and all(other is not run for run in shown):
            shown.insert(0, other)
    baselines = [results.baseline(study, run) for run in shown]
    columns: dict[str, Callable[[Run], str]] = {
        "Setting": Run.described,
        "Change": lambda run: change(run.changes),
        "Boxes": Run.boxes,
    }
    columns = {name: text for name, text in columns.items() if len(set(map(text, shown))) > 1}
    brief = metrics.brief(oracles=False)
    figures = [metric for metric in brief if any(run.figure(metric.name) for run in shown)]
    lines = []
    for run, baseline in zip(shown, baselines, strict=True):
        mark = " (baseline)" if any(run is other for other in baselines) else ""
        line = [_label(run, study) + mark, *(text(run) for text in columns.values())]
        for metric in figures:
            line.append(cell(run.figure(metric.name)))
            if metric.boxed:
                delta = difference(run, baseline, metric.name) if baseline else None
                line.append(points(delta))
        lines.append(line)
    if study == "methods" and (centre := runs[0].centre_box):
        line = ["centre box", *("" for _ in columns)]
        for metric in figures:
            line.append(f"{centre[metric.name]:.1f}" if metric.name in centre else NONE)
            line += [NONE] if metric.boxed else []
        lines.append(line)
    header = ["Variant", *columns]
    for metric in figures:
        header += [metric.heading, "Δ"] if metric.boxed else [metric.heading]
    return table(header, lines, left=1 + len(columns))


def _label(run: Run, study: str) -> str:
    if run.key == f"methods-{run.values['method']}" or not run.key:
        return published.name_of(run)
    return run.variant if run.study == study else run.key


def _verdict(results: Results, run: Run) -> str | None:
    """Whether a method beats CAM here, in one sentence; None for CAM itself or without boxes."""
    cam, parts, better = results.baseline("methods", run), [], 0
    for metric in (metric for metric in published.printed() if metric.boxed):
        name = metric.name
        delta = None if cam is None else difference(run, cam, name)
        if cam is None or delta is None:
            continue
        words = {True: "better", False: "worse", None: "no clear difference"}
        word = words[metrics.improves(name, delta)]
        better += word == "better"
        parts.append(
            f"{metric.title} {cell(run.figure(name))} against {cell(cam.figure(name))}, "
            f"difference {points(delta)}: {word}"
        )
    if not parts:
        return None
    says = ("does not beat CAM", "beats CAM in one of two figures", "beats CAM")[better]
    return f"**{_label(run, run.study)} {says} on this data.** {'; '.join(parts)}."
