"""A small model with random weights, as `train` leaves it."""

import tempfile
from pathlib import Path
from typing import Any

from pipeline import params
from pipeline.model import saved
from pipeline.model.reader import resolve
from tests import tiny
from tests.pipeline.methods.builders import build


def write(folder: Path, class_names: list[str], **changes: object) -> dict[str, Any]:
    """Write the model to `folder`; returns the `reading` of a localization.json of it."""
    with tempfile.TemporaryDirectory() as here:
        settings = params.load(tiny.write_params(Path(here), input__crop=64, **changes))
    model = build("cam").eval()
    saved.save(folder, model, settings, class_names, 72)
    return resolve(settings, model, 72).model_dump(mode="json")
