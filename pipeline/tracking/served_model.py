"""The trained model as MLflow serves it: a file that `mlflow.pyfunc` runs, never imported by ours."""

import base64
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

COLUMNS = ["label", "score", "x0", "y0", "x1", "y1", "error"]


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
        files = [base64.b64decode(f) if isinstance(f, str) else f for f in model_input["image"]]
        rows = [
            (None, *[float("nan")] * 5, str(seen))
            if isinstance(seen, Exception)
            else (seen.label, seen.score, *seen.box, None)
            for seen in self.predictor(files)
        ]
        return pd.DataFrame(rows, columns=COLUMNS)


set_model(Localizer())
