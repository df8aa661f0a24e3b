"""Files outside the project count by content: real DVC reruns what uses them, and nothing else."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from pipeline import backbones
from tests.made import cub_files, encode, noise, tar
from tests.stages.project import Project, make

pytestmark = pytest.mark.slow


CLASSES = ("kite", "owl", "wren")


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(noise(40, 48, seed)))


def boxes(folder: Path, x1: int = 40) -> None:
    images = sorted(path.relative_to(folder / "photos") for path in folder.glob("photos/*/*.jpg"))
    lines = [f"{image},4,4,{x1},36" for image in images]
    (folder / "boxes.csv").write_text("\n".join(["image_id,x0,y0,x1,y1", *lines]) + "\n")


def weights(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_file(backbones.build("vgg_small").trunk.state_dict(), path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A user's photographs, boxes, split, tree of classes and weights beside the project; trained."""
    outside = tmp_path_factory.mktemp("outside")
    for k, name in enumerate(CLASSES):
        for i in range(6):
            photo(outside / "photos" / name / f"{i}.jpg", 10 * k + i)
    boxes(outside)
    (outside / "split.csv").write_text("image_id,split\nkite/0.jpg,test\n")
    (outside / "tree.csv").write_text("class,family,order\nkite,a,x\nowl,b,x\nwren,c,y\n")
    weights(outside / "own.safetensors", 0)
    made = make(tmp_path_factory.mktemp("project"))
    made.set(
        dataset="folder",
        datasets__folder__images=str(outside / "photos"),
        datasets__folder__boxes=os.path.relpath(outside / "boxes.csv", made.folder),
        datasets__folder__split=str(outside / "split.csv"),
        methods__danet__hierarchy=str(outside / "tree.csv"),
        weights=str(outside / "own.safetensors"),
        method="danet",
        ablate__run=["methods-cam"],
        train__epochs=2,
    )
    made.run("dvc", "repro", "evaluate", "ablate@methods-cam", WSOL_TRACKING="off")
    made.commit("Trained")
    return made


@pytest.fixture
def outside(project: Project, tmp_path: Path) -> Iterator[Path]:
    """The folder of the user's files; put back, with their times, afterwards."""
    folder = Path(yaml.safe_load(project.read("params.yaml"))["weights"]).parent
    shutil.copytree(folder, tmp_path / "kept")
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)


EDITS: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "boxes.csv corrected": (lambda f: boxes(f, x1=44), {"download"}),
    "a class added": (lambda f: photo(f / "photos" / "stork" / "0.jpg", 99), {"download"}),
    "an image deleted": (lambda f: (f / "photos" / "owl" / "3.jpg").unlink(), {"download"}),
    "an image replaced": (lambda f: photo(f / "photos" / "owl" / "3.jpg", 77), {"download"}),
    "split edited": (
        lambda f: (f / "split.csv").write_text("image_id,split\nkite/1.jpg,test\n"),
        {"download"},
    ),
    "hierarchy edited": (
        lambda f: (f / "tree.csv").write_text("class,family,order\nkite,a,x\nowl,a,x\nwren,c,y\n"),
        {"train"},
    ),
    "weights replaced": (
        lambda f: weights(f / "own.safetensors", 1),
        {"train", "ablate@methods-cam"},
    ),
    "touched": (lambda f: [os.utime(path) for path in f.rglob("*")], set()),
    "moved away": (lambda f: [shutil.rmtree(f), f.mkdir()], set()),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_reruns_what_uses_the_file(project: Project, outside: Path, edit: str) -> None:
    change, expected = EDITS[edit]
    change(outside)
    project.run("python", "-m", "stages.inputs")
    changed = project.changed("download", "preprocess", "train", "evaluate", "ablate@methods-cam")
    project.run("git", "checkout", "-q", "data/inputs.json", "dvc.lock")
    assert changed == expected


def test_a_corrected_box_reaches_the_score(project: Project, outside: Path) -> None:
    boxes(outside, x1=9)
    stages = project.run_stages("dvc", "repro", "evaluate")
    assert stages[:3] == ["inputs", "download", "preprocess"]
    assert stages[-1] == "evaluate"


def test_a_replaced_archive_is_taken(project: Project, tmp_path: Path) -> None:
    archive = tar(tmp_path / "birds.tar", cub_files())
    project.set(dataset="cub", datasets__cub__archive=str(archive), datasets__cub__md5=None)
    assert project.run_stages("dvc", "repro", "download") == ["check", "inputs", "download"]
    assert project.run_stages("dvc", "repro", "download") == ["inputs"]
    tar(archive, cub_files(per_class=9))
    assert project.run_stages("dvc", "repro", "download") == ["inputs", "download"]
    project.run("git", "checkout", "-q", ".")


def test_a_teammate_without_the_files_takes_the_results(
    project: Project, outside: Path, tmp_path: Path
) -> None:
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "remote", "add", "-d", "-f", "team", str(tmp_path / "remote"))
    project.run("dvc", "checkout", check=False)
    project.run("dvc", "push", check=False)
    project.commit("A remote")
    project.run("git", "clone", "-q", str(project.folder), str(tmp_path / "clone"))
    shutil.rmtree(outside)
    outside.mkdir()
    clone = Project(tmp_path / "clone")
    done = clone.run("dvc", "repro", "--pull", "evaluate")
    assert "is not on this machine; what it held when it was last read counts" in done.stdout
    assert "Running stage 'train'" not in done.stdout
    assert (clone.folder / "metrics" / "localization.json").exists()
