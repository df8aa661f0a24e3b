"""Any network of the timm library whose layers form a chain, as `timm:<name>`, and its plain ViTs.

Plug points come from the network's own `feature_info`. Where stages end in linear, signed tensors and begin
with an expansion (MobileNet, EfficientNet), the point is the activated expansion of the next stage's first
block, which still has the finer grid. ConvNeXt's and ViT's points are their signed residual streams.
The last downsampling to 1/32 is taken out without dilation, so that published weights load unchanged.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.backbones.base import Backbone, Segment
from pipeline.errors import UserError
from pipeline.params.plug_points import POINTS

PREFIX = "timm:"
NETWORKS: dict[str, Any] = {}
PUBLISHED = ()
# timm is imported where it is used: that takes seconds.

_STRIDES = {2: "stride2", 4: "stride4", 8: "stride8", 16: "stride16_early", 32: "stride16_late"}
_HEADS = (
    *("global_pool", "head", "fc", "classifier", "head_drop", "fc_norm"),
    *("attn_pool", "pre_logits", "flatten"),
)
_SIZE = (
    64,
    96,
)  # of the image that measures a network; not square, so that channels and sides cannot be confused


def problem(name: str, weights: str) -> str | None:
    """Why there is no such network, or no published weights of it; None if there are."""
    import timm

    own = name.removeprefix(PREFIX)
    if not timm.is_model(own):
        close = difflib.get_close_matches(own, timm.list_models(), n=3)
        allowed = " or ".join(PREFIX + other for other in close) or f"{PREFIX}<a name of timm>"
        return f"backbone is {name!r}, which timm does not have; allowed: {allowed}"
    _, _, tag = own.partition(".")
    if tag and own not in timm.list_pretrained(own.partition(".")[0] + "*"):
        return (
            f"backbone is {name!r}; timm has no weights named {tag}; allowed: the name without it"
        )
    if weights == "imagenet" and not timm.models.is_model_pretrained(own.partition(".")[0]):
        return f"weights is 'imagenet', which {name} has none of; allowed: weights none or a file"
    try:
        build(name, 3)
    except UserError as error:
        return error.problems[0].removeprefix("params.yaml: ")
    return None


def build(name: str, input_channels: int) -> Backbone:
    """The named network with random weights. Raises UserError where its layers are not a chain."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    own = name.removeprefix(PREFIX)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": input_channels}
    trunk: nn.Module = timm.create_model(own, **options)
    inner: dict[str, Segment] = {}
    if isinstance(trunk, VisionTransformer):
        trunk = timm.create_model(own, **options, dynamic_img_size=True, dynamic_img_pad=True)
        segments, same = _transformer(name, trunk)
    else:
        segments, same, inner = _convolutional(name, trunk)
    config: Mapping[str, Any] = trunk.pretrained_cfg  # type: ignore[assignment]
    pixels = Pixels(config["mean"], config["std"]) if input_channels == 3 else None
    if pixels is not None and pixels.is_identity():
        pixels = None
    if pixels is not None:
        point, first = next(iter(segments.items()))
        segments[point] = Segment(nn.Sequential(pixels, first.layers), first.channels)
    classifier = config.get("classifier") or ()
    heads = [classifier] if isinstance(classifier, str) else list(classifier)
    heads += [name for name, child in trunk.named_children() if isinstance(child, nn.Identity)]

    def download() -> Mapping[str, Tensor]:
        try:
            whole = timm.create_model(own, pretrained=True, **options)
        except Exception as error:  # the hub's client has errors of its own for a missing network
            raise OSError(str(error)) from error
        state: Mapping[str, Tensor] = whole.state_dict()
        return state

    return Backbone(
        name,
        trunk,
        segments,
        same=same,
        inner=inner,
        pixels=pixels,
        imagenet=download if timm.models.is_model_pretrained(own.partition(".")[0]) else None,
        classifier=tuple(f"{head}." for head in heads),
    )


class Pixels(nn.Module):
    """From pixels normalised as ImageNet's to the network's own mean and standard deviation."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        super().__init__()
        given = torch.tensor([IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD], dtype=torch.float64)
        own = torch.tensor([mean, std], dtype=torch.float64)
        scale, shift = given[1] / own[1], (given[0] - own[0]) / own[1]
        self.register_buffer("scale", scale.float()[:, None, None], persistent=False)
        self.register_buffer("shift", shift.float()[:, None, None], persistent=False)

    def is_identity(self) -> bool:
        return bool((self.scale == 1).all() and (self.shift == 0).all())

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


# --- convolutional networks -------------------------------------------------------------------


def _convolutional(
    name: str, trunk: nn.Module
) -> tuple[dict[str, Segment], dict[str, str], dict[str, Segment]]:
    """Cut the chain of a network's layers at its features; with `same` and `inner` of a Backbone."""
    channels = next(m.in_channels for m in trunk.modules() if isinstance(m, nn.Conv2d))
    image = torch.rand(2, channels, *_SIZE, generator=torch.Generator().manual_seed(0))
    trunk.eval()
    try:
        steps = list(_steps(trunk))
        with torch.no_grad():
            expected = trunk.forward_features(image)  # type: ignore[operator]
            before = _run(steps, image)
            same_chain = torch.equal(before[-1], expected)
            _remove_last_stride(steps, image)
            maps = _run(steps, image)
        fits = same_chain and all(_is_map(m) for m in maps) and _reduction(maps[-1]) <= 16
    except (AssertionError, RuntimeError, AttributeError, TypeError, ValueError, IndexError):
        fits = False
    if not fits:
        raise UserError(
            f"params.yaml: backbone is {name!r}, whose layers are not a chain of convolutions that ends at "
            "1/16 of the image or finer; allowed: timm's ResNet, RegNet, EfficientNet, MobileNet, ConvNeXt, "
            "ViT and others like them"
        )
    used = {step[0].partition(".")[0] for step in steps}
    for head, module in list(trunk.named_children()):
        if head not in used:  # reads the last map; its norm is a part of the map
            norm = getattr(module, "norm", None)
            if isinstance(norm, nn.Module) and type(norm).__name__.startswith("LayerNorm2d"):
                steps.append((f"{head}.norm", norm, None))
                maps.append(norm(maps[-1]))
            else:
                setattr(trunk, head, nn.Identity())
    trunk.train()
    reductions = list(map(_reduction, before))
    return *_cut(steps, maps, reductions), _inner(trunk, steps, reductions)


Step = tuple[str, nn.Module, int | None]
"""A layer's name and module, and the reduction of the feature that it ends, if it ends one; 0: measured."""


def _steps(trunk: nn.Module) -> Iterator[Step]:
    """The layers in the order in which they are used, features inside them taken apart."""
    features = {info["module"]: info["reduction"] for info in trunk.feature_info}  # type: ignore[union-attr]
    expanded = any(_expansion(block) for stage in trunk.modules() for block in _blocks(stage))

    def unfold(prefix: str, module: nn.Module) -> Iterator[Step]:
        for key, child in module.named_children():
            path = f"{prefix}{key}"
            if not prefix and key in _HEADS:
                return
            if path not in features and any(f.startswith(f"{path}.") for f in features):
                yield from unfold(f"{path}.", child)
            else:
                yield path, child, features.get(path)

    if not expanded:
        yield from unfold("", trunk)
        return
    for path, module, _ in unfold("", trunk):
        blocks = list(_blocks(module))
        layers = _expansion(blocks[0]) if blocks else None
        if layers is None:
            activated = path == "bn1" or (blocks and not _is_linear(blocks[-1]))
            yield path, module, 0 if activated else None
            continue
        head, rest = layers
        yield f"{path}.0", head, 0
        yield path, nn.Sequential(*rest, *blocks[1:]), None


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential):
        yield from module


def _is_linear(block: nn.Module) -> bool:
    """Whether the block ends in a projection without activation."""
    return any(hasattr(block, name) for name in ("conv_pwl", "conv_pw", "pw_proj"))


def _expansion(block: nn.Module) -> tuple[nn.Module, list[nn.Module]] | None:
    """A block without shortcut cut behind its activated expansion; None for any other block."""
    layers = dict(block.named_children())
    names = [name for name in layers if name != "drop_path"]
    if getattr(block, "has_skip", True):
        return None
    if "bn1" in layers and "conv_pwl" in layers:  # InvertedResidual, EdgeResidual
        end = names.index("bn1") + 1
    elif "pw_exp" in layers:  # UniversalInvertedResidual of MobileNetV4
        end = names.index("pw_exp") + 1
    else:
        return None
    return nn.Sequential(*(layers[n] for n in names[:end])), [layers[n] for n in names[end:]]


def _run(steps: list[Step], features: Tensor) -> list[Tensor]:
    """The output of every step."""
    outputs = []
    for _, module, _ in steps:
        features = module(features)
        outputs.append(features)
    return outputs


def _remove_last_stride(steps: list[Step], image: Tensor) -> None:
    """Let the layers that go below 1/16 keep the grid they are given."""
    features = image
    for index, (name, module, reduction) in enumerate(steps):
        output = module(features)
        if output.shape[3] * 16 < image.shape[3]:
            if _is_pool(module):
                steps[index] = (name, nn.Identity(), reduction)
                continue
            _keep_grid(module)
            output = module(features)
        features = output


def _is_pool(layer: nn.Module) -> bool:
    return "Pool" in type(layer).__name__ and getattr(layer, "stride", 1) not in (1, (1, 1))


def _keep_grid(module: nn.Module) -> None:
    for path, layer in list(module.named_modules()):
        if _is_pool(layer):
            module.set_submodule(path, nn.Identity())
        if not isinstance(layer, nn.Conv2d) or layer.stride == (1, 1):
            continue
        layer.stride = (1, 1)
        if layer.kernel_size[0] % 2 == 0 and layer.padding == (0, 0):
            layer.register_forward_pre_hook(_pad)  # ConvNeXt's 2 × 2 would lose a row


def _pad(layer: nn.Conv2d, given: tuple[Tensor]) -> tuple[Tensor]:
    """Zeros behind the last row and column, as many as an even kernel without padding takes away."""
    height, width = (size - 1 for size in layer.kernel_size)
    return (F.pad(given[0], (0, width, 0, height)),)


def _cut(
    steps: list[Step], maps: list[Tensor], before: list[int]
) -> tuple[dict[str, Segment], dict[str, str]]:
    """Segments that end at the plug points, and the depths that have no tensor of their own.

    before: the reduction at each step with the stride that was removed.
    """
    ends: dict[str, int] = {}
    for index, (_, _, reduction) in enumerate(steps):
        if reduction is None:
            continue
        point = _STRIDES.get(reduction or before[index])
        if not reduction and before[index] == 16:
            point = "stride16_late" if before[index + 1] == 32 else "stride16_early"
            if point in ends:
                continue
        if point is None or (not reduction and before[index] == 32):
            continue
        ends[point] = index
    ends["last"] = len(steps) - 1
    for point, end in ends.items():
        while isinstance(steps[end][1], nn.Identity):
            end -= 1
        ends[point] = end
    segments: dict[str, Segment] = {}
    same: dict[str, str] = {}
    start, at = 0, {index: point for point, index in reversed(ends.items())}
    for index, point in sorted(at.items()):
        layers = nn.Sequential(*(module for _, module, _ in steps[start : index + 1]))
        segments[point] = Segment(layers, maps[index].shape[1])
        start = index + 1
    for depth, point in enumerate(POINTS):
        if point not in segments:
            nearest = [p for p in (*POINTS[depth:], *reversed(POINTS[:depth])) if p in segments]
            same[point] = at.get(ends.get(point, -1), nearest[0])
    return segments, same


def _inner(trunk: nn.Module, steps: list[Step], before: list[int]) -> dict[str, Segment]:
    """`deep`, the expansion two blocks behind the one at which the stride to 1/32 was removed, if there is one."""
    for (path, _, reduction), here, behind in zip(steps, before, before[1:], strict=False):
        if reduction == 0 and (here, behind) == (16, 32) and path.endswith(".0"):
            stage = list(_blocks(trunk.get_submodule(path.removesuffix(".0"))))
            block = stage[min(2, len(stage) - 1)]
            layer = getattr(block, "bn1", None)
            if hasattr(block, "conv_pwl") and isinstance(layer, nn.BatchNorm2d):
                return {"deep": Segment(layer, layer.num_features)}
    return {}


def _reduction(features: Tensor) -> int:
    """How many pixels of the measured image a cell is wide; 0 where the tensor is not a map."""
    return round(_SIZE[1] / features.shape[3]) if features.ndim == 4 else 0


def _is_map(features: Tensor) -> bool:
    """Whether a tensor is [B, C, h, w]: some networks put channels last."""
    return features.ndim == 4 and features.shape[2] * _SIZE[1] == features.shape[3] * _SIZE[0]


# --- vision transformers ----------------------------------------------------------------------


class _Prefix:
    """The class token and the registers, which travel beside the map of patch tokens.

    A pass that begins at a plug point takes those of the last whole pass, without gradient.
    """

    def __init__(self) -> None:
        self.current: Tensor | None = None
        self.kept: dict[int, Tensor] = {}
        self.whole = False


class _Stage(nn.Module):
    """Blocks between two plug points: [B, C, h, w] → [B, C, h, w], the first one from images."""

    def __init__(self, index: int, trunk: nn.Module, layers: list[nn.Module], prefix: _Prefix):
        super().__init__()
        self.index, self.prefix = index, prefix
        self.layers = nn.Sequential(*layers)
        self._trunk = [trunk]  # a list hides it from nn.Module

    def forward(self, given: Tensor) -> Tensor:
        trunk: Any = self._trunk[0]
        prefix = self.prefix
        if self.index == 0:
            patches = trunk.patch_embed(given)  # [B, h, w, C]
            height, width = patches.shape[1:3]
            tokens = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(patches)))
            prefix.whole = True
        else:
            height, width = given.shape[2:]
            before, prefix.current = prefix.current, None
            if before is None:
                prefix.whole, before = False, prefix.kept[self.index - 1]
            tokens = torch.cat([before.to(given.dtype), given.flatten(2).mT], 1)
        tokens = self.layers(tokens)
        count = trunk.num_prefix_tokens
        first, patches = tokens[:, :count], tokens[:, count:]
        if prefix.whole:
            prefix.kept[self.index] = first.detach()
        prefix.current = first
        if self.index == len(POINTS) - 1:
            prefix.current = None
        return patches.mT.unflatten(2, (height, width)).contiguous()


def _transformer(name: str, trunk: Any) -> tuple[dict[str, Segment], dict[str, str]]:
    """A plain ViT cut after every sixth of its blocks; all maps have one size."""
    size = trunk.patch_embed.patch_size[0]
    if size > 16 or len(trunk.blocks) < len(POINTS):
        raise UserError(
            f"params.yaml: backbone is {name!r}, whose patches are {size} pixels and blocks {len(trunk.blocks)}; "
            f"allowed: patches of at most 16 pixels and at least {len(POINTS)} blocks"
        )
    for head in ("head", "head_drop"):
        setattr(trunk, head, nn.Identity())
    if trunk.attn_pool is not None:
        trunk.attn_pool = None
    count, prefix, start = len(trunk.blocks), _Prefix(), 0
    segments: dict[str, Segment] = {}
    for index, point in enumerate(POINTS):
        end = round((index + 1) * count / len(POINTS))
        layers = list(trunk.blocks[start:end])
        if point == "last":
            layers += [trunk.norm, trunk.fc_norm]
        segments[point] = Segment(_Stage(index, trunk, layers, prefix), trunk.embed_dim)
        start = end
    return segments, {}
