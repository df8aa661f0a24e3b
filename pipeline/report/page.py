"""The report as Markdown and as tidy rows: every number from a file of metrics/ or published.csv."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import GT_KNOWN, Figure
from pipeline.evaluation.runs import Results, Run, difference
from pipeline.files import read_json
from pipeline.report import published, studies
from pipeline.report.markdown import NONE, cell, interval, points, table
from pipeline.report.published import beside, same_setting

COLUMNS = [
    *("source", "table", "published_variant", "study", "variant"),
    *("dataset", "backbone", "weights", "method", "seed", "n", "figure", "value", "low", "high"),
]


def markdown(results: Results, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole report. pictures: (title, link relative to the report), in the order shown."""
    values = results.main.values
    sections = [
        f"# {published.name_of(results.main)} on {values['dataset']}, {values['backbone']}",
        "Written by the stage `report`; every number comes from a file beside this one or from "
        "`pipeline/report/published.csv`. All rows as data: [report.csv](report.csv).",
        _setting(results.main),
        _headline(results.main),
        *studies.sections(results),
        *_beside_published(results),
        *_pictures(pictures),
        _reproduce(results),
        _notes(results.main),
    ]
    return "\n\n".join(sections) + "\n"


# --- this run ---------------------------------------------------------------------------------


def _setting(run: Run) -> str:
    values = run.values
    facts = {
        "Data": f"{values['dataset']}, {values['n']:,} test images, "
        f"{values.get('n_boxes', 0):,} with boxes",
        "Method": published.name_of(run),
        "Backbone": f"{values['backbone']}, starting from weights: {values['weights']}",
        "Seed": str(values["seed"]),
        "Boxes": f"protocol {values.get('protocol', 'unknown')}; {_selection(run)}",
    }
    if invalid := values.get("invalid_boxes"):
        some = ", ".join(list(invalid)[:3]) + (", …" if len(invalid) > 3 else "")
        facts["Invalid boxes"] = (
            f"{len(invalid):,} published boxes enclose nothing and are left out, their images scored "
            f"like images without a box: {some}"
        )
    if (path := run.folder / "train.json").exists():
        facts["Training"] = _training(read_json(path))
    if "model_sha256" in values:
        facts["Model"] = f"sha256 `{values['model_sha256'][:16]}…`"
    return table(("What", "This run"), list(facts.items()), left=2)


def _training(last: dict[str, Any]) -> str:
    text = f"{last['epoch']:g} epochs; accuracy {last['train_accuracy']:.1f} % in the last one"
    return text + (f", {last['val_accuracy']:.1f} % held out" if "val_accuracy" in last else "")


def _selection(run: Run) -> str:
    sentence: str = run.values.get("boxes", {}).get("sentence", "unknown")
    return sentence


def _headline(run: Run) -> str:
    """Every figure there is, beside the box that looks at nothing."""
    centre = run.centre_box
    rows = []
    for metric in metrics.METRICS:
        if (figure := run.figure(metric.name)) is not None:
            title = f"{metric.title} ({metric.arrow}{', oracle' if metric.oracle else ''})"
            beside = f"{centre[metric.name]:.1f}" if metric.name in centre else NONE
            rows.append((title, f"**{figure.value:.1f}**", interval(figure), beside))
    text = "## Errors\n\nIn percent, with 95 % bootstrap intervals over the test images."
    header = ["Figure", "This run", "95 %", "Centre box"]
    if not centre:
        return f"{text}\n\n" + table(header[:3], [row[:3] for row in rows])
    text += (
        " The centre box looks at nothing: one box in the middle of every image, of half its area,"
        " for MaxBoxAcc of any size."
    )
    error = run.figure(GT_KNOWN.name)
    if error and GT_KNOWN.name in centre:
        high = error.value if error.high is None else error.high
        if high < centre[GT_KNOWN.name]:
            text += " This run's boxes beat it in GT-known error."
        else:
            text += " **This run's boxes do not beat it in GT-known error beyond the interval.**"
    return f"{text}\n\n" + table(header, rows)


# --- beside the thesis ------------------------------------------------------------------------


def _beside_published(results: Results) -> Iterator[str]:
    """The thesis's tables, our figures in the row of the same method and change."""
    main = results.main
    tables = published.tables(main.values["dataset"])
    pairs = {number: beside(results, rows) for number, rows in tables.items()}
    same = any(run and same_setting(row, run) for rows in pairs.values() for row, run in rows)
    text = (
        "## Beside the published tables\n\n"
        f"Ours: {main.described()}. Theirs (Z. Zhang, Localizing Object Position by Using only "
        "Image-level Labels, Concordia University, 2021): CUB-200-2011 (5,794 test images) or ILSVRC "
        "(50,000), VGG16 or ResNet50, starting from ImageNet weights. "
    )
    if same:
        text += (
            "Rows marked ✓ have dataset (all test images), backbone and starting weights in common; "
            "no other row may be compared across."
        )
    else:
        text += (
            "**No row of ours was made in the thesis's setting: ours are not comparable with the "
            "published figures.** What can be read side by side is the Δ to CAM, which each column "
            "takes within its own setting."
        )
    yield f"{text} A row without figures of ours: method not implemented here, or not run."
    for number, rows in pairs.items():
        section = (
            f"### Table {number}. {published.TITLES[number]}\n\n{_published_table(results, rows)}"
        )
        yield f"{section}\n\n{published.contradiction()}" if number in (5, 9) else section


def _published_table(results: Results, rows: list[tuple[published.Row, Run | None]]) -> str:
    shown = [m for m in published.printed() if any(m.name in row.figures for row, _ in rows)]
    ranked = shown[-1].name  # the localization figure, whose Δ to CAM is shown
    ours = any(run is not None for _, run in rows)
    cams = {row.backbone: row.figures[ranked] for row, _ in rows if row.method == "cam"}
    backbones = {row.backbone for row, _ in rows}
    header = ["Row" if len(backbones) > 1 else rows[0][0].backbone]
    for title in (*(metric.short for metric in shown), "Δ to CAM"):
        header += [f"{title}, thesis", *(["ours"] if ours else [])]
    lines = []
    for row, run in rows:
        mark = " ✓" if run and same_setting(row, run) else ""
        parts = [
            published.name_of(run) if run else published.name(row.method),
            row.variant,
            row.backbone if len(backbones) > 1 else "",
        ]
        cells = [", ".join(part for part in parts if part) + mark]
        for name in (metric.name for metric in shown):
            cells.append(row.figures.get(name, NONE))
            cells += [cell(run.figure(name) if run else None)] if ours else []
        printed = float(row.figures[ranked]) - float(cams[row.backbone])
        cells.append(NONE if row.method == "cam" else points(Figure(printed)))
        if ours:
            cam = results.plain("cam", run) if run else None
            delta = difference(run, cam, ranked) if run and cam and run is not cam else None
            cells.append(points(delta))
        lines.append(cells)
    return table(header, lines)


# --- the end ----------------------------------------------------------------------------------


def _pictures(pictures: Sequence[tuple[str, str]]) -> Iterator[str]:
    if pictures:
        kept = any(link.startswith("pictures/") for _, link in pictures)
        more = (
            "\n\nPhotographs are kept by DVC, not by git: `dvc pull` brings them." if kept else ""
        )
        yield f"## Pictures{more}"
    for title, link in pictures:
        yield f"### {title}\n\n![{title}]({link})"


def _reproduce(results: Results) -> str:
    names = [run.folder.parent.name for run in results.variants.values()]
    commands = {
        "make repro": "everything, as params.yaml says",
        **{f"dvc repro ablate@{name}": "variants of params.yaml" for name in names[-1:]},
        "dvc exp run -S method=ahd -S seed=1": "another experiment, then: dvc exp show",
        "make ui": "every run with its curves, in the browser",
    }
    width = max(map(len, commands))
    lines = [f"{command.ljust(width)}  # {why}" for command, why in commands.items()]
    return "\n".join(["## Reproduce", "", "```sh", *lines, "```"])


def _notes(run: Run) -> str:
    notes = [
        "An interval says how much a figure could move with other test images. One training stands "
        "behind each row: training again with another seed moves it too, which no interval here holds.",
    ]
    if run.figure(GT_KNOWN.name) is None:
        notes.insert(0, "The test images have no boxes: there are classification figures only.")
    else:
        notes = [
            "Top-1 localization is right when the predicted class is right and the box of its "
            "heatmap overlaps a true box with IoU ≥ 0.5; GT-known asks only for the box, from the "
            "true class's heatmap.",
            f"This run's boxes: {_selection(run)}.",
            "MaxBoxAcc and MaxBoxAccV2 take the threshold that is best on the test images "
            "themselves: an oracle, above what any one threshold chosen beforehand reaches.",
            *notes,
            "The thesis prints AHD as AMH in tables 5, 6 and 9, and MEIL as EMIL in table 10.",
        ]
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in notes)


def rows(results: Results) -> list[dict[str, Any]]:
    """Every figure of ours, of the centre box and of the thesis: one row each, `COLUMNS`.

    A published row names in `study` and `variant` which of ours stands beside it.
    """
    tidy: list[dict[str, Any]] = []
    for run in (results.main, *results.variants.values()):
        row: dict[str, Any] = {"source": "ours", "study": run.study, "variant": run.variant}
        row |= {name: run.values[name] for name in COLUMNS if name in run.values}
        names = [metric.name for metric in metrics.METRICS]
        tidy += [row | {"figure": f} | v._asdict() for f in names if (v := run.figure(f))]
    main = {name: results.main.values[name] for name in ("dataset", "n")}
    for name, value in results.main.centre_box.items():
        row = {"source": "ours", "study": "baselines", "variant": "centre_box", **main}
        tidy.append(row | {"figure": name, "value": value})
    for printed in published.rows():
        study, _, variant = printed.key.partition("-")
        row = {"source": "published", "study": study, "variant": variant, "weights": "imagenet"}
        row |= {"table": printed.table, "published_variant": printed.variant}
        row |= {name: getattr(printed, name) for name in ("dataset", "backbone", "method")}
        tidy += [row | {"figure": f, "value": v} for f, v in printed.figures.items()]
    return tidy
