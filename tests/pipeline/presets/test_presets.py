"""Presets: complete, valid, the thesis's values; params.yaml keeps its comments and comes back."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline import params
from pipeline.errors import UserError
from pipeline.params import yamlfile
from pipeline.presets import PRESETS, QUICK, rewritten, values_of

ROOT = Path(__file__).parents[3]
every_preset = pytest.mark.parametrize("name", PRESETS)


def applied(text: str, name: str, **overrides: Any) -> str:
    """`text` as the preset leaves it; overrides' keys are written with `__` for the dot."""
    raw = yamlfile.parse(text, "params.yaml")
    own = {key.replace("__", "."): value for key, value in overrides.items()}
    return rewritten(text, values_of(name, raw, own))


@cache
def quick() -> str:
    """params.yaml as committed, whatever preset it holds now."""
    return applied((ROOT / "params.yaml").read_text(), "quick")


@cache
def of(name: str) -> str:
    """The committed params.yaml as the preset leaves it."""
    return applied(quick(), name)


def values(text: str) -> dict[str, Any]:
    return params.leaves(yamlfile.parse(text, "params.yaml"))


def test_there_are_six() -> None:
    assert len(PRESETS) == 6


@every_preset
def test_a_preset_passes_the_check(name: str) -> None:
    params.load_all(Path("params.yaml"), of(name))


@every_preset
def test_a_preset_sets_what_every_other_sets(name: str) -> None:
    assert PRESETS[name].values.keys() == QUICK.keys()


def test_quick_sets_everything_outside_methods_and_variants() -> None:
    read = values(quick())
    keys = {
        key for key in read if not key.startswith(("methods.", "localizers.", "ablate.variants."))
    }
    assert keys == {key for key in QUICK if not key.startswith("methods.")}


def test_quick_is_the_committed_file() -> None:
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], cwd=ROOT)
    if changed.returncode:
        pytest.skip("params.yaml is changed here, or this is no Git repository")
    assert quick() == (ROOT / "params.yaml").read_text()


@every_preset
def test_quick_brings_the_file_back(name: str) -> None:
    assert applied(applied(quick(), name, train__epochs=77), "quick") == quick()


@every_preset
def test_twice_is_once_and_what_was_before_does_not_matter(name: str) -> None:
    assert applied(of(name), name) == of(name)
    for before in ("birds", "ilsvrc-resnet50"):
        assert applied(of(before), name) == of(name), before


@every_preset
def test_comments_stay_in_their_order(name: str) -> None:
    comments = [re.findall("#.*", text) for text in (quick(), of(name))]
    assert len(comments[0]) > 50
    assert comments[0] == comments[1]


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
                "methods.ahd.hide_threshold": 0.8,
            },
        ),
        (
            "ilsvrc-resnet50",
            {
                "dataset": "ilsvrc",
                "backbone": "resnet50",
                "train.epochs": 10,
                "train.step_epochs": 3,
                "train.learning_rate": 0.001,
                "methods.ahd.hide_threshold": 0.9,
            },
        ),
        ("cub-vgg16", {"train.per_method.rcam.learning_rate_scale": 0.1}),
        (
            "cub-vgg16",
            {
                "methods.bas.area_weight": 0.7,
                "methods.bas.foreground_weight": 0.0,
                "methods.bas.top_classes": 80,
                "methods.nl_ccam.combination": "quadratic",
            },
        ),
        (
            "cub-resnet50",
            {
                "methods.bas.area_weight": 1.2,
                "methods.bas.foreground_weight": 0.5,
                "methods.bas.top_classes": 200,
                "methods.adl.drop_threshold": 0.9,
                "methods.icl.peak_threshold": 0.9,
            },
        ),
        (
            "ilsvrc-resnet50",
            {
                "methods.bas.area_weight": 2.0,
                "methods.bas.foreground_weight": 1.0,
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
            },
        ),
    ],
)
def test_the_values_are_the_published_ones(name: str, expected: dict[str, Any]) -> None:
    read = values(of(name))
    assert {key: read[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        ("cub-vgg16", "cam", (0.001, 50, 32, 15)),
        ("cub-vgg16", "rcam", (0.0001, 50, 32, 15)),
        ("cub-vgg16", "bas", (0.001, 100, 32, 80)),
        ("cub-resnet50", "danet", (0.001, 100, 30, 80)),
        ("cub-vgg16", "eil", (0.001, 80, 64, 60)),
        ("cub-vgg16", "adl", (0.001, 200, 128, 58)),
        ("cub-vgg16", "acol", (0.0001, 60, 20, 60)),
        ("ilsvrc-vgg16", "bas", (0.001, 9, 128, 3)),
        ("ilsvrc-resnet50", "ass", (0.001, 10, 32, 3)),
    ],
)
def test_a_method_is_trained_as_its_own_code_does(
    name: str, method: str, expected: tuple[float, int, int, int], tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(applied(quick(), name, method=method))
    train = params.load(file).train
    found = train.learning_rate, train.epochs, train.batch_size, train.step_epochs
    assert found == pytest.approx(expected)


def test_own_values_win() -> None:
    read = values(applied(quick(), "birds", backbone="resnet50", train__epochs=3))
    assert (read["backbone"], read["train.epochs"]) == ("resnet50", 3)


@pytest.mark.parametrize(
    ("name", "own", "problem"),
    [
        ("cub", {}, f"'cub' is no preset; allowed: {', '.join(PRESETS)}"),
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
        values_of(name, params.read(ROOT / "params.yaml"), own)
    assert error.value.problems == [problem]
