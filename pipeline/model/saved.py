"""A trained model on disk: weights.safetensors, and model.json with all that is needed to rebuild it."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline import methods
from pipeline.cache import digest_file
from pipeline.errors import UserError
from pipeline.files import read_json, whole_directory, write_json
from pipeline.methods.base import Method
from pipeline.params import Input, Params, Section
from pipeline.training.checkpoint import save_weights


@dataclass(frozen=True)
class Trained:
    """A model as it was trained, in evaluation mode."""

    method: Method
    class_names: list[str]
    input: Input
    short_side: int
    """Pixels: images are shrunk to at most this short side before all else."""
    sha256: str
    """Of weights.safetensors: the model's name in MLflow."""


def save(
    folder: Path, method: Method, settings: Params, class_names: list[str], short_side: int
) -> None:
    """Write the model, whole or not at all. short_side: of the images it was trained on."""
    with whole_directory(folder) as partial:
        save_weights(method, partial / "weights.safetensors")
        write_json(
            partial / "model.json",
            {
                "dataset": settings.dataset,
                "method": settings.method,
                "backbone": settings.backbone,
                "weights": settings.weights,
                "seed": settings.seed,
                "class_names": class_names,
                "input": settings.input.model_dump(mode="json"),
                "short_side": short_side,
                "method_params": settings.method_params.model_dump(mode="json"),
            },
        )


def load(folder: Path, device: torch.device, params: Section | None = None) -> Trained:
    """Rebuild the model. `params`, if given, take the place of the method's own (evaluation may differ).

    Raises UserError if `folder` is not what `save` writes.
    """
    try:
        model = read_json(folder / "model.json")
        state = load_file(folder / "weights.safetensors")
        name, class_names, short_side = model["method"], model["class_names"], model["short_side"]
        own = importlib.import_module(f"pipeline.methods.{name}").Params
        chosen = own.model_validate(model["method_params"]) if params is None else params
        method = methods.build(name, model["backbone"], "none", len(class_names), chosen)
        method.load_state_dict(state)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no model of this project ({' '.join(str(error).split())[:200]}); "
            "train one with `dvc repro train`, or take a teammate's with `dvc pull`"
        ) from error
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sha256 = digest_file(folder / "weights.safetensors")
    geometry = Input.model_validate(model["input"])
    return Trained(method.eval(), class_names, geometry, short_side, sha256)
