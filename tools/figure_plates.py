"""The plates of `wsol figures`: what each one shows, computed from the trained model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import boxes, methods, packed, params, pictures
from pipeline.boxes.rules import two_stage
from pipeline.errors import UserError
from pipeline.evaluation import metrics
from pipeline.files import write_csv
from pipeline.layers import hiding
from pipeline.layers.cells import side_ratio
from pipeline.loading import geometry, placement
from pipeline.methods.base import Method, Outputs, weighted_maps
from pipeline.methods.rcam import recombine
from pipeline.model import saved
from pipeline.output_folder import OutputFolder
from pipeline.params import Params, plug_points
from pipeline.report import galleries, plates, published
from pipeline.report.plates import View
from pipeline.runtime import precision
from pipeline.runtime.devices import pick_device
from pipeline.training.checkpoint import Checkpoint, fingerprint
from stages.layout import MODELS, PREPARED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = [level / 10 for level in range(9, 0, -1)]
CHANNELS = 4  # of each sign
BATCHES = 8  # of test images, for branches
CAM = "methods-cam"


class UnavailableError(Exception):
    """Why there is no such figure for this model."""


@dataclass(frozen=True)
class Scene:
    """Test images [B], as the network is given them, and what it answers."""

    settings: Params
    method: Method
    inputs: Tensor
    photographs: np.ndarray
    """uint8 [B, H, W, 3] on the test grid"""
    aspects: list[float]
    truth: list[np.ndarray]
    """[n, 4] on the test grid"""
    titles: list[str]
    outputs: Outputs
    predicted: Tensor
    """int64 [B, 1]"""

    def view(self, index: int, **changes: object) -> View:
        """The photograph of an image, with its true boxes."""
        side = self.settings.input.crop
        view = View(self.photographs[index], self.aspects[index], truth=self.truth[index] / side)
        return replace(view, **changes)  # type: ignore[arg-type]

    def heat(self, maps: Tensor) -> np.ndarray:
        """Maps [B, h, w] on the test grid, each from 0 to 1."""
        side = self.settings.input.crop
        return boxes.normalise(boxes.resize(maps.float(), (side, side))).cpu().numpy()

    def boxed(self, heat: np.ndarray, index: int, threshold: float) -> tuple[np.ndarray, float]:
        """The box at a threshold, as shares of the sides, and its IoU with the nearest true one."""
        box = boxes.boxes_at(heat[index : index + 1], threshold)
        iou = metrics.best_iou(box, self.truth[index : index + 1])[0]
        return box[0] / self.settings.input.crop, float(iou)


def make(names: Sequence[str], out: OutputFolder, images: int, point: str | None) -> None:
    """Draw the named figures of the trained model and replace the folder `out`."""
    settings = precision.resolved(params.load())
    trained = saved.load(MODELS, pick_device(settings.train.device), settings.method_params)
    scene = shown(settings, trained.method, images)
    drawing: dict[str, Callable[[], Figure]] = {
        "attention": lambda: attention(scene, point),
        "comparison": lambda: comparison(scene),
        "channels": lambda: channels(scene),
        "negative": lambda: negative(scene),
        "thresholds": lambda: thresholds(scene),
        "two_stage": lambda: chosen_in_two_stages(scene),
        "branches": lambda: branches(scene, rows),
    }
    rows: list[dict[str, object]] = []
    with out.replaced() as partial:
        for name in names:
            try:
                plates.save(drawing[name](), partial, name)
            except UnavailableError as reason:
                print(f"{name}: left out, since {reason}")
                continue
            print(f"{out.path}/{name}.png, {name}.pdf")
        if rows:
            write_csv(partial / "branches.csv", rows, list(rows[0]))


def shown(settings: Params, method: Method, count: int) -> Scene:
    """Test images with boxes, drawn at random, classes in turn."""
    split = packed.Split.open(PREPARED, "test")
    boxed = np.array([float("nan") if len(b) == 0 else 0.0 for b in split.boxes])
    order = pictures.choose(boxed, split.labels, len(boxed), settings.seed)["best"]
    indices = order[:count].tolist() or list(range(min(count, len(split))))
    batch, inputs = _batch(split, indices, settings, method)
    names = packed.read_meta(PREPARED).class_names
    outputs, predicted = answered(method, inputs)
    sizes = [(int(h), int(w)) for h, w in split.sizes[indices]]
    return Scene(
        settings,
        method,
        inputs,
        batch.permute(0, 2, 3, 1).cpu().numpy(),
        [min(max(width / height, 0.5), 2.0) for height, width in sizes],
        [
            placement.boxes_to_grid(split.boxes[i], size, settings.input)
            for i, size in zip(indices, sizes, strict=True)
        ],
        [galleries.class_title(names[split.labels[i]]) for i in indices],
        outputs,
        predicted,
    )


def _batch(
    split: packed.Split, indices: list[int], settings: Params, method: Method
) -> tuple[Tensor, Tensor]:
    """Images at the test crop, uint8 [B, 3, H, W], and as the network is given them."""
    size, crop = placement.test_size(settings.input), settings.input.crop
    whole = torch.stack([geometry.decode(split.encoded(i), size) for i in indices])
    edge = (size[0] - crop) // 2
    device = next(method.parameters()).device
    inputs = geometry.test_batch(whole.to(device), crop)
    return whole[:, :, edge : edge + crop, edge : edge + crop], inputs


@torch.no_grad()
def answered(method: Method, inputs: Tensor) -> tuple[Outputs, Tensor]:
    """A forward pass, and each image's best class [B, 1]."""
    outputs = method.eval()(inputs.contiguous(memory_format=torch.channels_last))
    return outputs, outputs.logits.argmax(1, keepdim=True)


# --- figures ----------------------------------------------------------------------------------


@torch.no_grad()
def attention(scene: Scene, point: str | None) -> "Figure":
    """Figure 17: attention at a plug point, and Eq. 11's masks from 0.9 to 0.1; white is kept."""
    backbone = scene.method.backbone
    own: tuple[str, ...] = getattr(scene.method.params, "plug_points", ())
    try:
        asked = plug_points.canonical(point) if point else None
    except ValueError as error:
        raise UserError(f"--point is {point!r}; allowed: {error}") from None
    name = backbone.hooked(asked or (own[-2:][0] if own else "stride16_late"))
    seen: dict[str, Tensor] = {}

    def at(where: str, features: Tensor) -> Tensor:
        seen[where] = features
        return features

    backbone(scene.inputs, at)
    maps = hiding.attention_map(seen[name])
    heat = scene.heat(maps[:, 0])
    rows = []
    for index in range(len(maps)):
        views = [
            scene.view(index, title="image" if index == 0 else ""),
            scene.view(index, title="attention" if index == 0 else "", heat=heat[index]),
        ]
        for level in LEVELS:
            kept = hiding.drop_mask(maps[index : index + 1], level)[0, 0].cpu().numpy()
            title = f"{level:.1f}" if index == 0 else ""
            views.append(View(kept, scene.aspects[index], title))
        rows.append(views)
    return plates.plate(rows)


def comparison(scene: Scene) -> "Figure":
    """Figures 18, 21 and 30: CAM and the model on the same images, boxes predicted and true."""
    settings = scene.settings
    if settings.method == "cam":
        raise UnavailableError(
            "the trained model is CAM itself; train a method, as in -S method=rcam"
        )
    variant = precision.resolved(params.variant(CAM))
    finished = Checkpoint.of(fingerprint(variant, PREPARED)).finished()
    if finished is None:
        raise UnavailableError(
            f"there is no trained CAM to compare with: run `dvc exp run -S 'ablate.run=[{CAM}]'`"
        )
    names = packed.read_meta(PREPARED).class_names
    cam = methods.build("cam", variant.backbone, "none", len(names), variant.method_params)
    cam.load_state_dict(finished[0])
    outputs, predicted = answered(cam.to(scene.inputs.device), scene.inputs)
    beside = replace(scene, method=cam, outputs=outputs, predicted=predicted, settings=variant)
    rows = {"CAM": _located(beside, titles=scene.titles)}
    return plates.plate({**rows, published.name(settings.method): _located(scene)})


def _located(scene: Scene, titles: Sequence[str] = ()) -> list[View]:
    """Each image under its map, with its box as the method reads it."""
    heat = scene.heat(scene.method.class_maps(scene.outputs, scene.predicted)[:, 0].detach())
    settings = scene.settings.box
    how = scene.method.box_selection if settings.selection == "auto" else settings.selection
    levels = np.full(len(heat), settings.threshold)
    if how == "two_stage":
        _, picked, found = two_stage.select(
            torch.from_numpy(heat).to(scene.inputs), scene.outputs.features, settings.two_stage
        )
        levels = np.where(found.cpu().numpy(), picked.cpu().numpy(), settings.threshold)
    views = []
    for index, level in enumerate(levels.tolist()):
        box, iou = scene.boxed(heat, index, level)
        title = f"{titles[index]}  " if titles else ""
        view = scene.view(index, heat=heat[index], box=box, title=f"{title}IoU {iou:.2f}")
        views.append(view)
    return views


def _weights(scene: Scene) -> Tensor:
    """The classifier's weights of the predicted classes, [B, C]."""
    classifier = getattr(scene.method, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        raise UnavailableError("the method's classifier is no linear layer on the last feature map")
    return classifier.weight.detach()[scene.predicted[:, 0]]


def channels(scene: Scene) -> "Figure":
    """Figure 24: the channels that add most to the class's score, and those that take most from it."""
    weights, features = _weights(scene), scene.outputs.features.float()
    share = weights * features.mean((2, 3))
    rows = []
    for index in range(len(share)):
        order = share[index].argsort(descending=True)
        views = [scene.view(index, title="image" if index == 0 else "")]
        for sign, picked in (
            ("positive", order[:CHANNELS]),
            ("negative", order.flip(0)[:CHANNELS]),
        ):
            for number, channel in enumerate(picked.tolist()):
                heat = scene.heat(features[index, channel][None])[0]
                title = f"{sign} weights" if index == number == 0 else ""
                views.append(scene.view(index, heat=heat, title=title))
        rows.append(views)
    return plates.plate(rows)


def negative(scene: Scene) -> "Figure":
    """Figure 27: the maps of Eq. 20 and 21, with the boxes of one threshold."""
    weights, features = _weights(scene)[:, None], scene.outputs.features.float()
    maps = {
        "positive channels": weighted_maps(features, weights.clamp(min=0)),
        "negative channels": weighted_maps(features, -weights.clamp(max=0)),
        "CAM (Eq. 20)": weighted_maps(features, weights),
        "recombined (Eq. 21)": weighted_maps(features, recombine(weights)),
    }
    heats = {name: scene.heat(of[:, 0]) for name, of in maps.items()}
    rows = []
    for index in range(len(features)):
        views = [scene.view(index, title="image" if index == 0 else "")]
        for name, heat in heats.items():
            box, _ = scene.boxed(heat, index, scene.settings.box.threshold)
            title = name if index == 0 else ""
            views.append(scene.view(index, heat=heat[index], box=box, title=title))
        rows.append(views)
    return plates.plate(rows)


def thresholds(scene: Scene) -> "Figure":
    """Figure 25: one map, the boxes of several thresholds, and how well each fits."""
    heat = scene.heat(scene.method.class_maps(scene.outputs, scene.predicted)[:, 0].detach())
    rows = []
    for index in range(len(heat)):
        views = [scene.view(index)]
        for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
            box, iou = scene.boxed(heat, index, level)
            title = f"{level:.1f}  IoU {iou:.2f}"
            views.append(scene.view(index, heat=heat[index], box=box, title=title))
        rows.append(views)
    return plates.plate(rows)


@torch.no_grad()
def chosen_in_two_stages(scene: Scene) -> "Figure":
    """Figure 31: candidate boxes, the variance of each one's similarity map, and the chosen one framed."""
    heat = scene.heat(scene.method.class_maps(scene.outputs, scene.predicted)[:, 0].detach())
    settings, features = scene.settings.box.two_stage, scene.outputs.features
    taus = two_stage.candidates(settings.step)
    grid, outline = (features.shape[2], features.shape[3]), settings.seeds == "contour"
    _, cells = boxes.seeds(heat, taus, grid, outline=outline)
    seeds = torch.from_numpy(cells).to(features.device).flatten(2).float()
    unit = two_stage.unit_vectors(features, center=settings.center)
    variance = two_stage.contrast(seeds, unit).cpu().numpy()
    enough = (seeds.sum(2) >= settings.min_seeds).cpu().numpy()
    _, picked, found = two_stage.select(torch.from_numpy(heat).to(features), features, settings)
    rows = []
    for index in range(len(heat)):
        chosen = float(picked[index]) if found[index] else -1.0
        nearest = int(np.abs(taus - chosen).argmin())
        every = sorted(
            {*range(1, len(taus), 2), nearest} if found[index] else range(1, len(taus), 2)
        )
        views = [scene.view(index, title="τ, 1000 · variance" if index == 0 else "")]
        for number in [k for k in every if enough[index, k]][:8]:
            box, _ = scene.boxed(heat, index, float(taus[number]))
            views.append(
                scene.view(
                    index,
                    heat=heat[index],
                    box=box,
                    title=f"{taus[number]:.2f}  {1000 * variance[index, number]:.1f}",
                    chosen=bool(found[index]) and number == nearest,
                )
            )
        rows.append(views)
    return plates.plate(rows)


@torch.no_grad()
def branches(scene: Scene, rows: list[dict[str, object]]) -> "Figure":
    """Share of test images by branch of Algorithm 1 at every plug point; also as rows."""
    method, settings = scene.method, scene.settings
    if not isinstance(getattr(method, "branches", None), hiding.BranchCounter):
        raise UnavailableError(f"{settings.method} has no branches; ass and ahd have")
    method.statistics()
    split = packed.Split.open(PREPARED, "test")
    ratio = side_ratio(settings.input.crop, settings.input.crop)
    size = settings.evaluate.batch_size
    for start in range(0, min(len(split), BATCHES * size), size):
        indices = list(range(start, min(start + size, len(split))))
        _, inputs = _batch(split, indices, settings, method)
        method.backbone(inputs, lambda point, x: method.on_feature(point, x, None, ratio))
    shares: dict[str, dict[str, float]] = {}
    for key, share in method.statistics().items():
        _, point, branch = key.split("/")
        shares.setdefault(point, {})[branch] = share
    rows += [{"plug_point": point, **of} for point, of in shares.items()]
    return plates.bars(shares, f"{published.name(settings.method)}: branches of Algorithm 1")
