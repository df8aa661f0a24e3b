"""Output folders: nothing is deleted that an earlier run of the same command did not write."""

import os
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.output_folder import OutputFolder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, a project in a home folder, with photographs beside it."""
    folder = tmp_path / "home" / "project"
    (folder / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    photos = tmp_path / "photos"
    (photos / "day").mkdir(parents=True)
    (photos / "day" / "a.jpg").write_text("photograph")
    (tmp_path / "link").symlink_to(photos)
    return folder


def write(path: Path, text: str = "boxes", command: str = "predict") -> None:
    with OutputFolder.checked(path, command).replaced() as folder:
        (folder / "pictures").mkdir()
        (folder / "boxes.csv").write_text(text)
        (folder / "pictures" / "a.png").write_text(text)


def refusal(path: Path | str, given: Path, command: str = "predict") -> str:
    with pytest.raises(UserError) as caught:
        OutputFolder.checked(Path(path), command, [given])
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize(
    "out", ["photos", "photos/day", "photos/day/..", "link", "link/day", "", "home", "/"]
)
def test_never_the_input_or_what_holds_it(project: Path, tmp_path: Path, out: str) -> None:
    given = tmp_path / "photos" / "day"
    path = Path(out) if out == "/" else tmp_path / out
    problem = refusal(path, given)
    assert "lies above it" in problem or "not written by `predict`" in problem
    assert (given / "a.jpg").read_text() == "photograph"


@pytest.mark.parametrize("out", [".", "..", "../project", "~", "/"])
def test_never_the_project_or_the_home_folder(project: Path, tmp_path: Path, out: str) -> None:
    path = Path(out).expanduser()
    assert "lies above it" in refusal(path, tmp_path / "photos")


def test_never_a_folder_with_an_image_as_input(project: Path, tmp_path: Path) -> None:
    image = tmp_path / "photos" / "day" / "a.jpg"
    assert "it is the input" in refusal(image.parent, image)


def test_an_earlier_result_is_replaced_again_and_again(project: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    for out in (tmp_path / "new" / "deep", tmp_path / "empty", Path("predictions")):
        for text in ("first", "second", "third"):
            write(out, text)
        assert (out / "boxes.csv").read_text() == "third"


@pytest.mark.parametrize(
    "change", ["added", "edited", "hidden", "link", "list lost", "list edited"]
)
def test_what_somebody_put_there_or_edited_is_kept(
    project: Path, tmp_path: Path, change: str
) -> None:
    out = tmp_path / "out"
    write(out)
    if change == "added":
        (out / "pictures" / "notes.txt").write_text("mine")
    elif change == "edited":
        (out / "boxes.csv").write_text("fixed")
    elif change == "hidden":
        (out / ".notes").write_text("mine")
    elif change == "link":
        (out / "boxes.csv").unlink()
        (out / "boxes.csv").symlink_to(tmp_path / "photos" / "day" / "a.jpg")
    elif change == "list lost":
        (out / ".written.json").unlink()
    else:
        (out / ".written.json").write_text("[]")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert "not written by `predict`" in refusal(out, tmp_path / "photos")
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_the_result_of_another_command_is_kept(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "out", command="predict")
    assert "not written by `heatmaps`" in refusal(tmp_path / "out", tmp_path / "photos", "heatmaps")


def test_what_is_put_there_while_the_command_runs_is_kept(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    with (
        pytest.raises(UserError, match=r"it holds notes\.txt"),
        OutputFolder.checked(out, "predict").replaced() as folder,
    ):
        (folder / "boxes.csv").write_text("second")
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "boxes.csv").read_text() == "boxes"


def test_a_place_that_cannot_be_written_is_told_first(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    given = tmp_path / "photos"
    assert "it is a file" in refusal(tmp_path / "file", given)
    assert "Not a directory" in refusal(tmp_path / "file" / "below" / "it", given)
    assert "at most 255 bytes" in refusal("x" * 256, given)
    assert "at most 255 bytes" in refusal("é" * 128, given)
    assert "4000" in refusal("/".join(["x" * 200] * 30), given)
    assert "not UTF-8" in refusal(os.fsdecode(b"caf\xe9"), given)
    assert "/proc" in refusal("/proc/nothing/out", given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home", "link", "photos"]
    assert list(project.iterdir()) == [project / ".dvc"]
    write(tmp_path / ("x" * 255))


def test_control_characters_do_not_reach_the_terminal(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file\x1b[31m\n").write_text("mine")
    assert "\\x1b" in refusal(tmp_path / "file\x1b[31m\n", tmp_path / "photos")
