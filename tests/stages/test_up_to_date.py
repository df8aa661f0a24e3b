"""What an edit leaves up to date, by DVC's own status: a stage depends on what it uses and no more."""

import pytest

from tests.made import cub_files, tar
from tests.stages.project import Project, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The main run with method cam, and one variant."""
    made = make(tmp_path_factory.mktemp("project"))
    made.set(ablate__run=["methods-cam"])
    made.run("dvc", "repro", "ablate@methods-cam", "report", WSOL_TRACKING="off")
    made.commit("Results")
    return made


@pytest.fixture(scope="module")
def unfinished(project: Project) -> set[str]:
    """Stages that were not run."""
    return project.changed()


def edited(project: Project, path: str, before: set[str]) -> set[str]:
    """Stages that change when a line of code is added to `path`."""
    file = project.folder / path
    text = file.read_text()
    comment = "\nEDITED = 1\n" if file.suffix == ".py" else "\n# edited\n"
    file.write_text(text + comment)
    try:
        project.run("python", "-m", "stages.inputs")  # as `dvc repro` does first
        return project.changed() - before
    finally:
        file.write_text(text)
        project.run("git", "checkout", "-q", "data/inputs.json")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pipeline/presets/birds.yaml", set()),
        ("pipeline/presets/__init__.py", set()),
        ("pipeline/datasets/cub/__init__.py", set()),
        ("pipeline/datasets/synthetic/objects.py", {"download", "preprocess"}),
        ("pipeline/methods/danet.py", set()),
        (
            "pipeline/methods/cam.py",
            {"inputs", "train", "localize", "evaluate", "ablate@methods-cam"},
        ),
        ("pipeline/pictures.py", {"report"}),
        ("pipeline/report/galleries.py", {"report"}),
        ("tools/predict.py", set()),
        ("tools/compare.py", set()),
        ("tools/wsol.py", set()),
        ("pipeline/inputs.py", {"inputs"}),
    ],
)
def test_an_edit_of_code(
    project: Project, unfinished: set[str], path: str, expected: set[str]
) -> None:
    assert edited(project, path, unfinished) == expected


def test_drawings_rerun_only_synthetic_runs(project: Project) -> None:
    """With `dataset: cub` as it is locked, redrawing the synthetic set changes nothing."""
    archive = tar(project.folder.parent / "birds.tar", cub_files())
    project.set(dataset="cub", datasets__cub__archive=str(archive), datasets__cub__md5=None)
    project.run("dvc", "repro", "preprocess")
    before = project.changed()
    assert not {"download", "preprocess"} & before
    assert edited(project, "pipeline/datasets/synthetic/objects.py", before) == set()
    own = edited(project, "pipeline/datasets/cub/__init__.py", before)
    assert own == {"download", "preprocess"}
    project.run("git", "checkout", "-q", ".")
