"""How boxes are read off a trained model: one frozen `Reading`, and the `Reader` that applies it.

evaluate, predict, the galleries and the served model all read through it, so that the same image
gets the same box from each of them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline import boxes, heatmaps
from pipeline.boxes import rules
from pipeline.boxes.rules.base import Boxes, BoxRule, Unit
from pipeline.loading import geometry
from pipeline.methods.base import Method, Outputs
from pipeline.params import CLASS_MAP, Heatmaps, Input, Params, Section, TwoStage
from pipeline.runtime.devices import autocast


class Localizer(Protocol):
    """A way to read maps, or boxes, off a trained model's features; `pipeline.localizers` has them."""

    unit: Unit
    threshold: float
    """Of `absolute` maps, where `box.selection` is auto: the border of the object."""
    depths: tuple[str, ...]
    """The backbone's plug points whose feature maps it reads."""
    regresses: bool
    """Whether it answers with boxes."""

    def maps(self, features: dict[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """Raw maps [B, Q, h, w] of the classes [B, Q]."""

    def boxes(self, features: dict[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """Boxes [B, Q, 4] as shares of the network's input: x0, y0, x1, y1 in 0 … 1."""


class Reading(Section):
    """All that decides which box a given model draws on a given image; nothing is left to choose."""

    localizer: str
    heatmap: str
    heatmaps: Heatmaps
    normalise: Literal["min_max", "ivr"]
    ivr_quantile: float
    rule: str
    """A file of pipeline/boxes/rules, never `auto`."""
    threshold: float
    """At which boxes are cut; where the rule chooses one per image, the one it falls back to."""
    unit: Unit
    """Of the maps that the rule is given, and of the threshold."""
    two_stage: TwoStage
    precision: Literal["fp32", "bf16"]
    batch_size: int
    """Images that the network is shown at a time, except on a CPU."""
    input: Input
    short_side: int
    """Pixels: images are shrunk to at most this short side, as preprocess does, before all else."""

    @property
    def box_rule(self) -> BoxRule:
        return rules.load(self.rule)

    @property
    def side(self) -> int:
        """Of the test grid, on which maps and boxes are, in pixels."""
        return self.input.crop

    def at(self, threshold: float) -> "Reading":
        """This reading at another threshold."""
        return self.model_copy(update={"threshold": threshold})


def resolve(
    params: Params, method: Method, short_side: int, localizer: Localizer | None = None
) -> Reading:
    """The reading that params.yaml asks for: `auto` becomes the localizer's or the method's own way.

    short_side: of the images that the model was trained on. `train.precision` is fp32 or bf16 by now.
    A rule with `chosen_on` still needs its threshold, by `Reading.at`.
    """
    box, unit = params.box, localizer.unit if localizer else "relative"
    rule, threshold = box.selection, box.threshold
    if rule == "auto" and localizer and unit == "absolute":
        rule, threshold = "fixed", localizer.threshold
    elif rule == "auto":
        rule = method.box_selection
    return Reading.model_validate(
        {
            "localizer": type(localizer).__module__.rpartition(".")[2] if localizer else CLASS_MAP,
            "heatmap": params.heatmap,
            "heatmaps": params.heatmaps,
            "normalise": box.normalise,
            "ivr_quantile": box.ivr_quantile,
            "rule": rule,
            "threshold": threshold,
            "unit": rules.load(rule).unit or unit,
            "two_stage": box.two_stage,
            "precision": params.train.precision,
            "batch_size": params.evaluate.batch_size,
            "input": params.input,
            "short_side": short_side,
        }
    )


@dataclass(frozen=True)
class ClassMaps:
    """What a model says of a batch: logits [B, K], and maps of Q classes as they were read, `raw` [B, Q, h, w].

    features [B, C, h, w], the last feature map (None where nobody reads it); regressed [B, Q, 4],
    the boxes of a localizer that answers with boxes, on the test grid.
    """

    reading: Reading
    logits: Tensor
    raw: Tensor
    features: Tensor | None = None
    regressed: Tensor | None = None

    @property
    def rows(self) -> dict[str, Tensor]:
        """The tensors by name, those that are read most often first."""
        every = {"logits": self.logits, "raw": self.raw, "regressed": self.regressed}
        every["features"] = self.features
        return {name: tensor for name, tensor in every.items() if tensor is not None}

    @cached_property
    def maps(self) -> Tensor:
        """Maps float32 [B, Q, H, W] on the test grid: in 0 … 1 where relative, else in their own unit."""
        flat = self._resized
        if self.reading.unit == "relative":
            ivr = self.reading.normalise == "ivr"
            flat = boxes.ivr(flat, self.reading.ivr_quantile) if ivr else boxes.normalise(flat)
        return flat.unflatten(0, self.raw.shape[:2])

    @property
    def shown(self) -> Tensor:
        """The maps in 0 … 1, for pictures."""
        if self.reading.unit == "relative":
            return self.maps
        return boxes.normalise(self._resized).unflatten(0, self.raw.shape[:2])

    @property
    def _resized(self) -> Tensor:
        return boxes.resize(self.raw.flatten(0, 1), (self.reading.side, self.reading.side))

    def boxes(self, query: int) -> Boxes:
        """The box on the test grid that the reading finds for each image's class number `query`."""
        reading, count = self.reading, len(self.logits)
        if self.regressed is not None:
            found = self.regressed[:, query].float().cpu().numpy()
            return Boxes(found, np.full(count, reading.threshold, np.float32), np.ones(count, bool))
        return reading.box_rule.choose(
            self.maps[:, query], self.features, reading.threshold, reading.unit, reading.two_stage
        )


@dataclass(frozen=True)
class Reader:
    """A trained model in evaluation mode and how boxes are read off it."""

    method: Method
    reading: Reading
    localizer: Localizer | None = None

    def __post_init__(self) -> None:
        self.method.eval()
        if self.localizer is None:
            heatmaps.check(self.reading.heatmap, self.reading.heatmaps)

    @property
    def device(self) -> torch.device:
        return next(self.method.parameters()).device

    @property
    def outputs(self) -> tuple[str, ...]:
        """The model outputs that boxes are read from, by their names in `ClassMaps.rows`."""
        regressed = ("regressed",) if self.localizer and self.localizer.regresses else ()
        return ("logits", "raw", *regressed, *self.reading.box_rule.needs)

    @property
    def passes(self) -> int:
        """Forward passes of the network per image."""
        if self.localizer:
            return 1
        channels = self.method.backbone.out_channels
        return heatmaps.passes(self.reading.heatmap, self.reading.heatmaps, channels)

    @torch.no_grad()
    def read(self, images: Tensor, labels: Tensor | None = None) -> ClassMaps:
        """The predicted class's maps and, second, the true class's where `labels` int64 [B] are given.

        images: uint8 [B, 3, H, W] of `placement.test_size`. Kernels add up in another order in batches
        of another size, and the last bit can move a box: so that an image's box does not depend on
        its company, the network is run on one image at a time on a CPU (where that is no slower),
        elsewhere on batches filled up to `batch_size`.
        """
        size = 1 if self.device.type == "cpu" else self.reading.batch_size
        parts = []
        for start in range(0, len(images), size):
            some = images[start : start + size].to(self.device, non_blocking=True)
            asked = None if labels is None else labels[start : start + size].to(self.device)
            missing = size - len(some)
            if missing:
                some = torch.cat([some, some.new_zeros(missing, *some.shape[1:])])
                asked = None if asked is None else torch.cat([asked, asked.new_zeros(missing)])
            rows = self._read(some, asked).rows
            parts.append({name: tensor[: size - missing] for name, tensor in rows.items()})
        return self.again({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def _read(self, images: Tensor, labels: Tensor | None) -> ClassMaps:
        reading = self.reading
        inputs = geometry.test_batch(images, reading.side)
        depths = self.localizer.depths if self.localizer else ()
        with (
            self.method.backbone.captured(depths) as features,
            autocast(reading.precision, inputs.device),
        ):
            outputs = self.method(inputs.contiguous(memory_format=torch.channels_last))
        logits = outputs.logits.float()
        predicted = logits.argmax(1)
        # Always two classes, also where nobody knows the labels: for the same order of sums.
        classes = torch.stack([predicted, predicted if labels is None else labels], 1)
        regressed = None
        if self.localizer is None:
            raw = heatmaps.class_maps(
                reading.heatmap, reading.heatmaps, self.method, inputs, outputs, classes
            )
        elif self.localizer.regresses:
            regressed = self.localizer.boxes(features, outputs, classes).float() * reading.side
            raw = filled(regressed, reading.side)
        else:
            raw = self.localizer.maps(features, outputs, classes)
        return ClassMaps(reading, logits, raw.float(), outputs.features.float(), regressed)

    def again(self, rows: dict[str, Tensor]) -> ClassMaps:
        """What was read before, from `ClassMaps.rows`."""
        return ClassMaps(self.reading, **{name: t.to(self.device) for name, t in rows.items()})


def filled(found: Tensor, side: int) -> Tensor:
    """Boxes [B, Q, 4] as maps [B, Q, side, side]: 1 where a pixel's centre is inside."""
    centre = torch.arange(side, device=found.device) + 0.5
    x0, y0, x1, y1 = found[..., None].unbind(2)
    across, down = (x0 <= centre) & (centre < x1), (y0 <= centre) & (centre < y1)
    return (down[..., :, None] & across[..., None, :]).float()
