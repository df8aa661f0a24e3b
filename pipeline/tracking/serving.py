"""A trained model as a folder that `mlflow.pyfunc.load_model` loads and `mlflow models serve` serves."""

import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

from pipeline.tracking import store

# What `pipeline.model.predictor` and `pipeline.tracking.served_model` import; a test holds this against them.
PACKAGES = (
    *("mlflow", "numba", "numpy", "pandas", "pillow", "pyarrow", "pydantic", "pyyaml"),
    *("safetensors", "scipy", "timm", "torch", "torchvision"),
)


def requirements() -> list[str]:
    """The packages at the versions the model was made with."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]


def save(target: Path, models: Path, localization: Path) -> None:
    """Write the folder `target`: weights and settings, this package, signature and requirements.

    Input: a column `image` of encoded images (bytes; base64 in JSON). Output: label, score, the box
    x0, y0, x1, y1 (half-open, pixels of the image), and for an image that cannot be read the error.
    """
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # MLflow recommends an input example; checking it would cost every run a prediction.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        for file in (*models.iterdir(), localization):
            Path(folder, file.name).symlink_to(file.resolve())
        package = Path(__file__).parents[1]
        texts = [ColSpec("string", name) for name in ("label", "error")]
        numbers = [ColSpec("double", name) for name in ("score", "x0", "y0", "x1", "y1")]
        with store.patience(store.LIVE_SECONDS, 0):
            mlflow.pyfunc.save_model(
                str(target),
                python_model=str(package / "tracking" / "served_model.py"),
                artifacts={"models": folder},
                signature=ModelSignature(
                    Schema([ColSpec("binary", "image")]),
                    Schema([*texts[:1], *numbers, *texts[1:]]),
                ),
                pip_requirements=requirements(),
                code_paths=[str(package)],
            )
