"""A trained model folder as a function: image files in, labels and boxes out.

predictor = Predictor.load(Path("models"), Path("metrics/localization.json"))
for prediction in predictor([Path("bird.jpg").read_bytes()]):
    print(prediction.label, prediction.score, prediction.box)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.loading import geometry, placement
from pipeline.model import localizer as localizers
from pipeline.model import saved
from pipeline.model.reader import Reader, Reading
from pipeline.params import CLASS_MAP
from pipeline.raw import images
from pipeline.raw.images import UnreadableImageError
from pipeline.runtime.devices import pick_device

BESIDE = "localizer"
"""The folder of the fitted localizer, beside that of the model."""


@dataclass(frozen=True)
class Prediction:
    """One image: the class, its probability, the box x0, y0, x1, y1 (half-open, pixels of the image as
    shown, of `size` (height, width)) and the heatmap float32 [height, width] in 0…1 on the network's grid."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    heatmap: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class Predictor:
    """A trained model, how boxes are read off it, and the names of its classes."""

    reader: Reader
    class_names: list[str]

    @classmethod
    def load(
        cls,
        folder: Path,
        localization: Path | None = None,
        localizer: Path | None = None,
        device: str = "auto",
    ) -> "Predictor":
        """Rebuild the model of `folder`, reading boxes as the evaluation in `localization` did.

        localization: a localization.json, and localizer: the folder of the fitted localizer; by default
        inside `folder`, where a served model has both; the localizer's else beside it.
        Raises UserError if there is no model or no evaluation.
        """
        model = saved.load(folder, pick_device(device))
        localization = localization or folder / "localization.json"
        try:
            reading = Reading.model_validate(read_json(localization)["reading"])
        except (OSError, ValueError, KeyError, ValidationError) as error:
            raise UserError(
                f"{localization} does not say how boxes are read "
                f"({' '.join(str(error).split())[:200]}); "
                "evaluate the model with `dvc repro evaluate`, or take a teammate's with `dvc pull`"
            ) from error
        fitted = None
        if reading.localizer != CLASS_MAP:
            beside = folder if (folder / localizers.SETTINGS).exists() else folder.with_name(BESIDE)
            fitted = localizers.load(localizer or beside, model.method)
        return cls(Reader(model.method, reading, fitted), model.class_names)

    def __call__(self, files: Sequence[bytes]) -> list[Prediction | UnreadableImageError]:
        """Predict a batch of image files; what cannot be decoded is answered with the reason."""
        decoded = [self._decode(file) for file in files]
        good = [one for one in decoded if not isinstance(one, UnreadableImageError)]
        answers = iter(self._predict(good) if good else [])
        return [one if isinstance(one, UnreadableImageError) else next(answers) for one in decoded]

    def _decode(self, file: bytes) -> tuple[torch.Tensor, tuple[int, int]] | UnreadableImageError:
        """The image at the test geometry, shrunk as preprocess shrinks it, and its original size."""
        reading = self.reader.reading
        try:
            image, size = images.decode(file, short_side=reading.short_side)
        except UnreadableImageError as error:
            return error
        return geometry.from_pil(image, placement.test_size(reading.input)), size

    def _predict(self, decoded: list[tuple[torch.Tensor, tuple[int, int]]]) -> list[Prediction]:
        reading = self.reader.reading
        seen = self.reader.read(torch.stack([image for image, _ in decoded]))
        maps = seen.shown[:, 0].cpu().numpy()
        score, label = seen.logits.softmax(1).max(1)
        predictions = []
        for row, box in enumerate(seen.boxes(0).boxes):
            size = decoded[row][1]
            x0, y0, x1, y1 = placement.boxes_to_image(box[None], size, reading.input)[0].tolist()
            name = self.class_names[int(label[row])]
            predictions.append(
                Prediction(name, float(score[row]), (x0, y0, x1, y1), maps[row], size)
            )
        return predictions
