"""Fill the tables of README.md and docs/ from the files of benchmarks/ and the headers of pipeline/methods.

A table stands between two markers, the first of which names its source.

python -m benchmarks.tables            rewrites the pages whose tables are out of date
"""

import ast
import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- ((?:benchmarks|pipeline)/\S+) -->\n).*?(<!-- end -->)", re.S)


def main() -> None:
    for page in pages():
        before = page.read_text("utf-8")
        if (after := filled(before)) != before:
            page.write_text(after, "utf-8")
            print(page.relative_to(ROOT))


def pages() -> list[Path]:
    """The Markdown files that people read: README.md and docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str) -> str:
    """A page's text with every block written anew from the file it names."""

    def block(match: re.Match[str]) -> str:
        path = ROOT / match[2]
        return match[1] + "\n".join(TABLES[path.name](path)) + "\n" + match[3]

    return BLOCK.sub(block, text)


def experiments(path: Path) -> list[str]:
    """Rows of `wsol experiments --out`: errors with intervals, best accuracies, minutes."""
    lines = []
    for row in _rows(path):
        name = f"`{row['method']}`" + (f" {row['settings']}" if row["settings"] else "")
        errors = [
            f"{float(row[n]):.1f} [{float(row[n + '_low']):.1f}, {float(row[n + '_high']):.1f}]"
            for n in ("top1_cls_err", "top1_loc_err", "gt_known_loc_err")
        ]
        accuracies = [f"{float(row[n]):.1f}" for n in ("max_box_acc", "max_box_acc_v2")]
        lines.append([name, row["seeds"], *errors, *accuracies, row["minutes"]])
    titles = ["method", "seeds", "top-1 cls err", "top-1 loc err", "GT-known err", "MaxBoxAcc"]
    return _table([*titles, "V2", "min"], lines)


def photographs(path: Path) -> list[str]:
    """Rows of `benchmarks.photographs`: localizers on real photographs, beside the centre box."""
    lines, seen = [], set()
    for row in sorted(_rows(path), key=lambda row: (row["data"], row["backbone"], row["trunk"])):
        data = row["data"].removesuffix(".tgz").removesuffix("/")
        setting = [data, row["backbone"], row["trunk"]]
        if data not in seen:
            seen.add(data)
            error = f"{float(row['centre_box_gt_known_err']):.1f}"
            lines.append([data, "", "", "centre box", "", "", "", error, ""])
        errors = [f"{float(row[name]):.1f}" for name in ("top1_cls_err", "top1_loc_err")]
        known, low, high = (float(row[f"gt_known_loc_err{end}"]) for end in ("", "_low", "_high"))
        delta = ""
        if row["localizer"] != "class_map":
            ends = (float(row[name]) for name in ("difference_low", "difference_high"))
            delta = "{:+.1f} [{:+.1f}, {:+.1f}]".format(
                float(row["gt_known_minus_class_map"]), *ends
            )
        lines.append(
            [
                *setting,
                f"`{row['localizer']}`",
                row["seed"],
                *errors,
                f"{known:.1f} [{low:.1f}, {high:.1f}]",
                delta,
            ]
        )
    titles = ["images", "backbone", "trunk", "localizer", "seed", "top-1 cls", "top-1 loc"]
    return _table([*titles, "GT-known", "to `class_map`"], lines)


def heatmaps(path: Path) -> list[str]:
    """Rows of `wsol heatmaps`."""
    titles = ["`heatmap`", "top-1 loc err", "GT-known err", "MaxBoxAcc", "V2", "seconds"]
    return _table(titles, [list(row.values()) for row in _rows(path)])


def steps(path: Path) -> list[str]:
    """Rows of `benchmarks.methods`."""
    found = json.loads(path.read_text("utf-8"))["steps"]
    rows = [
        [f"`{row['method']}`", f"{row['ms']:.0f}", f"{row['ratio']:.2f}"]
        for row in sorted(found, key=lambda row: row["ratio"])
    ]
    return _table(["method", "ms per step", "× CAM"], rows)


def scale(path: Path) -> list[str]:
    """Rows of `benchmarks.scale`."""
    rows = [
        [
            f"{run['images']:,}",
            f"{run['preprocess']['images_per_s']:.0f}",
            f"{run['preprocess']['all_pss_mb']:.0f} MB in {run['preprocess']['processes']}",
            f"{run['kill']['saved_cpu_s']:.0f} of {run['preprocess']['cpu_s']:.0f} s",
            f"{run['noop_s']:.1f} s ({run['noop_cpu_s']:.1f})",
            f"{run['push']['files']} in {run['push']['seconds']:.1f} s",
            f"{1000 * run['start']['open_s']:.0f} + {1000 * run['start']['first_batch_s']:.0f} ms",
        ]
        for run in json.loads(path.read_text("utf-8"))["runs"]
    ]
    titles = [
        "images",
        "preprocess, images/s",
        "most memory, processes",
        "killed half-way: CPU time saved",
    ]
    return _table(
        [*titles, "no-op `dvc repro` (CPU)", "files pushed", "split opened + first batch"], rows
    )


def training(path: Path) -> list[str]:
    """Parts of `benchmarks.training`: images per second, and how many times the plain loop's."""
    found = json.loads(path.read_text("utf-8"))
    titles = {"loader": "reading images", "step": "training step", "whole": "an epoch"}
    rows = [
        [
            f"{title}, {name.removeprefix('ours, ')}",
            f"{rates['theirs']:.0f}",
            f"{rate:.0f}",
            f"{rate / rates['theirs']:.1f}",
        ]
        for part, title in titles.items()
        for rates in [found[part]["images per second"]]
        for name, rate in rates.items()
        if name != "theirs"
    ]
    return _table(["", "plain loop", "ours", "times"], rows)


def supervised(path: Path) -> list[str]:
    """Result of `benchmarks.supervised`."""
    found = json.loads(path.read_text("utf-8"))
    row = [
        *(f"{found[name]:.1f}" for name in ("gt_known_loc_err", "centre_box_gt_known_loc_err")),
        f"{found['mean_iou']:.2f}",
        *(str(found[name]) for name in ("test_images", "epochs", "seconds")),
    ]
    titles = ["GT-known err", "of a box in the middle", "mean IoU", "test images", "epochs", "s"]
    return _table(titles, [row])


def sweeps(path: Path) -> list[str]:
    """The `speed` part of `benchmarks.boxes`."""
    rows = []
    for row in json.loads(path.read_text("utf-8"))["speed"]:
        ms, ratios = row["ms"], row["ratios"]
        times = [f"{ms[name]:.2f}" for name in ("classic", "wsoleval")]
        versus = ("classic over label", "classic over findContours", "wsoleval over opencv")
        faster = [f"{of:,.0f}" if of >= 100 else f"{of:.3g}" for of in map(ratios.get, versus)]
        rows.append([f"`{row['map']}`", str(row["thresholds"]), *times, *faster])
    titles = ["map", "thresholds", "`classic` ms", "`wsoleval` ms"]
    versus = (
        "`classic` × label",
        "`classic` × findContours",
        "`wsoleval` × the benchmark's OpenCV",
    )
    return _table([*titles, *versus], rows)


REFERENCE = re.compile(
    r'(?P<authors>[^"]+), "(?P<title>[^"]+)",\s(?P<published>.*?\d{4}(?:; thesis chapter \d)?)'
)


def methods(path: Path) -> list[str]:
    """A row for each method, from the module docstring of its file."""
    rows = [_method(file) for file in sorted(path.glob("*.py")) if file.stem not in SHARED]
    return _table(["`method`", "what it does", "paper", "file"], rows)


SHARED = ("__init__", "base")


def _method(file: Path) -> list[str]:
    """First sentence and citation of a docstring that has the title, an empty line, then the citation."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    what, _, body = docstring.partition("\n\n")
    if (found := REFERENCE.match(" ".join(body.split()))) is None:
        raise ValueError(
            f'{file}: no citation, `authors, "title", where year`, after the first line'
        )
    surnames = [name.split(". ")[-1] for name in found["authors"].split(", ")]
    authors = " & ".join(surnames) if len(surnames) < 3 else f"{surnames[0]} et al."
    note = "; **a reconstruction**, no code is public" if "RECONSTRUCTION" in body else ""
    paper = f"{authors}, {found['published']}{note}"
    return [
        f"`{file.stem}`",
        what.rstrip("."),
        paper,
        f"[`{file.name}`](../pipeline/methods/{file.name})",
    ]


TABLES: dict[str, Callable[[Path], list[str]]] = {
    "birds.csv": experiments,
    "boxes.json": sweeps,
    "heatmaps.csv": heatmaps,
    "photographs.csv": photographs,
    "methods": methods,
    "methods.json": steps,
    "methods-mobilenet_v2.json": steps,
    "supervised.json": supervised,
    "training.json": training,
    "scale.json": scale,
}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    main()
