"""A fitted localizer on disk, in a folder of its own, and loaded beside a model.

localizer.safetensors holds what was learned, localizer.json which localizer it is and with which params.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline import localizers
from pipeline.errors import UserError
from pipeline.files import read_json, whole_directory, write_json
from pipeline.localizers.base import Localizer
from pipeline.methods.base import Method
from pipeline.params import CLASS_MAP, Section
from pipeline.training.checkpoint import save_weights

STATE, SETTINGS = "localizer.safetensors", "localizer.json"


def save(
    folder: Path, name: str, sections: Mapping[str, Section], fitted: Localizer | None
) -> None:
    """Write the localizer, whole or not at all; of the class map only its name."""
    with whole_directory(folder) as partial:
        values = {key: section.model_dump(mode="json") for key, section in sections.items()}
        write_json(partial / SETTINGS, {"localizer": name, "localizers": values})
        if fitted is not None:
            save_weights(fitted, partial / STATE)


def load(folder: Path, method: Method, asked: str | None = None) -> Localizer | None:
    """The fitted localizer of `folder`, on the device of `method`; None for the class map.

    Raises UserError if `folder` is not what `save` writes, fits another model, or is not the one `asked` for.
    """
    try:
        given = read_json(folder / SETTINGS)
        name = given["localizer"]
        if asked not in (None, name):
            raise ValueError(f"it is {name}, not {asked}")
        if name == CLASS_MAP:
            return None
        sections = {
            key: import_module(f"pipeline.localizers.{key}").Params.model_validate(values)
            for key, values in given["localizers"].items()
        }
        localizer = localizers.build(name, method.backbone, method.num_classes, sections)
        assert localizer is not None
        localizer.load_state_dict(load_file(folder / STATE))
    except (
        *(OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError),
        *(SafetensorError, ValidationError),
    ) as error:
        raise UserError(
            f"{folder} holds no localizer that fits the model ({' '.join(str(error).split())[:200]}); "
            "fit one with `dvc repro localize`, or take a teammate's with `dvc pull`"
        ) from error
    return localizer.to(next(method.parameters()).device).eval()
