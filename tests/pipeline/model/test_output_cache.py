"""What a model said is scored again without asking it, and the answer is the same."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import packed, params
from pipeline.evaluation import evaluator
from pipeline.model.output_cache import Kept
from pipeline.model.reader import Reader, resolve
from pipeline.params import Params
from tests import tiny
from tests.pipeline.methods.builders import build

NAMES = ("logits", "raw", "features")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tiny.prepare(tmp_path / "prepared", {"val": 0, "test": 7})


@pytest.fixture
def settings(tmp_path: Path) -> Params:
    return params.load(tiny.write_params(tmp_path, input__crop=64))


def reader(settings: Params, selection: str = "fixed", asked: bool = True) -> Reader:
    model = build("cam").eval()
    if not asked:  # a network that cannot be asked
        model.forward = None  # type: ignore[assignment]
    box = settings.box.model_copy(update={"selection": selection, "threshold": 0.3})
    return Reader(model, resolve(dataclasses.replace(settings, box=box), model, 64))


def kept_of(settings: Params, prepared: Path, model: str = "model", split: str = "test") -> Kept:
    return Kept.of(
        reader(settings), model, prepared, split, mib=settings.evaluate.keep_mib, say=print
    )


def evaluated(
    prepared: Path, settings: Params, kept: Kept, selection: str = "fixed", asked: bool = True
) -> evaluator.Evaluation:
    how = reader(settings, selection, asked)
    return evaluator.evaluate(how, prepared, "test", evaluator.Scoring.of(settings), kept=kept)


@pytest.mark.parametrize("selection", ["fixed", "two_stage"])
@pytest.mark.parametrize("protocol", ["classic", "wsoleval"])
def test_the_second_evaluation_asks_nothing_and_finds_the_same(
    prepared: Path, settings: Params, selection: str, protocol: str
) -> None:
    box = settings.box.model_copy(update={"protocol": protocol})
    settings = dataclasses.replace(settings, box=box)
    kept = kept_of(settings, prepared)
    assert kept.missing(NAMES) == "this model has not been evaluated so before"
    first = evaluated(prepared, settings, kept, selection)
    assert kept.missing(NAMES) is None
    fewer = settings.evaluate.model_copy(update={"batch_size": 4})
    again = dataclasses.replace(settings, evaluate=fewer)
    second = evaluated(prepared, again, kept, selection, asked=False)
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(
            getattr(first, field.name), getattr(second, field.name), field.name
        )


def test_other_weights_params_or_geometry_are_other_readings(
    prepared: Path, settings: Params
) -> None:
    def folder(settings: Params, model: str = "model", split: str = "test") -> Path:
        return kept_of(settings, prepared, model, split).folder

    other = settings.input.model_copy(update={"test": "center_crop"})
    boxes = settings.box.model_copy(update={"threshold": 0.77, "selection": "two_stage"})
    same = folder(dataclasses.replace(settings, box=boxes))
    assert same == folder(settings)
    names = {
        folder(settings),
        folder(settings, model="other"),
        folder(settings, split="val"),
        folder(dataclasses.replace(settings, input=other)),
    }
    assert len(names) == 4


def test_features_that_do_not_fit_are_left_out_and_named(prepared: Path, settings: Params) -> None:
    kept = kept_of(settings, prepared)
    logits_and_maps = 21 * (5 * 4 + 2 * 4 * 8 * 8) + 1000
    small = Kept(kept.folder, logits_and_maps)
    first = evaluated(prepared, settings, small)
    assert small.missing(("logits", "raw")) is None
    assert "the features were not kept" in str(small.missing(NAMES))
    second = evaluated(prepared, settings, small, asked=False)
    np.testing.assert_array_equal(first.boxes_predicted, second.boxes_predicted)


def test_nothing_is_kept_of_a_pass_that_breaks(prepared: Path, settings: Params) -> None:
    kept = kept_of(settings, prepared)
    with pytest.raises(TypeError):
        evaluated(prepared, settings, kept, asked=False)
    assert not kept.folder.exists()
    assert not list(kept.folder.parent.iterdir())


def test_the_readings_not_used_for_longest_go_first(tmp_path: Path) -> None:
    row = {"logits": torch.zeros(1, 1000)}
    for age, name in enumerate("abc"):
        kept = Kept(tmp_path / name, 3 * 4200)
        with kept.recording(1) as recorder:
            recorder.add(row)
        os.utime(kept.folder, (age, age))
    Kept(tmp_path / "a", 0).used()
    with Kept(tmp_path / "d", 3 * 4200).recording(1) as recorder:
        recorder.add(row)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "c", "d"]


def test_pictures_take_the_kept_maps(prepared: Path, settings: Params) -> None:
    kept = kept_of(settings, prepared)
    images = packed.Split.open(prepared, "test")
    asked = evaluator.predicted_maps(reader(settings), images, [3, 1], kept, 16)
    evaluated(prepared, settings, kept)
    how = reader(settings, asked=False)
    taken = evaluator.predicted_maps(how, images, [3, 1], kept, 16)
    np.testing.assert_allclose(taken, asked, atol=1e-4)
    assert taken.shape == (2, 64, 64)
    assert evaluator.predicted_maps(how, images, [], kept, 16).shape == (0, 64, 64)
