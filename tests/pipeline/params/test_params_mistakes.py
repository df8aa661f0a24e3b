"""Every mistake in params.yaml is reported in words: what was given, what is allowed; all at once."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import params
from pipeline.errors import UserError
from pipeline.params import yamlfile
from tests.pipeline.params.made_params import made, told, write  # noqa: F401

pytestmark = pytest.mark.usefixtures("made")


POINTS = (
    "stride2, stride4, stride8, stride16_early, stride16_late, last "
    "(or VGG16's names pool1, pool2, pool3, pool4, conv5_3)"
)


def problems(changes: Mapping[str, object]) -> list[str]:
    write(changes)
    return told(params.load_all)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"methods.hide.threshold": 2}, "methods.hide.threshold is 2; allowed: a number from 0 to 1"),
        ({"train.epochs": 0}, "train.epochs is 0; allowed: a whole number >= 1"),
        ({"train.epochs": 2.0}, "train.epochs is 2.0; allowed: a whole number >= 1"),
        ({"train.epochs": True}, "train.epochs is true; allowed: a whole number >= 1"),
        ({"train.momentum": True}, "train.momentum is true; allowed: a number >= 0 and < 1"),
        ({"train.momentum": None}, "train.momentum is null; allowed: a number >= 0 and < 1"),
        ({"train.weight_decay": float("inf")}, "train.weight_decay is inf; allowed: a number >= 0"),
        ({"box.two_stage.step": 1}, "box.two_stage.step is 1; allowed: a number > 0 and < 1"),
        ({"box.two_stage.center": 1}, "box.two_stage.center is 1; allowed: true or false"),
        ({"input.test": "crop"}, "input.test is 'crop'; allowed: squash, center_crop"),
        ({"backbone": 16}, "backbone is 16; allowed: a text"),
        ({"train": 3}, "train is 3; allowed: a section with trunk, epochs, min_steps, batch_size, learning_rate, "
         "head_multiplier, momentum, weight_decay, schedule, step_epochs, warmup_epochs, loss, "
         "batchnorm, precision, compile, device, processes, workers, cache_mib, per_method"),
        ({"methods.plain": None}, "methods.plain is null; allowed: the empty section {}"),
        ({"methods": None}, "methods is null; allowed: a section"),
        ({"methods.hide.plug_points": "last"},
         "methods.hide.plug_points is 'last'; allowed: a list, each item: a text"),
        ({"methods.hide.plug_points": ["last", 3, True]},
         "methods.hide.plug_points is [last, 3, true]; allowed: a list, each item: a text"),
        ({"datasets.other.boxes": "x.txt"},
         "datasets.other.boxes is 'x.txt'; allowed: a text that matches csv$ or null"),
        # texts for numbers
        ({"train.learning_rate": "1e-4"}, "train.learning_rate is the text '1e-4'; "
         "allowed: a number > 0 (YAML reads 1e-4 as text: write 0.0001)"),
        ({"train.epochs": "1e3"}, "train.epochs is the text '1e3'; "
         "allowed: a whole number >= 1 (YAML reads 1e3 as text: write 1000)"),
        ({"train.learning_rate": "0.1"}, "train.learning_rate is the text '0.1'; "
         "allowed: a number > 0 (write it without quotes)"),
        ({"train.learning_rate": "fast"}, "train.learning_rate is 'fast'; allowed: a number > 0"),
        # missing and unknown
        ({"train.epochs": ...}, "train.epochs is missing; allowed: a whole number >= 1"),
        ({"evaluate": ...}, "evaluate is missing; "
         "allowed: a section with batch_size, thresholds, bootstrap, pictures, keep_mib"),
        ({"methods.plain": ...}, "methods.plain is missing; allowed: the empty section {}"),
        ({"trian": {}}, "trian is unknown; did you mean train?"),
        ({"train.epoch": 3}, "train.epoch is unknown; did you mean train.epochs?"),
        ({"input.zoom": 3}, "input.zoom is unknown; allowed: input.resize, input.crop, input.test"),
        ({"box.two_stage.sede": 3}, "box.two_stage.sede is unknown; did you mean box.two_stage.seeds?"),
        ({"methods.plain.x": 3}, "methods.plain.x is unknown; allowed: nothing"),
        ({"datasets.mad": {}}, "datasets.mad is unknown; did you mean datasets.made?"),
        # names
        ({"method": "nope"}, "method is 'nope'; allowed: hide, plain (a file of pipeline/methods)"),
        ({"train.trunk": "frozen"}, "train.trunk is 'frozen', which keeps the trunk as loaded, and weights is "
         "'none'; allowed: tuned, or other weights"),
        ({"localizer": "nope"}, "localizer is 'nope'; "
         "allowed: cells, plain_map, taught (a file of pipeline/localizers)"),
        ({"method": "cells"}, "method is 'cells'; allowed: hide, plain (a file of pipeline/methods); "
         "cells is a localizer: write `localizer: cells`"),
        ({"localizer": "hide"}, "localizer is 'hide'; "
         "allowed: cells, plain_map, taught (a file of pipeline/localizers); "
         "hide is a method: write `method: hide`"),
        ({"methods.cells": {}},
         "methods.cells is unknown; cells is a localizer: see localizers.cells"),
        ({"localizers.cells.rounds": -1}, "localizers.cells.rounds is -1; allowed: a whole number >= 0"),
        ({"dataset": "nope"}, "dataset is 'nope'; allowed: made, other (a file of pipeline/datasets)"),
        ({"dataset": 3}, "dataset is 3; allowed: a text"),
        ({"backbone": "smal"}, "backbone is 'smal'; allowed: small, big"),
        ({"weights": "imagnet"},
         "weights is 'imagnet'; allowed: none, imagenet, or a state-dict file (.safetensors, .pth, .pt)"),
        ({"methods.hide.plug_points": ["pool5", "last"]}, "methods.hide.plug_points is [pool5, last]; "
         f"allowed: a list of {POINTS}, not pool5"),
        ({"methods.hide.plug_points": ["conv5_3", "stride16_late"]}, "methods.hide.plug_points is "
         "[conv5_3, stride16_late]; allowed: a list that names each plug point once"),
        ({"weights": "no.pth"},
         "weights is 'no.pth', and there is no such file; allowed: none, imagenet, or a file"),
        ({"heatmap": "gradcam", "heatmaps.layer": "layer4"},
         f"heatmaps.layer is 'layer4'; allowed: {POINTS}"),
        ({"heatmaps.layer": "pool4"}, "heatmaps.layer is 'pool4', which cam cannot use; allowed: last"),
        ({"train.per_method.hid": {"learning_rate_scale": 1, "epochs_scale": 1, "batch_size_scale": 1,
                                   "step_share": None}},
         "train.per_method.hid is unknown; did you mean train.per_method.hide?"),
        ({"train.per_method.plain.epochs_scale": 0},
         "train.per_method.plain.epochs_scale is 0; allowed: a number > 0"),
        ({"train.per_method.plain.step_share": 1.2}, "train.per_method.plain.step_share is 1.2; "
         "allowed: a number > 0 and <= 1 or null"),
        ({"train.per_method": 3}, "train.per_method is 3; allowed: a section"),
        ({"train.per_method": ...}, "train.per_method is missing; allowed: a section"),
        ({"ablate.variants.methods-plain.schedule": "hid"}, "ablate.variants.methods-plain: "
         "schedule is 'hid'; allowed: a method of train.per_method, or null"),
        # several values at odds
        ({"input.crop": 145}, "input.crop is 145; allowed: at most resize, which is 144"),
        ({"train.warmup_epochs": 14, "ablate.variants.hide-soft.set": {}},
         "train.warmup_epochs is 14; allowed: less than epochs, which is 14"),
        ({"box.selection": "val", "prepare.val_fraction": 0}, "box.selection is 'val', which needs "
         "held-out images; allowed: prepare.val_fraction > 0, or another box.selection"),
        ({"box.selection": "val", "dataset": "other", "datasets.other.boxes": None},
         "box.selection is 'val', which needs boxes on held-out images, and datasets.other.boxes is "
         "null; allowed: another box.selection"),
        ({"ablate.variants.hide-late.set": {"box.selection": "val"}, "dataset": "other",
          "datasets.other.boxes": None},
         "ablate.variants.hide-late: box.selection is 'val', which needs boxes on held-out images, "
         "and datasets.other.boxes is null; allowed: another box.selection"),
        # the ablation
        ({"ablate.run": ["hide-sotf"]},
         "ablate.run names 'hide-sotf', which is unknown; did you mean hide-soft?"),
        ({"ablate.run": ["tables"]}, "ablate.run names 'tables', which is unknown; "
         "allowed: core, all, methods, hide, or a name of ablate.variants"),
        ({"ablate.run": ["all", "all"]}, "ablate.run names something twice; allowed: each name once"),
        ({"ablate.run": "core"}, "ablate.run is 'core'; allowed: a list, each item: a text"),
        ({"ablate.core": ["hide"]}, "ablate.core names 'hide', which is unknown; did you mean hide-soft?"),
        ({"ablate.variants.methods-plain.method": ...},
         "ablate.variants.methods-plain.method is missing; allowed: a text"),
        ({"ablate.variants.methods-plain.sett": {}},
         "ablate.variants.methods-plain.sett is unknown; did you mean ablate.variants.methods-plain.set?"),
        ({"ablate.variants.methods-plain": None}, "ablate.variants.methods-plain is null; "
         "allowed: a section with method, backbone, schedule, set"),
        ({"ablate.variants.Plain": {"method": "plain"}},
         "ablate.variants.Plain is not a valid name; "
         "allowed: <study>-<variant> in a-z, 0-9, _ and -, such as boxes-two_stage"),
        ({"ablate.variants.methods-plain.method": "plane"}, "ablate.variants.methods-plain: "
         "method is 'plane'; allowed: hide, plain (a file of pipeline/methods)"),
        ({"ablate/variants/hide-late/set/methods.hide.plug_points": ["expand7"]},
         "ablate.variants.hide-late: methods.hide.plug_points is [expand7]; "
         f"allowed: a list of {POINTS}, not expand7"),
        ({"ablate/variants/hide-soft/set/train.epochs": 0},
         "ablate.variants.hide-soft: train.epochs is 0; allowed: a whole number >= 1"),
        ({"ablate/variants/hide-soft/set/methods.hide.hwo": "soft"}, "ablate.variants.hide-soft: "
         "set: methods.hide.hwo is unknown; did you mean methods.hide.how?"),
        ({"ablate/variants/hide-soft/set/epochs": 3}, "ablate.variants.hide-soft: "
         "set: epochs is unknown; did you mean train.epochs?"),
        ({"ablate/variants/hide-soft/set/train": {"epochs": 3}}, "ablate.variants.hide-soft: "
         "set: train is a section; give its values one by one, as in train.trunk"),
        ({"ablate/variants/hide-soft/set/backbone": "big"}, "ablate.variants.hide-soft: "
         "set: backbone has its own place beside `set`; write it there"),
        ({"ablate/variants/hide-soft/set/prepare.short_side": 64}, "ablate.variants.hide-soft: "
         "set: prepare.short_side is one for all variants; change it in the file's main part"),
    ],
)  # fmt: skip
def test_a_mistake(changes: Mapping[str, object], problem: str) -> None:
    assert problems(changes) == [problem]


def test_many_mistakes_are_told_at_once_and_each_once() -> None:
    assert problems(
        {
            "trian": {},
            "method": "nope",
            "backbone": "nope",
            "train.epochs": 0,
            "train.momentum": ...,
            "input.crop": 200,
            "datasets.other.folder": 3,
            "methods.hide.threshold": 2,
            "ablate/variants/hide-soft/set/methods.hide.how": "loud",
        }
    ) == [
        "input.crop is 200; allowed: at most resize, which is 144",
        "train.epochs is 0; allowed: a whole number >= 1",
        "train.momentum is missing; allowed: a number >= 0 and < 1",
        "trian is unknown; did you mean train?",
        "datasets.other.folder is 3; allowed: a text",
        "method is 'nope'; allowed: hide, plain (a file of pipeline/methods)",
        "methods.hide.threshold is 2; allowed: a number from 0 to 1",
        "backbone is 'nope'; allowed: small, big",
        "ablate.variants.hide-soft: methods.hide.how is 'loud'; allowed: hard, soft",
    ]


def test_load_tells_what_it_looks_at() -> None:
    write({"train.epochs": 0, "methods.hide.threshold": 2, "datasets.other.folder": 3})
    epochs = "train.epochs is 0; allowed: a whole number >= 1"
    threshold = "methods.hide.threshold is 2; allowed: a number from 0 to 1"
    assert told(params.load) == [epochs, threshold]
    assert told(lambda: params.load(method=False)) == [epochs]
    assert told(lambda: params.variant("methods-plain")) == [
        f"ablate.variants.methods-plain: {epochs}"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is null; allowed: the keys dataset, method, backbone, weights, seed, localizer, "
         "heatmap, datasets, prepare, input, train, heatmaps, box, localize, evaluate, localizers, "
         "methods, ablate"),
        ("a: 1\nb: [1\nc: 2\n", "line 3: invalid YAML: expected ',' or ']', but got ':' "
         "while parsing a flow sequence"),
        ("a: b: c\n", "line 1: invalid YAML: mapping values are not allowed here"),
        ("a: !!python/name:os.system\n", "line 1: invalid YAML: could not determine a constructor "
         "for the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("a: 1\nb: \x01\n", "line 2: invalid YAML: special characters are not allowed"),
        ("a: 1\n2: 3\n", "line 2: the key '2' is not text; allowed: a name"),
        ("t:\n  a: 1\n  b: 2\n  a: 1\n", "t.a is given twice (lines 2 and 4); keep one"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_read(text: str, problem: str) -> None:
    Path("params.yaml").write_text(text)
    assert told(params.load) == [problem]


def test_no_file() -> None:
    Path("params.yaml").unlink()
    assert told(params.load) == ["No such file or directory; run this where params.yaml is"]


@pytest.mark.parametrize(
    "value",
    [
        "010",
        "-010",
        "007",
        "00",
        "08",
        "0o10",
        "0b11",
        "1_000",
        "1_0.5",
        "1_000e3",
        "0x_1F",
        "1:30",
        "12:30:45",
        "1:30.5",
        "yes",
        "No",
        "ON",
        "off",
    ],
)
@pytest.mark.parametrize(
    "form", ["seed: {}\n", "a: {{b: [1, {}]}}\n", "a:\n  - {}\n", "x: !!int {}\n"]
)
def test_what_yaml_1_1_and_1_2_read_differently_is_refused(value: str, form: str) -> None:
    if form.startswith("x") and value.isalpha():
        pytest.skip("no whole number")
    with pytest.raises(
        UserError, match=f"line [12]: .* is {value}, which YAML 1.1 and 1.2 read diff"
    ):
        yamlfile.parse(form.format(value), "params.yaml")


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "10",
        "-1",
        "0.5",
        "00.5",
        "1e-05",
        "0x1F",
        "'010'",
        '"yes"',
        "true",
        "no.csv",
        "on_site",
        "v1_000",
        "1_a",
        "10:x",
        "C:1",
        "~",
        "null",
    ],
)
def test_what_both_read_alike_is_taken(value: str) -> None:
    assert (
        yamlfile.parse(f"a: {value}", "params.yaml")["a"]
        == YAML(typ="safe").load(f"a: {value}")["a"]
    )


LAUGHS = "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'ha'] * 9)}]" for i in range(30)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "line 5: more than 20,000 values, with aliases written out"),
        (LAUGHS.replace("[", "{x0: ").replace(", ", ", x: ").replace("]", "}"), "line "),
        ("a: &a [*a]\n", "line 1: an anchor holds its own alias"),
        ("a: &a {b: {c: *a}}\n", "line 1: an anchor holds its own alias"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("a: " + "{b: " * 5_000, "nested too deeply"),
        ("a: [" + "1, " * 30_000 + "1]", "line 1: more than 20,000 values"),
        ("# " + "x" * 2**20, "1,048,578 characters; allowed: at most 1,048,576"),
        ("a: " + "9" * 5_000, "invalid YAML"),
        ("a: 2001-99-99", "invalid YAML"),
    ],
)
def test_a_file_made_to_exhaust_memory_is_refused_within_a_second(text: str, problem: str) -> None:
    began = time.process_time()
    Path("params.yaml").write_text(text)
    (found,) = told(params.load_all)
    assert problem in found
    assert time.process_time() - began < 4  # a second, on a machine that does nothing else
