"""Presets: valid, the thesis's values, the same whatever params.yaml held before, also after DVC."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from pipeline import params, presets
from pipeline.errors import UserError
from pipeline.params import yamlfile
from pipeline.presets import applied, default, names
from tests.imports import ROOT

every_preset = pytest.mark.parametrize("name", names())


def raw(text: str) -> dict[str, Any]:
    values: dict[str, Any] = yamlfile.parse(text, "params.yaml")
    return values


@cache
def of(name: str) -> str:
    """The default as the preset leaves it."""
    return applied(name, raw(default()), {})


def values(text: str) -> dict[str, Any]:
    return params.leaves(raw(text))


def test_there_are_eight_and_files_to_extend() -> None:
    assert len(names()) == 8 and names()[0] == "quick"
    assert len(list(presets.FOLDER.glob("_*.yaml"))) == 4


def test_the_default_is_the_committed_file() -> None:
    """After a change of params.yaml: cp params.yaml pipeline/presets/default.yaml"""
    here = (ROOT / "params.yaml").read_text()
    assert values(here).keys() == values(default()).keys()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], cwd=ROOT)
    if changed.returncode:
        pytest.skip("params.yaml is not the committed one now")
    assert here == default()


@every_preset
def test_a_preset_passes_the_check_and_changes_what_it_names(name: str) -> None:
    params.load_all(Path("params.yaml"), of(name))
    before, after = values(default()), values(of(name))
    differ = {key for key in before if before[key] != after[key]}
    named = presets.values_of(name)
    assert before.keys() == after.keys()
    assert {key: after[key] for key in named} == named
    assert differ <= named.keys()
    assert not [key for key in named if key.endswith("plug_points")]


@every_preset
def test_a_preset_says_how_to_run_it(name: str) -> None:
    header = (presets.FOLDER / f"{name}.yaml").read_text()
    assert presets.title(name) and presets.title(name) in header
    for what in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert re.search(rf"^# {what} +\S", header, re.MULTILINE), what


def test_the_default_is_quick() -> None:
    assert of("quick") == default()


@every_preset
def test_comments_stay_in_their_order(name: str) -> None:
    comments = [re.findall("#.*", text) for text in (default(), of(name))]
    assert len(comments[0]) > 50
    assert comments[0] == comments[1]


OVERRIDES = [
    ["seed=3"],
    ["method=ahd", "train.epochs=2"],
    ["methods.ass.plug_points=[pool4,conv5_3]"],
    ["methods.mci.cell_sizes=[7]", "methods.spg.high=[0.1,0.2,0.3]"],
    ["datasets.folder.boxes=boxes.csv", "datasets.cub.md5=null"],
    ["train.learning_rate=0.00001", "datasets.folder.images='Fotos für wsol'"],
    ["+methods.ass.own=[1,2]", "box.two_stage.center=false"],
]


@pytest.mark.parametrize("own", OVERRIDES, ids=" ".join)
@pytest.mark.parametrize("before", ["quick", "birds"])
def test_what_dvc_wrote_is_put_back(own: list[str], before: str, tmp_path: Path) -> None:
    """`dvc exp run -S` rewrites the whole file: lists in several lines, null as nothing."""
    path = tmp_path / "params.yaml"
    path.write_text(of(before))
    apply_overrides(path, own)
    assert path.read_text() != of(before)
    for name in names():
        assert applied(name, raw(path.read_text()), {}) == of(name), name


def test_a_file_written_by_another_program_is_put_back() -> None:
    for style in (True, False):
        text = yaml.safe_dump(raw(of("ilsvrc-resnet50")), default_flow_style=style)
        assert applied("birds", raw(text), {}) == of("birds")


def test_sections_that_the_user_added_stay() -> None:
    mine = raw(of("birds"))
    mine["methods"]["mine"] = {"plug_points": ["pool4"], "rate": 0.5}
    mine["datasets"]["moths"] = {"root": "data/moths"}
    mine["ablate"]["variants"]["mine-first"] = {"method": "mine", "set": {"seed": 1}}
    text = applied("cub-vgg16", mine, {"methods.mine.rate": 0.25})
    read = raw(text)
    assert read["methods"]["mine"] == {"plug_points": ["pool4"], "rate": 0.25}
    assert read["datasets"]["moths"] == {"root": "data/moths"}
    assert read["ablate"]["variants"]["mine-first"] == {"method": "mine", "set": {"seed": 1}}
    assert values(text).items() >= values(of("cub-vgg16")).items()
    assert applied("cub-vgg16", read, {"methods.mine.rate": 0.25}) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cub-vgg16",
            {
                "dataset": "cub",
                "backbone": "vgg16",
                "weights": "imagenet",
                "prepare.short_side": 256,
                "input.resize": 256,
                "input.crop": 224,
                "train.epochs": 50,
                "train.step_epochs": 15,
                "train.batch_size": 32,
                "train.learning_rate": 0.001,
                "train.head_multiplier": 10,
                "train.per_method.rcam.learning_rate_scale": 0.1,
                "methods.ahd.hide_threshold": 0.8,
                "methods.bas.area_weight": 0.7,
                "methods.bas.top_classes": 80,
                "methods.nl_ccam.combination": "quadratic",
            },
        ),
        (
            "cub-resnet50",
            {
                "methods.ahd.hide_threshold": 0.9,
                "methods.adl.drop_threshold": 0.9,
                "methods.icl.peak_threshold": 0.9,
                "methods.bas.area_weight": 1.2,
                "methods.bas.foreground_weight": 0.5,
                "methods.bas.top_classes": 200,
            },
        ),
        (
            "ilsvrc-resnet50",
            {
                "dataset": "ilsvrc",
                "backbone": "resnet50",
                "train.epochs": 10,
                "train.step_epochs": 3,
                "train.weight_decay": 0.0001,
                "methods.ahd.hide_threshold": 0.9,
                "methods.bas.top_classes": 0,
                "methods.nl_ccam.combination": "top20",
            },
        ),
        (
            "birds",
            {
                "dataset": "cub",
                "backbone": "mobilenet_v2",
                "datasets.cub.md5": None,
                "train.batchnorm": "frozen",
                "methods.spg.width": 256,
            },
        ),
    ],
)
def test_the_values_are_the_published_ones(name: str, expected: dict[str, Any]) -> None:
    read = values(of(name))
    assert {key: read[key] for key in expected} == expected


def test_own_values_win() -> None:
    own = {"backbone": "resnet50", "train.epochs": 3, "methods.ass.plug_points": ["last"]}
    read = values(applied("birds", raw(default()), own))
    assert {key: read[key] for key in own} == own


def test_editing_a_preset_changes_no_stage() -> None:
    """No stage imports this package; tests/test_dvc_yaml.py holds deps against imports."""
    assert "pipeline/presets" not in (ROOT / "dvc.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "own", "problem"),
    [
        ("cub", {}, f"unknown preset 'cub'; allowed: {', '.join(names())}"),
        ("_tuned", {}, f"unknown preset '_tuned'; allowed: {', '.join(names())}"),
        ("../quick", {}, f"unknown preset '../quick'; allowed: {', '.join(names())}"),
        ("quick", {"train.epoch": 3}, "train.epoch is unknown; did you mean train.epochs?"),
        ("quick", {"epochs": 3}, "epochs is unknown; did you mean train.epochs?"),
        (
            "quick",
            {"input": 3},
            "input is a section; give its values one by one, as in input.resize",
        ),
    ],
)
def test_what_cannot_be_set(name: str, own: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        applied(name, raw(default()), own)
    assert error.value.problems == [problem]
