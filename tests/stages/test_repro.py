"""What a newcomer types, with real DVC, Git and MLflow, on a small copy of this repository."""

import json
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.stages.project import CORE, Project, make

pytestmark = pytest.mark.slow


METHODS = ("cam", "ass", "ahd", "rcam")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after `dvc repro`, with its results committed."""
    made = make(tmp_path_factory.mktemp("newcomer"))
    made.run("dvc", "repro")
    made.commit("Results")
    return made


def localization(project: Project) -> dict[str, object]:
    values: dict[str, object] = json.loads(project.read("metrics/localization.json"))
    return values


def test_repro_leaves_all_it_promises(project: Project) -> None:
    for name in (
        *("models/weights.safetensors", "models/model.json", "data/prepared/meta.json"),
        *("metrics/train.json", "metrics/epochs.csv", "metrics/localization.json"),
        *("metrics/threshold_curve.csv", "metrics/per_image.csv", "metrics/per_class.csv"),
        *(f"metrics/pictures/{kind}.png" for kind in ("best", "worst", "random")),
        *("metrics/report.md", "mlflow.db"),
    ):
        assert (project.folder / name).stat().st_size > 0, name
    figures = localization(project)
    assert (figures["method"], figures["n"], figures["n_boxes"]) == ("cam", 18, 18)
    for name in ("top1_cls_err", "top1_loc_err", "gt_known_loc_err", "max_box_acc_v2"):
        value = figures[name]
        assert isinstance(value, float)
        assert 0 <= value <= 100
    ablation = project.folder / "metrics" / "ablation"
    found = {
        path.parent.relative_to(ablation).as_posix() for path in ablation.rglob("localization.json")
    }
    assert found == {f"core/{variant}" for variant in CORE}


def test_nothing_is_trained_twice(project: Project) -> None:
    main = localization(project)
    row = json.loads(project.read("metrics/ablation/core/methods-cam/localization.json"))
    assert row["model_sha256"] == main["model_sha256"]
    assert row["top1_loc_err"] == main["top1_loc_err"]
    finished = list((project.folder / ".checkpoints").glob("*/finished"))
    assert len(finished) == 2  # cam, for three results, and ass


def test_a_second_repro_has_nothing_to_do(project: Project) -> None:
    assert project.run_stages("dvc", "repro") == ["inputs"]  # which alone cannot know beforehand
    assert project.changed() == set()


def test_a_stage_depends_only_on_the_params_it_uses(project: Project) -> None:
    project.set(methods__ass__hide_threshold=0.7)
    changed = project.changed()
    project.run("git", "checkout", "-q", "params.yaml")
    assert changed == {"check"}  # `inputs`, which always runs, says whether a variant uses it


def test_new_box_params_need_no_forward_pass(project: Project) -> None:
    project.set(box__threshold=0.5)
    done = project.run("dvc", "repro", "evaluate")
    assert "test: heatmaps kept, no forward pass" in done.stdout
    assert "Running stage 'train'" not in done.stdout
    assert localization(project)["threshold"] == 0.5
    project.run("git", "checkout", "-q", "params.yaml", "dvc.lock")
    project.run("dvc", "checkout")


def test_the_same_seed_gives_the_same_bytes(project: Project) -> None:
    before = project.read("metrics/localization.json")
    shutil.rmtree(project.folder / ".checkpoints")
    project.run("dvc", "repro", "-f", "train", "evaluate")
    assert project.read("metrics/localization.json") == before


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("method=nope", "method is 'nope'; allowed: acol, adl, ahd, ass, bas, cam,"),
        ("methods.ass.hide_threshold=2", "methods.ass.hide_threshold is 2; allowed:"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(project: Project, change: str, line: str) -> None:
    done = project.run("dvc", "exp", "run", "-S", change, check=False)
    project.run("git", "checkout", "-q", "params.yaml")
    assert done.returncode != 0
    assert f"error: params.yaml: {line}" in done.stdout
    assert "Traceback" not in done.stdout
    assert "Running stage 'train'" not in done.stdout


def test_an_experiment_with_another_method(project: Project) -> None:
    done = project.run("dvc", "exp", "run", "-n", "try-rcam", "-S", "method=rcam")
    assert "Running stage 'train'" in done.stdout
    assert "Running stage 'preprocess'" not in done.stdout
    assert localization(project)["selection"] == "two_stage"
    diff = project.run("dvc", "metrics", "diff", COLUMNS="200").stdout
    assert "metrics/localization.json" in diff
    assert "two_stage" in diff
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout")


def test_a_queue_of_methods_shares_one_store(project: Project) -> None:
    project.run("dvc", "exp", "run", "--queue", "-n", "grid", "-S", "method=cam,ass,ahd,rcam")
    project.run("dvc", "queue", "start", "-j", "1")
    wait_for_queue(project)
    shown = json.loads(project.run("dvc", "exp", "show", "--json").stdout)
    text = json.dumps(shown)
    for number in range(1, 5):
        assert f"grid-{number}" in text
    with sqlite3.connect(project.folder / "mlflow.db") as store:
        tags = store.execute("select value from tags where key = 'dvc.experiment'").fetchall()
        methods = store.execute("select distinct value from params where key = 'method'").fetchall()
    # grid-1 is the committed run and grid-4 the experiment above: DVC's cache had both already.
    assert {name for (name,) in tags} >= {"grid-2", "grid-3"}
    assert {name for (name,) in methods} == set(METHODS)


def wait_for_queue(project: Project) -> None:
    deadline = time.monotonic() + 700
    while time.monotonic() < deadline:
        status = project.run("dvc", "queue", "status").stdout
        if "Failed" in status:
            pytest.fail(project.run("dvc", "queue", "logs", "grid-1", check=False).stdout + status)
        if "Queued" not in status and "Running" not in status:
            return
        if "Worker status: 0 active, 0 idle" in status:
            project.run("dvc", "queue", "start", "-j", "1")  # DVC's workers may stop early
        time.sleep(3)
    pytest.fail(f"the queue did not end: {status}")


def test_plots_are_shown(project: Project) -> None:
    project.run("dvc", "plots", "show")
    assert (project.folder / "dvc_plots" / "index.html").stat().st_size > 1000


def test_a_killed_repro_goes_on_where_it_was(project: Project) -> None:
    project.set(seed=7, train__epochs=6)
    running = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=project.folder,
        env=project.environment(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    state = project.folder / ".checkpoints"
    deadline = time.monotonic() + 120
    while not list(state.glob("*/state.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    import os

    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    done = project.run("dvc", "repro", "train")
    assert "continues after epoch" in done.stdout
    assert len(project.read("metrics/epochs.csv").splitlines()) == 7
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout", check=False)


def test_a_teammate_takes_the_results_and_computes_nothing(
    project: Project, tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    project.run("dvc", "remote", "add", "-d", "-f", "team", str(remote))
    project.run("dvc", "push")
    project.commit("A remote")
    project.run("git", "clone", "-q", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert localization(clone) == localization(project)
    assert clone.run_stages("dvc", "repro", "--pull") == ["inputs"]


def test_a_model_runs_on_a_folder_of_images(project: Project, tmp_path: Path) -> None:
    from PIL import Image

    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    Image.new("RGB", (120, 80), (200, 60, 60)).save(photos / "a.jpg")
    Image.new("L", (50, 90), 128).save(photos / "more" / "b.png")
    (photos / "broken.jpg").write_bytes(b"no image")
    said = project.folder / "metrics" / "localization.json"
    before = said.read_text()
    assert '"heatmap": "cam"' in before
    said.write_text(before.replace('"heatmap": "cam"', '"heatmap": "smooth_gradcam++"'))
    done = project.run(
        "python",
        "-m",
        "tools.wsol",
        "predict",
        str(photos),
        "--out",
        str(tmp_path / "out"),
        "--heatmaps",
    )
    said.write_text(before)
    assert "27 forward passes, 9 per image: smooth_gradcam++" in done.stdout
    assert "broken.jpg" in done.stdout
    boxes = (tmp_path / "out" / "boxes.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in boxes] == ["image", "a.jpg", "more/b.png"]
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [image["width"] for image in coco["images"]] == [120, 50]
    assert (tmp_path / "out" / "pictures" / "more" / "b.png").exists()
    heatmap = np.load(tmp_path / "out" / "heatmaps" / "more" / "b.png.npy")
    assert (heatmap.dtype, heatmap.min(), heatmap.max()) == (np.float32, 0, 1)
