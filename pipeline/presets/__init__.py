"""Ready-made settings of params.yaml: the committed default, the thesis's runs, a run on real birds.

A preset is complete: it sets every value outside `methods` and `ablate`, so nothing of an earlier
trial is left. Of the rest it sets what depends on the backbone and the size of the run: AHD's threshold,
say, and whether ablations run.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from pipeline.errors import UserError
from pipeline.params import key_problem

Key = tuple[str, ...]
"""The keys from the top of params.yaml down to a value."""


@dataclass(frozen=True)
class Preset:
    """What it is for, in a line, and its values by dotted key."""

    title: str
    values: Mapping[str, Any]


# Heads and branches of convolutions, by their number of channels.
WIDE = ("acol", "spg", "danet", "mci", "bas")


# How the methods' own code trains, relative to `train`, by method; all others: as `train` says.
Schedules = Mapping[str, Mapping[str, Any]]
SAME = {
    "learning_rate_scale": 1.0, "epochs_scale": 1.0, "batch_size_scale": 1.0, "step_share": None,
}  # fmt: skip
SCHEDULED = ("rcam", "acol", "spg", "adl", "danet", "nl_ccam", "eil", "mci", "bas")


def schedules(own: Schedules) -> dict[str, Any]:
    """The values of train.per_method in which each method of `own` has its own."""
    return {
        f"train.per_method.{method}.{name}": value
        for method in SCHEDULED
        for name, value in {**SAME, **own.get(method, {})}.items()
    }


def widths(channels: int, **others: int) -> dict[str, Any]:
    """The same width for every method that has a head of its own, but for the `others`."""
    return {f"methods.{name}.width": others.get(name, channels) for name in WIDE}


# The committed params.yaml; a test holds them together.
QUICK: dict[str, Any] = {
    "dataset": "synthetic",
    "method": "cam",
    "backbone": "vgg_small",
    "weights": "none",
    "seed": 0,
    "localizer": "class_map",
    "heatmap": "cam",
    "datasets.synthetic.classes": 8,
    "datasets.synthetic.train_per_class": 60,
    "datasets.synthetic.test_per_class": 40,
    "datasets.synthetic.side": 96,
    "datasets.synthetic.seed": 0,
    "datasets.cub.archive": "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "datasets.cub.md5": "97eceeb196236b17998738112f37df78",
    "datasets.ilsvrc.root": "data/ilsvrc",
    "datasets.folder.images": "data/images",
    "datasets.folder.boxes": None,
    "datasets.folder.test_fraction": 0.3,
    "datasets.folder.split": None,
    "datasets.folder.split_seed": 0,
    "prepare.short_side": 96,
    "prepare.jpeg_quality": 95,
    "prepare.val_fraction": 0.1,
    "prepare.val_seed": 0,
    "prepare.skip_unreadable": False,
    "input.resize": 108,
    "input.crop": 96,
    "input.test": "squash",
    "train.epochs": 12,
    "train.batch_size": 16,
    "train.learning_rate": 0.02,
    "train.head_multiplier": 1,
    "train.momentum": 0.9,
    "train.weight_decay": 0.0005,
    "train.schedule": "cosine",
    "train.step_epochs": 15,
    "train.warmup_epochs": 1,
    "train.loss": "cross_entropy",
    "train.batchnorm": "train",
    "train.precision": "fp32",
    "train.compile": False,
    "train.device": "auto",
    "train.processes": "auto",
    "train.workers": 2,
    "train.cache_mib": 2048,
    "heatmaps.layer": "last",
    "heatmaps.samples": 8,
    "heatmaps.noise": 0.15,
    "heatmaps.channels": 64,
    "heatmaps.batch_size": 64,
    "box.normalise": "min_max",
    "box.ivr_quantile": 0.45,
    "box.selection": "auto",
    "box.threshold": 0.2,
    "box.two_stage.step": 0.05,
    "box.two_stage.min_seeds": 4,
    "box.two_stage.seeds": "sides",
    "box.two_stage.center": True,
    "box.protocol": "classic",
    "localize.features_mib": 4096,
    "evaluate.batch_size": 64,
    "evaluate.thresholds": 100,
    "evaluate.bootstrap": 1000,
    "evaluate.pictures": 8,
    "evaluate.keep_mib": 1024,
    "methods.ahd.hide_threshold": 0.8,
    **schedules({}),
    "methods.adl.drop_threshold": 0.8,
    "methods.icl.peak_threshold": 0.8,
    "methods.bas.area_weight": 0.7,
    "methods.bas.foreground_weight": 0.0,
    "methods.bas.top_classes": 80,
    "methods.nl_ccam.combination": "quadratic",
    **widths(128),
    "ablate.always": True,
    "ablate.all": False,
}
# Rates at which a pretrained trunk is tuned, whatever the data.
TUNED: Schedules = {
    "rcam": {"learning_rate_scale": 0.1},  # 0.0001: thesis §5.5.1
    "acol": {"learning_rate_scale": 0.1},  # 0.0001: the scripts of xiaomengyc/ACoL
    "spg": {"learning_rate_scale": 0.1},  # its code has 0.001, which diverges on MobileNetV2
    "mci": {"learning_rate_scale": 0.1},  # no code; 0.001 diverges on MobileNetV2
}
# On CUB-200-2011, relative to 50 epochs of batches of 32.
ON_CUB: Schedules = {
    **TUNED,
    # xiaomengyc/ACoL: 60 epochs of batches of 20, the rate never divided
    "acol": {
        "learning_rate_scale": 0.1, "epochs_scale": 1.2, "batch_size_scale": 0.625, "step_share": 1.0,
    },
    # junsukchoe/ADL: 525 epochs of batches of 128, of which the author says that 200 do; the rate divided
    # at 30, 60, 90 and 100 of 105 parts
    "adl": {"epochs_scale": 4.0, "batch_size_scale": 4.0, "step_share": 0.29},
    # xuehaolan/DANet: 100 epochs of batches of 30, the rate divided at 80
    "danet": {"epochs_scale": 2.0, "batch_size_scale": 0.9375, "step_share": 0.8},
    # Yangseung/NL-CCAM: 100 epochs of batches of 16 (with Adam and a rate that falls polynomially)
    "nl_ccam": {"epochs_scale": 2.0, "batch_size_scale": 0.5},
    # Wayne-Mai/EIL: 80 epochs of batches of 64, the rate divided at 60
    "eil": {"epochs_scale": 1.6, "batch_size_scale": 2.0, "step_share": 0.75},
    # wpy1999/BAS: 100 epochs of batches of 32, the rate divided at 80
    "bas": {"epochs_scale": 2.0, "step_share": 0.8},
}  # fmt: skip
# On ILSVRC, relative to 10 epochs of batches of 32.
ON_ILSVRC: Schedules = {
    **TUNED,
    # xiaomengyc/ACoL: 6 epochs
    "acol": {
        "learning_rate_scale": 0.1, "epochs_scale": 0.6, "batch_size_scale": 0.625, "step_share": 1.0,
    },
    # junsukchoe/ADL: a fifth of its epochs on CUB
    "adl": {"epochs_scale": 2.1, "batch_size_scale": 4.0, "step_share": 0.29},
    # wpy1999/BAS: 9 epochs of batches of 128, the rate divided after every 3
    "bas": {"epochs_scale": 0.9, "batch_size_scale": 4.0, "step_share": 0.33},
}  # fmt: skip
# Fine-tuning at the literature's image size.
FINE_TUNING: dict[str, Any] = QUICK | {
    "weights": "imagenet",
    "prepare.short_side": 256,
    "prepare.val_fraction": 0.0,  # published runs train on every training image
    "input.resize": 256,
    "input.crop": 224,
    "train.learning_rate": 0.001,  # thesis §3.3.1, §4.3.1
    "train.head_multiplier": 10,  # clovaai/wsolevaluation
    **schedules(TUNED),
    **widths(1024, spg=512),
}
# The thesis gives neither epochs nor schedule, momentum, weight decay, crop or the head's factor of 10:
# they are those of the benchmark clovaai/wsolevaluation, with whose weight decays the backbones come below.
THESIS = FINE_TUNING | {
    "train.batch_size": 32,  # thesis §3.3.1, §4.3.1, §5.5.1
    "train.schedule": "step",
    "train.warmup_epochs": 0,
    "train.precision": "auto",
    "train.workers": 8,
    "ablate.always": False,  # each variant is a training of hours
}
CUB = THESIS | {
    "dataset": "cub",
    "train.epochs": 50,
    "train.step_epochs": 15,
    **schedules(ON_CUB),
}
ILSVRC = THESIS | {
    **schedules(ON_ILSVRC),
    "dataset": "ilsvrc",
    "train.epochs": 10,
    "train.step_epochs": 3,
    "methods.nl_ccam.combination": "top20",  # of its successors; the paper's own is not known
}
VGG16 = {"backbone": "vgg16", "train.weight_decay": 0.0005}
RESNET50 = {
    "backbone": "resnet50",
    "train.weight_decay": 0.0001,
    "methods.ahd.hide_threshold": 0.9,
    "methods.adl.drop_threshold": 0.9,
    "methods.icl.peak_threshold": 0.9,
}
# BAS's weights of the mask's area and of the foreground, and the classes whose masks make the heatmap,
# by data and backbone (the authors' code).
BAS = {
    ("cub", "vgg16"): (0.7, 0.0, 80),
    ("cub", "resnet50"): (1.2, 0.5, 200),
    ("ilsvrc", "vgg16"): (1.0, 0.05, 0),
    ("ilsvrc", "resnet50"): (2.0, 1.0, 0),
}


def published(base: Mapping[str, Any], backbone: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's settings on a backbone."""
    area, foreground, classes = BAS[base["dataset"], backbone["backbone"]]
    bas = {
        "methods.bas.area_weight": area,
        "methods.bas.foreground_weight": foreground,
        "methods.bas.top_classes": classes,
    }
    return {**base, **backbone, **bas}


# For the few real birds of a local archive (no known md5) on a CPU, with weights whose batch norm is
# folded away: statistics of small batches would undo it.
BIRDS = FINE_TUNING | {
    "dataset": "cub",
    "backbone": "mobilenet_v2",
    "datasets.cub.md5": None,
    "train.epochs": 12,
    "train.batch_size": 16,
    "train.batchnorm": "frozen",
    # two summed losses of EIL diverge at the others' rate
    "train.per_method.eil.learning_rate_scale": 0.5,
    **widths(256),
    "ablate.always": False,
}

PRESETS: dict[str, Preset] = {
    "quick": Preset("the committed default: drawn images, minutes on a CPU", QUICK),
    "birds": Preset(
        "real birds on a CPU; give -S datasets.cub.archive=FILE -S weights=FILE", BIRDS
    ),
    "cub-vgg16": Preset("CUB-200-2011 as in the thesis's chapters 3 to 5", published(CUB, VGG16)),
    "cub-resnet50": Preset("CUB-200-2011 as in the thesis's chapter 4", published(CUB, RESNET50)),
    "ilsvrc-vgg16": Preset("ILSVRC as in the thesis's chapters 3 to 5", published(ILSVRC, VGG16)),
    "ilsvrc-resnet50": Preset("ILSVRC as in the thesis's chapter 4", published(ILSVRC, RESNET50)),
}


def values_of(name: str, raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[Key, Any]:
    """All values that the preset `name` with the user's `overrides` gives a params.yaml of `raw`.

    Raises UserError for keys that `raw` does not have.
    """
    if name not in PRESETS:
        raise UserError(f"{name!r} is no preset; allowed: {', '.join(PRESETS)}")
    if problems := [told for key in overrides if (told := key_problem(raw, key))]:
        raise UserError(problems)
    preset = PRESETS[name].values
    if missing := [key for key in preset if key_problem(raw, key)]:
        raise UserError(f"params.yaml lacks {', '.join(missing)}; put them back")
    return {tuple(key.split(".")): value for key, value in {**preset, **overrides}.items()}


def rewritten(text: str, values: Mapping[Key, Any]) -> str:
    """The YAML `text` with other `values` of existing keys; comments and order stay."""
    yaml = YAML()
    yaml.width = 2**16  # no line is broken
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _null)
    document = yaml.load(text)
    for (*parents, last), value in values.items():
        section = document
        for parent in parents:
            section = section[parent]
        section[last] = _in_one_line(value) if isinstance(value, list) else value
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _in_one_line(values: list[Any]) -> CommentedSeq:
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
