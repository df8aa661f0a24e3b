"""External inputs: content counts, whatever the clock says, and every field that names files is found."""

import importlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cache, inputs
from pipeline.params import File, Section
from pipeline.params.section import names_files
from tests.imports import ROOT
from tests.tiny import write_params


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "FRESH", 0)
    photos = tmp_path / "photos"
    for name in ("wren/a.jpg", "wren/b.jpg", "kite/deep/c.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text(name)
    (tmp_path / "boxes.csv").write_text("boxes")
    (tmp_path / "tree.csv").write_text("tree")
    (tmp_path / "own.safetensors").write_text("weights")
    return tmp_path


def raw(folder: Path, **changes: object) -> dict[str, Any]:
    own = {
        "dataset": "folder",
        "datasets__folder__images": "photos",
        "datasets__folder__boxes": "boxes.csv",
        "methods__danet__hierarchy": "tree.csv",
        "weights": "own.safetensors",
    }
    path = write_params(folder, **(own | changes))
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values


def read(values: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    return inputs.read(values, before or {}, lambda line: None)


def changed(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    return {
        key
        for key, old, new in (
            ("images", *(v["datasets"]["folder"]["images"] for v in (before, now))),
            ("boxes", *(v["datasets"]["folder"]["boxes"] for v in (before, now))),
            ("hierarchy", *(v["methods"]["danet"]["hierarchy"] for v in (before, now))),
            ("weights", *(v["weights"] for v in (before, now))),
        )
        if old != new
    }


def replace(path: Path, text: str) -> None:
    """As careful editors save: a new file of the same size takes the old one's place and time."""
    stat = path.stat()
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


EDITS = {
    "boxes edited": (lambda p: (p / "boxes.csv").write_text("edit!"), {"boxes"}),
    "boxes replaced, same size and time": (lambda p: replace(p / "boxes.csv", "boxez"), {"boxes"}),
    "a class added": (lambda p: shutil.copytree(p / "photos/wren", p / "photos/owl"), {"images"}),
    "an empty class added": (lambda p: (p / "photos/owl").mkdir(), {"images"}),
    "an image deleted": (lambda p: (p / "photos/wren/a.jpg").unlink(), {"images"}),
    "an image renamed": (
        lambda p: (p / "photos/wren/a.jpg").rename(p / "photos/wren/z.jpg"),
        {"images"},
    ),
    "an image replaced": (lambda p: replace(p / "photos/kite/deep/c.jpg", "X" * 15), {"images"}),
    "weights replaced": (lambda p: replace(p / "own.safetensors", "WEIGHTS"), {"weights"}),
    "hierarchy edited": (lambda p: (p / "tree.csv").write_text("other"), {"hierarchy"}),
    "touched": (lambda p: [os.utime(f, (1, 1)) for f in p.rglob("*") if f.is_file()], set()),
    "copied back": (
        lambda p: (shutil.copytree(p / "photos", p / "x"), shutil.rmtree(p / "photos"),
                   (p / "x").rename(p / "photos")),
        set(),
    ),
    "a hidden file added": (lambda p: (p / "photos/.DS_Store").write_text("x"), set()),
    "what nobody names": (lambda p: (p / "other.csv").write_text("x"), set()),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_what_counts_as_a_change(project: Path, edit: str) -> None:
    values = raw(project)
    before = read(values)
    assert read(values, before) == before
    change, expected = EDITS[edit]
    change(project)
    assert changed(before, read(values, before)) == expected


def test_unchanged_files_are_not_read_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = raw(project)
    read(values)
    opened: list[str] = []
    content = inputs._content
    monkeypatch.setattr(inputs, "_content", lambda file: opened.append(file) or content(file))
    before = read(values)
    assert opened == []
    (project / "photos" / "wren" / "a.jpg").write_text("edited")
    assert read(values, before) != before
    assert [Path(file).name for file in opened] == ["a.jpg"]


def test_a_file_changed_within_its_time_stamp_is_seen(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size, inode and times may all be the same where a file was written just before it was read."""
    monkeypatch.setattr(inputs, "FRESH", 10**12)
    monkeypatch.setattr(inputs, "_signature", lambda stat: [stat.st_size, 0, time.time_ns(), 0])
    values = raw(project)
    before = read(values)
    (project / "boxes.csv").write_text("edit!")
    assert changed(before, read(values, before)) == {"boxes"}


def test_a_path_that_this_machine_lacks_keeps_its_digest(project: Path) -> None:
    values, said = raw(project), []
    before = read(values)
    shutil.rmtree(project / "photos")
    (project / "own.safetensors").unlink()
    assert inputs.read(values, before, said.append) == before
    assert {line.split(":")[0] for line in said} == {"weights", "datasets.folder.images"}
    assert "is not on this machine" in said[0]


@pytest.mark.parametrize("weights", ["none", "imagenet", "missing.pth", "https://a.org/w.pth"])
def test_what_is_no_file_has_no_digest(project: Path, weights: str) -> None:
    before = read(raw(project))
    assert read(raw(project, weights=weights))["weights"] is None
    kept = read(raw(project, weights=weights), before)["weights"]
    assert kept == (before["weights"] if weights == "missing.pth" else None)


def test_variants_count_by_what_they_set(project: Path) -> None:
    (project / "b.pth").write_text("of a variant")
    values = raw(project)
    values["ablate"]["variants"]["methods-cam"]["set"] = {"weights": "b.pth", "seed": 1}
    before = read(values)
    assert list(before["ablate"]) == ["methods-cam"]
    (project / "b.pth").write_text("another")
    now = read(values, before)
    assert now["ablate"] != before["ablate"]
    assert changed(before, now) == set()


def test_archives_in_a_folder_count_and_nothing_else_there(project: Path) -> None:
    root = project / "archives"
    (root / "unpacked").mkdir(parents=True)
    (root / "ILSVRC2012_img_val.tar").write_text("a")
    values = raw(project, dataset="ilsvrc", datasets__ilsvrc__root="archives")
    before = read(values)
    (root / "unpacked" / "x.JPEG").write_text("x")
    (root / "notes.txt").write_text("x")
    assert read(values, before) == before
    (root / "ILSVRC2012_img_val.tar").write_text("b")
    assert read(values, before) != before


def test_links_are_followed_and_loops_end(project: Path) -> None:
    outside = project / "outside"
    outside.mkdir()
    (outside / "d.jpg").write_text("d")
    (project / "photos" / "owl").symlink_to(outside)
    (outside / "again").symlink_to(project / "photos")
    (project / "photos" / "wren" / "gone.jpg").symlink_to(project / "nowhere")
    values = raw(project)
    before = read(values)
    (outside / "d.jpg").write_text("e")
    assert changed(before, read(values, before)) == {"images"}


def test_names_that_are_not_utf8_are_no_obstacle(project: Path) -> None:
    (project / "photos" / "wren" / os.fsdecode(b"caf\xe9.jpg")).write_text("x")
    values = raw(project)
    assert read(values) == read(values)


def test_every_field_that_names_files_is_found() -> None:
    """The source says what the types say, for every dataset, method and further room."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())

    def fields(section: type[Section], prefix: str) -> set[str]:
        found = set()
        for name, field in section.model_fields.items():
            if names_files(field.annotation, field.metadata):
                found.add(f"{prefix}{name}")
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                found |= fields(field.annotation, f"{prefix}{name}.")
        return found

    expected = fields(File, "")
    sections = 0
    for room in inputs._rooms(values):
        for name in values[room]:
            module = importlib.import_module(f"pipeline.{room}.{name}")
            expected |= fields(module.Params, f"{room}.{name}.")
            sections += 1
    assert sections >= 20
    assert set(inputs.named(values)) == expected
    assert {"weights", "datasets.folder.images", "methods.danet.hierarchy"} <= expected


def test_a_damaged_table_is_made_again(project: Path) -> None:
    values = raw(project)
    before = read(values)
    cache.store("inputs.json").write_text("{")
    assert read(values) == before
