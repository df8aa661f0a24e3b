"""The trained model as MLflow serves it: a file that `mlflow.pyfunc` runs, never imported by ours.

The project's code lies beside the model. It is imported under a name that holds its own digest, so
that several models, of any versions of this project, and a user's own module `pipeline` can live in
one process.
"""

import base64
import hashlib
import importlib
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

COLUMNS = ["label", "score", "x0", "y0", "x1", "y1", "error"]
OURS = re.compile(r"\bpipeline(?=\.[a-z{]| import )")
"""The package's name in its own imports and module names."""


class Loader(SourceFileLoader):
    """Compiles a file of ours with the package's name replaced."""

    def path_stats(self, path: str) -> Any:
        raise OSError("no bytecode is kept: it would hold the other name")

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        text = OURS.sub(self.name.partition(".")[0], bytes(data).decode("utf-8"))
        return compile(text, path, "exec", dont_inherit=True, optimize=_optimize)


class Finder(MetaPathFinder):
    """Finds the package `name` in `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, *parts = name.split(".")
        if package != self.name:
            return None
        at = self.folder.joinpath(*parts)
        init, file = at / "__init__.py", at.with_suffix(".py")
        if parts and file.is_file():
            return spec_from_file_location(name, file, loader=Loader(name, str(file)))
        if not init.is_file():
            return None
        return spec_from_file_location(
            name,
            init,
            loader=Loader(name, str(init)),
            submodule_search_locations=[str(at)],
        )


def package(folder: Path) -> str:
    """The name under which the code in `folder` can be imported from now on."""
    sha = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        sha.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    name = f"wsol_{sha.hexdigest()[:16]}"
    if not any(isinstance(known, Finder) and known.name == name for known in sys.meta_path):
        sys.meta_path.insert(0, Finder(name, folder))
    return name


def images_of(given: Any) -> list[Any]:
    """The images of a request: a table with the column `image`, a mapping, or a plain list of them."""
    if isinstance(given, pd.DataFrame):
        given = given if "image" in given.columns else {"": given}
    if isinstance(given, pd.DataFrame | dict):
        if "image" not in given:
            raise refused("has no `image`")
        given = given["image"]
    if isinstance(given, str | bytes):
        given = [given]
    found = list(given)
    if found and all(isinstance(one, dict) for one in found):  # "instances": [{"image": …}, …]
        found = [one.get("image") for one in found]
    return [one[0] if not isinstance(one, str | bytes) and _single(one) else one for one in found]


def _single(value: Any) -> bool:
    return hasattr(value, "__len__") and len(value) == 1


def refused(what: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(
        f'the request {what}; allowed: {{"inputs": {{"image": [base64 of an image file, …]}}}}, or '
        "`instances`, `dataframe_split` or `dataframe_records` with a column `image`"
    )


def encoded(image: Any) -> bytes | str:
    """An image file's bytes, from bytes or base64 text; a text says why there are none."""
    if isinstance(image, bytes | bytearray | memoryview):
        image = bytes(image)
        if not re.fullmatch(rb"[A-Za-z0-9+/\s]{16,}={0,2}\s*", image):
            return image
        image = image.decode("ascii")
    if not isinstance(image, str):
        return f"it is {type(image).__name__}; allowed: an image file as base64 text or bytes"
    try:
        return base64.b64decode(re.sub(r"^data:[^,]*,|\s", "", image), validate=True)
    except ValueError:
        return "it is not base64; allowed: an image file as base64 text"


class Localizer(PythonModel):
    """One row per image: what is on it, how likely, and the box around it; or the error."""

    def load_context(self, context: PythonModelContext) -> None:
        name = package(Path(context.artifacts["code"]))
        predictor = importlib.import_module(f"{name}.model.predictor").Predictor
        self.predictor = predictor.load(Path(context.artifacts["models"]))

    def predict(
        self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        files = [encoded(image) for image in images_of(model_input)]
        answers = iter(self.predictor([file for file in files if isinstance(file, bytes)]))
        rows = []
        for file in files:
            seen = next(answers) if isinstance(file, bytes) else file
            if isinstance(seen, str | Exception):
                rows.append((*[None] * 6, str(seen)))
            else:
                rows.append((seen.label, seen.score, *seen.box, None))
        table = pd.DataFrame(rows, columns=COLUMNS)
        # As objects, numbers that are missing reach JSON as null; NaN would not be JSON.
        return (
            table
            if table["error"].isna().all()
            else table.astype(object).where(table.notna(), None)
        )


set_model(Localizer())
