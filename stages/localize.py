"""Fit the localizer to training images and their labels, never to a box: localizer/."""

from pathlib import Path

from tqdm import tqdm

from pipeline import params
from pipeline.files import whole_directory, write_json
from pipeline.methods.base import Method
from pipeline.params import CLASS_MAP, Params
from stages import entry
from stages.layout import LOCALIZER, MODELS, PREPARED, run_name


def main() -> None:
    settings = params.load(localizer=True)
    if settings.localizer == CLASS_MAP:
        with whole_directory(LOCALIZER) as partial:
            write_json(partial / "localizer.json", {"localizer": CLASS_MAP, "localizers": {}})
    else:
        _fit(settings)


def _fit(settings: Params) -> None:
    from pipeline.model import saved
    from pipeline.runtime import precision
    from pipeline.runtime.devices import make_deterministic, pick_device

    settings = precision.resolved(settings)
    device = pick_device(settings.train.device)
    make_deterministic(device)
    trained = saved.load(MODELS, device, settings.method_params)
    folder = fitted(trained.method, trained.sha256, settings, run_name(settings))
    assert folder is not None
    with whole_directory(LOCALIZER) as partial:
        for file in folder.iterdir():
            (partial / file.name).write_bytes(file.read_bytes())


def fitted(model: Method, sha256: str, settings: Params, title: str) -> Path | None:
    """The folder of the fitted localizer; None for the class map."""
    if settings.localizer == CLASS_MAP:
        return None
    from pipeline.model import fitting

    with tqdm(total=0, desc=f"{title}: localize", unit="image") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return fitting.fit(
            model,
            sha256,
            PREPARED,
            settings,
            say=lambda line: tqdm.write(f"{title}: {line}"),
            progress=progress,
        )


if __name__ == "__main__":
    entry.run(main, __doc__)
