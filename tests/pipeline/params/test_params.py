"""params.yaml is read whole, typed and frozen, and no more is imported than is asked for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline import params
from pipeline.params import Section
from tests.pipeline.params.made_params import TEXT, Hide, Made, made, told, write  # noqa: F401

pytestmark = pytest.mark.usefixtures("made")

ROOT = Path(__file__).parents[3]


def test_values_are_typed() -> None:
    read = params.load()
    assert (read.dataset, read.method, read.backbone, read.weights, read.seed) == (
        *("made", "hide", "small", "none", 0),
    )
    assert read.data == Made(classes=8)
    assert read.method_params == Hide(
        plug_points=("stride16_early", "last"), threshold=0.8, how="hard"
    )
    assert read.train.learning_rate == 0.02
    assert isinstance(read.train.head_multiplier, float)  # written 1
    assert read.box.two_stage.center is True


def test_nothing_can_be_changed_afterwards() -> None:
    read = params.load()
    with pytest.raises(AttributeError):
        read.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        read.train.epochs = 1
    assert isinstance(read.method_params.plug_points, tuple)  # type: ignore[attr-defined]


def test_only_the_chosen_modules_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("datasets.other", "methods.plain", "backbones"):
        monkeypatch.setitem(sys.modules, f"pipeline.{name}", None)  # importing it would raise
    params.load()
    params.variant("hide-soft")
    with pytest.raises(ImportError):
        params.load_all()
    monkeypatch.setitem(sys.modules, "pipeline.methods.hide", None)
    assert params.load(method=False).method_params == Section()
    monkeypatch.setitem(sys.modules, "pipeline.datasets.made", None)
    assert params.load_ablate().run == ("methods",)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0.002, 28, 32, 30)),  # a tenth of the rate; twice the epochs, between divisions too
        ({"method": "hide"}, (0.02, 14, 32, 15)),
        ({"train.per_method.plain.step_share": 0.8}, (0.002, 28, 32, 22)),
        ({"train.per_method.plain.step_share": 1.0}, (0.002, 28, 32, 28)),
        ({"train.epochs": 3, "train.per_method.plain.step_share": 0.5}, (0.002, 6, 32, 3)),
        ({"train.per_method.plain.batch_size_scale": 0.625}, (0.002, 28, 20, 30)),
        ({"train.per_method.plain.epochs_scale": 0.01}, (0.002, 2, 32, 1)),  # warm-up ends before
        ({"train.per_method": {}}, (0.02, 14, 32, 15)),
    ],
)
def test_a_method_is_trained_as_its_own_code_does(
    changes: dict[str, Any], expected: tuple[float, int, int, int]
) -> None:
    write({"method": "plain", **changes})
    train = params.load().train
    found = train.learning_rate, train.epochs, train.batch_size, train.step_epochs
    assert found == pytest.approx(expected)
    assert "per_method" not in train.model_dump()  # what is resolved has no unresolved twin
    assert params.flat(params.load())["train.epochs"] == expected[1]


def test_a_variant_may_be_trained_by_another_methods_schedule() -> None:
    """So that one thing is changed at a time: plain CAM at the rate of the method it is held against."""
    write({"ablate.variants.hide-late.schedule": "plain"})
    train = params.variant("hide-late").train
    assert (train.learning_rate, train.epochs) == (pytest.approx(0.002), 28)
    assert params.load_all().ablate.variants["hide-late"].schedule == "plain"


def test_a_float_as_dvc_writes_it_is_a_number() -> None:
    """`dvc exp run -S train.learning_rate=0.00001` writes 1e-05, which YAML 1.1 takes for text."""
    Path("params.yaml").write_text(TEXT.replace("0.02", "1e-05"))
    assert params.load().train.learning_rate == 0.00001


def test_flat_holds_the_chosen_sections_only() -> None:
    values = params.flat(params.load())
    assert values["dataset"] == "made"
    assert values["datasets.made.classes"] == 8
    assert values["train.learning_rate"] == 0.02
    assert values["box.two_stage.seeds"] == "sides"
    assert values["methods.hide.plug_points"] == "stride16_early,last"
    assert not [key for key in values if key.startswith(("datasets.other", "methods.plain", "abl"))]
    assert {type(value) for value in values.values()} <= {str, int, float, bool}
    assert len(values) == 58


def test_a_localizer_comes_with_the_sections_of_those_it_learns_from() -> None:
    assert params.load().localizers == {}
    assert list(params.load(localizer=True).localizers) == ["plain_map"]
    Path("params.yaml").write_text(TEXT.replace("localizer: plain_map", "localizer: taught"))
    read = params.load(localizer=True)
    assert list(read.localizers) == ["taught", "cells"]
    assert params.flat(read)["localizers.cells.rounds"] == 1


def test_put_copies() -> None:
    values = {"a": {"b": 1, "c": 2}, "d": {"e": 3}}
    assert params.put(values, "a.b", 9) == {"a": {"b": 9, "c": 2}, "d": {"e": 3}}
    assert values == {"a": {"b": 1, "c": 2}, "d": {"e": 3}}


# --- variants ---------------------------------------------------------------------------------


def test_a_variant_is_the_params_with_its_changes() -> None:
    main = params.load()
    soft = params.variant("hide-soft")
    assert (soft.method, soft.backbone, soft.train.epochs) == ("hide", "big", 3)
    assert soft.method_params == Hide(
        plug_points=("stride16_early", "last"), threshold=0.8, how="soft"
    )
    assert soft.box == main.box
    plain = params.variant("methods-plain")
    assert (plain.method, plain.backbone, plain.train.epochs) == ("plain", "small", 28)


def test_a_variant_does_not_depend_on_the_main_method() -> None:
    late = params.variant("hide-late")
    write({"method": "plain"})
    assert params.variant("hide-late") == late


def test_no_such_variant() -> None:
    assert told(lambda: params.variant("hide-lat")) == [
        "ablate.variants.hide-lat is unknown; did you mean ablate.variants.hide-late?"
    ]


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        ([], []),
        (["hide-soft"], ["hide-soft"]),
        (["hide"], ["hide-late", "hide-soft"]),
        (["core"], ["methods-plain", "hide-late"]),
        (["hide-soft", "core"], ["methods-plain", "hide-late", "hide-soft"]),
        (["all"], ["methods-plain", "hide-late", "hide-soft"]),
    ],
)
def test_which_variants_run(run: list[str], wanted: list[str]) -> None:
    write({"ablate.run": run})
    assert params.load_ablate().wanted() == wanted


# --- the file that is committed ---------------------------------------------------------------


def test_the_committed_file_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    raw: dict[str, Any] = params.read(ROOT / "params.yaml")
    assert set(raw["methods"]) == set(params.names("methods")) >= {"cam", "ass", "ahd", "rcam"}
    assert set(raw["datasets"]) == set(params.names("datasets"))
    params.load_all(ROOT / "params.yaml")
    assert len(raw["ablate"]["variants"]) > 10
    for key, variant in raw["ablate"]["variants"].items():
        assert params.variant(key, ROOT / "params.yaml").method == variant["method"]


def test_reading_costs_no_torch() -> None:
    """The stages that only download and prepare start in a second."""
    code = "import sys; from pipeline import params; params.load(method=False); " \
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
