"""Put the chosen dataset into data/raw: drawn, downloaded or copied, and checked."""

import argparse

from tqdm import tqdm

from pipeline import datasets, params
from pipeline.disk import full_disk_told
from pipeline.outputs import whole_directory
from stages import entry
from stages.layout import RAW


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.download", description=__doc__).parse_args()
    settings = params.load(method=False)
    with (
        full_disk_told(RAW),
        whole_directory(RAW) as out,
        tqdm(desc="download") as bar,
    ):

        def progress(done: int, total: int, unit: str) -> None:
            bar.total, bar.unit, bar.unit_scale = total or None, unit, unit == "B"
            bar.update(done - bar.n)

        report = datasets.Report(say=tqdm.write, progress=progress)
        datasets.module(settings.dataset).download(settings.data, out, report)
    size = sum(file.stat().st_size for file in RAW.rglob("*"))
    print(f"{settings.dataset}: {RAW} is ready, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    entry.run(main)
