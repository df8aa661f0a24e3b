"""The trained model as MLflow serves it: a file that `mlflow.pyfunc` runs, never imported by ours."""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image, ImageOps


def decode(image: bytes | str) -> Image.Image:
    """An encoded image, as bytes or as their base64 text, upright and in RGB."""
    encoded = base64.b64decode(image) if isinstance(image, str) else image
    return ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")


class Localizer(PythonModel):
    """One row per image: what is on it, how likely, and the box around it."""

    def load_context(self, context: PythonModelContext) -> None:
        from pipeline.model.predictor import Predictor

        self.predictor = Predictor.load(Path(context.artifacts["models"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        found = self.predictor([decode(image) for image in model_input["image"]])
        rows = [(p.label, float(p.score), *map(float, p.box)) for p in found]
        return pd.DataFrame(rows, columns=["label", "score", "x0", "y0", "x1", "y1"])


set_model(Localizer())
