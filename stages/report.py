"""The report people read in git: metrics/report.md, report.csv and the pictures in metrics/report/."""

from pathlib import Path

from PIL import Image

from pipeline import params, pictures, restore
from pipeline.evaluation import runs
from pipeline.evaluation.runs import Results
from pipeline.files import whole_directory, write_csv, write_text
from pipeline.report import galleries, page, plots
from stages import entry
from stages.layout import METRICS, MODELS, PREPARED

FREE = ("synthetic",)  # datasets whose pictures may go into git: photographs keep their licences


def main() -> None:
    results = read()
    count = params.load_evaluate().pictures
    galleries.draw(results.main, PREPARED, METRICS / "pictures", count)
    shown = draw(results, METRICS)
    write_csv(METRICS / "report.csv", page.rows(results), page.COLUMNS)
    write_text(METRICS / "report.md", page.markdown(results, shown))
    restore.deliver_rest(
        METRICS, MODELS
    )  # the ablation's runs, and those of results that came out of DVC's cache


def read() -> Results:
    """What the stages before measured, variants in the order of params.yaml."""
    ablate = params.load_ablate()
    place = {key: f"{name}/{key}" for name in reversed(ablate.run) for key in ablate.asked(name)}
    return runs.read(METRICS, {place[key]: ablate.variants[key].set for key in ablate.wanted()})


def draw(results: Results, metrics: Path) -> list[tuple[str, str]]:
    """Draw the curves into `metrics`/report and link the galleries: (title, link) of each."""
    shown = []
    with whole_directory(metrics / "report") as folder:
        for name, title, picture in plots.of(results):
            pictures.save(folder / f"{name}.png", picture)
            shown.append((title, f"report/{name}.png"))
        for name, title in galleries.TITLES.items():
            gallery, link = metrics / "pictures" / f"{name}.png", f"pictures/{name}.png"
            if not gallery.exists():
                continue
            if results.main.values["dataset"] in FREE:
                link = f"report/{name}.jpg"
                with Image.open(gallery) as picture:
                    picture.convert("RGB").save(folder / f"{name}.jpg", quality=85, subsampling=0)
            shown.append((title, link))
    return shown


if __name__ == "__main__":
    entry.run(main, __doc__)
