"""The packaged model: decoding, request forms, bad rows, and two models in one process."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.files import write_json
from pipeline.model.predictor import Prediction, Predictor
from pipeline.tracking import serving
from tests import trained_model
from tests.made import encode

NAMES = ["a", "b", "c", "d", "e"]


def package(folder: Path, names: list[str] = NAMES) -> Path:
    """A model as the stages leave it, packaged into `folder`/served."""
    folder.mkdir()
    reading = trained_model.write(folder / "models", names)
    write_json(folder / "localization.json", {"reading": reading})
    serving.save(
        folder / "served",
        folder / "models",
        folder / "localization.json",
        folder / "localizer",
    )
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.mktemp("served") / "one")


def noisy(mode: str, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (50, 80)).astype(np.uint16))
    image = Image.fromarray(rng.integers(0, 256, (50, 80, 4), dtype=np.uint8), "RGBA")
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noisy("RGB"), "JPEG", exif=exif.tobytes())


FILES = {
    "grey16": encode(noisy("I;16"), "PNG"),
    "transparent": encode(noisy("RGBA"), "PNG"),
    "palette": encode(noisy("P"), "GIF"),
    "tiff": encode(noisy("RGB"), "TIFF"),
    "turned": turned(),
}


@pytest.fixture(scope="module")
def client(made: Path) -> Any:
    import mlflow
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(mlflow.pyfunc.load_model(str(made / "served")))
    if hasattr(app, "test_client"):
        return app.test_client()
    from fastapi.testclient import TestClient

    return TestClient(app)


def posted(client: Any, body: object) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    return client.post("/invocations", content=text, headers={"Content-Type": "application/json"})


def test_all_forms_of_a_request_are_decoded_as_predict_decodes(made: Path, client: Any) -> None:
    texts = [base64.b64encode(file).decode() for file in FILES.values()]
    predictor = Predictor.load(made / "models", made / "localization.json", "cpu")
    expected = []
    for seen in predictor(list(FILES.values())):
        assert isinstance(seen, Prediction)
        expected.append((seen.label, *seen.box))
    forms: list[dict[str, Any]] = [
        {"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}},
        {"dataframe_records": [{"image": text} for text in texts]},
        {"inputs": {"image": texts}},
        {"inputs": texts},
        {"instances": [{"image": text} for text in texts]},
        {"instances": texts},
    ]
    for form in forms:
        answer = posted(client, form)
        assert answer.status_code == 200, (list(form), answer.text)
        rows = answer.json()["predictions"]
        found = [(row["label"], row["x0"], row["y0"], row["x1"], row["y1"]) for row in rows]
        assert found == expected, list(form)


def test_a_bad_image_spoils_only_its_row(client: Any) -> None:
    good = base64.b64encode(FILES["palette"]).decode()
    bad = base64.b64encode(b"no image").decode()
    answer = posted(client, {"inputs": {"image": [good, bad, "%%%", good]}})
    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"]
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert rows[1]["label"] is None and rows[1]["x0"] is None
    assert rows[0] == rows[3]


@pytest.mark.parametrize(
    "body",
    [
        *("", "no json", {}, [], {"inputs": {"picture": ["x"]}}, {"inputs": 3}),
        {"dataframe_split": {"columns": ["x"], "data": [[1]]}},
    ],
)
def test_a_body_of_another_shape_is_refused(client: Any, body: object) -> None:
    answer = posted(client, body)
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.text.strip().splitlines()) == 1 and "Traceback" not in answer.text


@pytest.mark.parametrize("body", [{"instances": [1, 2]}, {"inputs": {"image": None}}])
def test_what_is_no_image_file_is_said_in_its_row(client: Any, body: object) -> None:
    answer = posted(client, body)
    assert answer.status_code == 200
    assert all(row["error"] and row["label"] is None for row in answer.json()["predictions"])


TWO = """
import base64, json, sys
from pathlib import Path
import mlflow, pandas as pd
import pipeline
assert pipeline.MINE
models = [mlflow.pyfunc.load_model(sys.argv[i]) for i in (1, 2)]
table = pd.DataFrame({"image": [Path(sys.argv[3]).read_bytes()]})
answers = [model.predict(table).to_dict("records")[0] for model in models]
answers.append(models[0].predict(table).to_dict("records")[0])
import pipeline
assert pipeline.MINE
print(json.dumps(answers))
"""


def test_two_models_with_their_own_code_and_a_users_pipeline_in_one_process(
    made: Path, tmp_path: Path
) -> None:
    other = package(tmp_path / "two", ["v", "w", "x", "y", "z"])
    code = next((other / "served").rglob("predictor.py"))
    text = code.read_text()
    changed = text.replace(
        "name = self.class_names[int(label[row])]",
        'name = "changed " + self.class_names[int(label[row])]',
    )
    assert changed != text
    code.write_text(changed)
    (tmp_path / "pipeline.py").write_text("MINE = True\n")
    (tmp_path / "image.png").write_bytes(FILES["transparent"])
    done = subprocess.run(
        [sys.executable, "-c", TWO, made / "served", other / "served", tmp_path / "image.png"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout.splitlines()[-1].replace("NaN", "null"))
    assert first == third and first["label"] in NAMES
    assert second["label"].startswith("changed ")
    assert [first[e] for e in ("x0", "y0", "x1", "y1")] == [
        second[e] for e in ("x0", "y0", "x1", "y1")
    ]
