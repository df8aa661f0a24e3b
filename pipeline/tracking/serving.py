"""A trained model as a folder that `mlflow.pyfunc.load_model` loads and `mlflow models serve` serves."""

import shutil
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


def save(target: Path, models: Path, localization: Path, localizer: Path) -> None:
    """Write the folder `target`: weights, localizer and settings, this package, signature and requirements.

    Input: a column `image` of encoded images (bytes; base64 in JSON). Output: label, score, the box
    x0, y0, x1, y1 (half-open, pixels of the image), and for an image that cannot be read the error.
    """
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # MLflow recommends an input example; checking it would cost every run a prediction.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        weights, code = Path(folder, "models"), Path(folder, "code")
        weights.mkdir()
        for file in (*models.iterdir(), *localizer.glob("*"), localization):
            _place(file, weights / file.name)
        package = Path(__file__).parents[1]
        shutil.copytree(package, code, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        texts = [ColSpec("string", name) for name in ("label", "error")]
        numbers = [ColSpec("double", name) for name in ("score", "x0", "y0", "x1", "y1")]
        with store.patience(store.LIVE_SECONDS, 0):
            mlflow.pyfunc.save_model(
                str(target),
                python_model=str(package / "tracking" / "served_model.py"),
                # Not as `code_paths`: MLflow would import it under its own name, once per process.
                artifacts={"models": str(weights), "code": str(code)},
                signature=ModelSignature(
                    Schema([ColSpec("binary", "image")]),
                    Schema([*texts[:1], *numbers, *texts[1:]]),
                ),
                pip_requirements=requirements(),
            )


def _place(source: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy; MLflow refuses symbolic links."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
