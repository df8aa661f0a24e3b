"""Put the chosen dataset into data/raw: drawn, downloaded or copied, and checked."""

from pipeline import datasets, params
from pipeline.files import translate_errors, whole_directory
from stages import entry
from stages.layout import RAW
from stages.progress import Bar


def main() -> None:
    settings = params.load(method=False)
    with (
        translate_errors(RAW),
        whole_directory(RAW) as out,
        Bar(desc="download") as bar,
    ):
        report = datasets.Report(Bar.write, bar.to)
        datasets.module(settings.dataset).download(settings.data, out, report)
    size = sum(file.stat().st_size for file in RAW.rglob("*"))
    print(f"{settings.dataset}: {RAW} is ready, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    entry.run(main, __doc__)
