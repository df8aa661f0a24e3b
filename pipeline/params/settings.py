"""The sections of params.yaml that every dataset and method shares: types, ranges, where from."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.cache import project_path
from pipeline.params.plug_points import PlugPoint
from pipeline.params.section import InputFile, Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

CLASS_MAP = "class_map"
"""The localizer that reads the method's own map, or the heatmap that `heatmap` names; it is not fitted."""

VARIANT_NAME = r"[a-z0-9_]+-[a-z0-9_-]+"


class Prepare(Section):
    """How images are stored, once, for all methods."""

    short_side: Positive
    """Pixels; larger images are stored with this short side. Crops of 224 px are taken from 256."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    val_fraction: Annotated[float, Field(ge=0, lt=1)]
    """Of the training images of each class, held out of training. Published runs hold out none."""
    val_seed: Seed
    skip_unreadable: bool


class Input(Section):
    """Network geometry in pixels."""

    resize: Positive
    """Training images are squashed to resize × resize; 256 in the WSOL literature."""
    crop: Positive
    """Side of the network's input; 224 in the thesis (Fig. 12; its maps of 28 × 28 and 14 × 14, §3.3.1)."""
    test: Literal["squash", "center_crop"]

    @model_validator(mode="after")
    def _crop_fits(self) -> "Input":
        if self.crop > self.resize:
            raise ValueError(
                f"crop is {self.crop}; allowed: at most resize, which is {self.resize}"
            )
        return self


class Train(Section):
    """The training loop: stochastic gradient descent with Nesterov's momentum."""

    trunk: Literal["tuned", "frozen"]
    """frozen: the trunk stays as it was loaded, and only what is new learns."""
    epochs: Positive
    min_steps: Count
    """As many epochs more as it takes to make so many steps: few images make short epochs."""
    batch_size: Positive
    """32 in the thesis (§3.3.1, §4.3.1, §5.5.1)."""
    learning_rate: Annotated[float, Field(gt=0)]
    """0.001 in the thesis's chapters 3 and 4 (§3.3.1, §4.3.1), 0.0001 in chapter 5 (§5.5.1)."""
    head_multiplier: Annotated[float, Field(gt=0)]
    """Learning-rate factor of every layer that is not pretrained. Not in the thesis; 10 in the benchmark
    clovaai/wsolevaluation and in the code of ACoL, DANet, EIL and BAS."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["constant", "step", "cosine"]
    step_epochs: Positive
    """Epochs between two divisions of the rate by 10, under the schedule `step`."""
    warmup_epochs: Count
    loss: Literal["cross_entropy", "mse"]
    batchnorm: Literal["train", "frozen"]
    precision: Literal["auto", "fp32", "bf16"]
    compile: bool
    """torch.compile of the training step: minutes at the start, a faster step; needs a C++ compiler on a CPU."""
    device: Literal["auto", "cpu", "cuda", "mps"]
    processes: Literal["auto"] | Positive
    """That share every batch, on this machine; auto: one per GPU. Batch size and figures stay the same."""
    workers: Count
    cache_mib: Count

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Train":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}; allowed: less than epochs, "
                f"which is {self.epochs}"
            )
        return self


class Schedule(Section):
    """How a method is trained whose own code does it otherwise, relative to the values of `train`."""

    learning_rate_scale: Annotated[float, Field(gt=0)]
    """Of train.learning_rate."""
    epochs_scale: Annotated[float, Field(gt=0)]
    """Of train.epochs and, where step_share is null, of train.step_epochs."""
    batch_size_scale: Annotated[float, Field(gt=0)]
    """Of train.batch_size."""
    step_share: Annotated[float, Field(gt=0, le=1)] | None
    """Of the method's own epochs, in place of train.step_epochs; 1: the rate is never divided."""


class TrainAll(Train):
    """The section `train` of the file: one set of values, and the methods that differ from it."""

    per_method: dict[str, Schedule]

    def of(self, method: str) -> Train:
        """The values that `method` is trained with."""
        values = self.model_dump(exclude={"per_method"})
        if (own := self.per_method.get(method)) is not None:
            epochs = max(self.warmup_epochs + 1, round(self.epochs * own.epochs_scale))
            every = (
                self.step_epochs * own.epochs_scale
                if own.step_share is None
                else epochs * own.step_share
            )
            values |= {
                "learning_rate": self.learning_rate * own.learning_rate_scale,
                "epochs": epochs,
                "step_epochs": max(1, round(every)),
                "batch_size": max(1, round(self.batch_size * own.batch_size_scale)),
            }
        return Train.model_validate(values)


class TwoStage(Section):
    """RCAM's choice of a threshold per image (thesis §5.4.3, Eq. 22)."""

    step: Annotated[float, Field(gt=0, lt=1)]
    """Fraction of the heatmap's range between two candidates; 0.05 in the thesis (§5.5.1)."""
    min_seeds: Positive
    """Fewer border cells than this bound no box; 4 in the thesis (§5.5.1)."""
    seeds: Literal["sides", "contour"]
    center: bool


HeatmapName = Literal["cam", "gradcam", "gradcam++", "smooth_gradcam++", "scorecam", "layercam"]


class Heatmaps(Section):
    """What the heatmaps other than `cam` are read with."""

    layer: PlugPoint
    """Feature map that the gradient ones read."""
    samples: Positive
    """Noisy copies of Smooth Grad-CAM++."""
    noise: Annotated[float, Field(ge=0)]
    """Their standard deviation, as a share of the image's range; 0.15 in SmoothGrad."""
    channels: Count
    """Score-CAM: of each image so many most active channels; 0: all."""
    batch_size: Positive
    """Score-CAM: masked images at a time."""


def _rule(value: str) -> str:
    files = (Path(__file__).parents[1] / "boxes" / "rules").glob("[a-z]*.py")
    allowed = ["auto", *sorted(path.stem for path in files if path.stem != "base")]
    if value not in allowed:
        raise ValueError(", ".join(allowed))
    return value


class Box(Section):
    """From a heatmap to a box."""

    normalise: Literal["min_max", "ivr"]
    """ivr: subtract the map's own quantile, cut at zero, divide by the maximum (Kim et al., ICCV 2021)."""
    ivr_quantile: Annotated[float, Field(ge=0, lt=1)]

    selection: Annotated[str, AfterValidator(_rule)]
    """auto: the localizer's or the method's own; else a file of pipeline/boxes/rules."""
    threshold: Fraction
    """Fraction of the heatmap's range; 0.2 in CAM and the thesis (§5.3)."""
    two_stage: TwoStage
    protocol: Literal["classic", "wsoleval"]


class Localize(Section):
    """What localizers are fitted to: feature maps of training images, labels known."""

    features_mib: Positive
    """Disk for the feature maps, in half precision: of more images than fit, an even sample of each class."""


class Evaluate(Section):
    """Scores and pictures."""

    batch_size: Positive
    thresholds: Positive
    bootstrap: Positive
    pictures: Count
    keep_mib: Count
    """Disk for the latest heatmaps and features, so that new box params need no forward pass; 0 keeps none."""


class Variant(Section):
    """One row of an ablation: the params with another method, backbone or single values."""

    method: str
    backbone: str | None = None
    schedule: str | None = None
    """The method whose entry in train.per_method it is trained by; null: its own."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values by dotted key, as in `methods.ass.plug_points: [conv5_3]`."""


class Ablate(Section):
    """Named variants `<study>-<variant>`, and which of them are trained and scored beside the main run."""

    run: tuple[str, ...]
    """Names of variants or studies, `core` or `all`; each is a DVC stage."""
    core: tuple[str, ...]
    """The variants that the name `core` stands for."""
    variants: dict[str, Variant]

    @model_validator(mode="after")
    def _names_are_known(self) -> "Ablate":
        allowed = "<study>-<variant> in a-z, 0-9, _ and -, such as boxes-two_stage"
        problems = [
            f"variants.{v} is not a valid name; allowed: {allowed}"
            for v in self.variants
            if not re.fullmatch(VARIANT_NAME, v)
        ]
        groups = list(dict.fromkeys(["core", "all", *(v.partition("-")[0] for v in self.variants)]))
        known = [*groups, *self.variants]
        for field, allowed_here in (("run", known), ("core", list(self.variants))):
            given: tuple[str, ...] = getattr(self, field)
            for name in given:
                if name not in allowed_here:
                    close = difflib.get_close_matches(name, allowed_here, n=1)
                    hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(groups)}"
                    end = "" if close else ", or a name of ablate.variants"
                    problems.append(f"{field} names {name!r}, which is unknown; {hint}{end}")
            if len(set(given)) < len(given):
                problems.append(f"{field} names something twice; allowed: each name once")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def asked(self, name: str) -> list[str]:
        """The variants that a name in `run` stands for, in the order of `variants`."""
        return [
            key
            for key in self.variants
            if name in (key, key.partition("-")[0], "all") or (name == "core" and key in self.core)
        ]

    def wanted(self) -> list[str]:
        """The variants that `run` asks for, in the order of `variants`."""
        found = {key for name in self.run for key in self.asked(name)}
        return [key for key in self.variants if key in found]


def _weights(value: str) -> str:
    if value not in ("none", "imagenet") and Path(value).suffix not in (
        ".safetensors",
        ".pth",
        ".pt",
    ):
        raise ValueError("none, imagenet, or a state-dict file (.safetensors, .pth, .pt)")
    return value if value in ("none", "imagenet") else str(project_path(value))


class File(Section):
    """The whole of params.yaml, the sections of datasets, methods and localizers still unread."""

    dataset: str
    method: str
    backbone: str
    weights: Annotated[InputFile, AfterValidator(_weights)]
    seed: Seed
    localizer: str
    heatmap: HeatmapName
    datasets: dict[str, Any]
    prepare: Prepare
    input: Input
    train: TrainAll
    heatmaps: Heatmaps
    box: Box
    localize: Localize
    evaluate: Evaluate
    localizers: dict[str, Any]
    methods: dict[str, Any]
    ablate: Ablate
