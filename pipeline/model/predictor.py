"""A trained model folder as a function: pictures in, labels and boxes out.

predictor = Predictor.load(Path("models"), Path("metrics/localization.json"))
for prediction in predictor([Image.open("bird.jpg")]):
    print(prediction.label, prediction.score, prediction.box)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation import evaluator
from pipeline.files import read_json
from pipeline.loading import geometry
from pipeline.methods.base import Method
from pipeline.model import saved
from pipeline.params import Box, Heatmaps, Input
from pipeline.runtime.devices import pick_device


@dataclass(frozen=True)
class Prediction:
    """One image: the class, its probability, the box x0, y0, x1, y1 (half-open, pixels of the image as
    shown) and the heatmap float32 [height, width] in 0…1 on the network's grid."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    heatmap: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """A trained model in evaluation mode."""

    method: Method
    class_names: list[str]
    input: Input
    box: Box
    heatmap: str
    heatmaps: Heatmaps

    @classmethod
    def load(
        cls, folder: Path, localization: Path | None = None, device: str = "auto"
    ) -> "Predictor":
        """Rebuild the model of `folder`, reading boxes as the evaluation in `localization` did.

        localization: a localization.json; by default the one inside `folder`, where a served model
        has it. Raises UserError if there is no model or no evaluation.
        """
        model = saved.load(folder, pick_device(device))
        localization = localization or folder / "localization.json"
        try:
            said = read_json(localization)
            box = Box.model_validate(said["box"])
            heatmap: str = said["heatmap"].pop("name")
            heatmaps = Heatmaps.model_validate(said["heatmap"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{localization} does not say how boxes are read ({error}); "
                "evaluate the model with `dvc repro evaluate`, or take a teammate's with `dvc pull`"
            ) from error
        return cls(model.method, model.class_names, model.input, box, heatmap, heatmaps)

    def __call__(self, images: list[Image.Image]) -> list[Prediction]:
        """Predict a batch of upright RGB images of any sizes."""
        size = geometry.test_size(self.input)
        device = next(self.method.parameters()).device
        batch = torch.stack([geometry.from_pil(image, size) for image in images]).to(device)
        inputs = geometry.test_batch(batch, self.input.crop)
        seen = evaluator.heatmaps(self.method, inputs, None, self)
        maps: Tensor = seen.maps[:, 0]
        boxes, _, _ = evaluator.choose_boxes(
            maps,
            seen.features,
            evaluator.selection_of(self.box, self.method),
            self.box.threshold,
            self.box.two_stage,
        )
        score, label = seen.logits.softmax(1).max(1)
        return [
            Prediction(
                self.class_names[k],
                probability,
                tuple(
                    geometry.boxes_to_image(box[None], (image.height, image.width), self.input)[
                        0
                    ].tolist()
                ),
                heatmap,
            )
            for k, probability, box, heatmap, image in zip(
                label.tolist(), score.tolist(), boxes, maps.cpu().numpy(), images, strict=True
            )
        ]
