"""Networks as named segments: each ends at a plug point, a tensor that has just passed a ReLU.

All keep 1/16 of the image's side in their last feature map, so 224 px give 14 × 14 (128 px: 8 × 8).
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import UserError

Hook = Callable[[str, Tensor], Tensor]

CHANNELS: dict[str, dict[str, int]] = {
    "vgg16": {"pool1": 64, "pool2": 128, "pool3": 256, "pool4": 512, "conv5_3": 512},
    "vgg_small": {"pool1": 8, "pool2": 16, "pool3": 32, "pool4": 64, "conv5_3": 96},
    "resnet50": {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048},
    "mobilenet_v2": {"expand7": 192, "expand14": 576, "last": 1280},
}
PLUG_POINTS: dict[str, tuple[str, ...]] = {name: tuple(points) for name, points in CHANNELS.items()}

PRETRAINED = ("vgg16", "resnet50", "mobilenet_v2")
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SMALL = ((8,), (16,), (32,), (64, 64), (96, 96))
# torchvision is imported where it is used: that takes as long as importing torch does.


def identity(point: str, features: Tensor) -> Tensor:
    """The hook that changes nothing."""
    return features


class Backbone(nn.Module):
    """A trunk cut into segments, one per plug point, and on VGG a neck of new layers behind it.

    `trunk` keeps torchvision's state-dict names, without the classifier. `points` are the plug points
    by depth, `channels` their widths, `out_channels` that of the last feature map.
    """

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        segments: list[nn.Module],
        out_channels: int,
        neck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.channels = CHANNELS[name]
        self.points = PLUG_POINTS[name]
        self.out_channels = out_channels
        self.trunk = trunk
        self.neck = neck
        # A dict hides the segments from nn.Module, which would list the trunk's weights twice.
        self._segments = dict(zip(self.points, segments, strict=True))

    def segment(self, point: str) -> nn.Module:
        """The layers that end at a plug point."""
        return self._segments[point]

    def forward(self, images: Tensor, at: Hook = identity, after: str | None = None) -> Tensor:
        """The last feature map [B, C, h, w]; each plug point's tensor is replaced by `at(point, it)`.

        images: [B, 3, H, W]. With `after`, `images` is that point's tensor and the rest is run, for
        methods whose streams share a part of the network.
        """
        start = 0 if after is None else self.points.index(after) + 1
        features = images
        for point in self.points[start:]:
            features = at(point, self._segments[point](features))
        return features if self.neck is None else self.neck(features)


def build(name: str, input_channels: int = 3) -> Backbone:
    """The named backbone with random weights. Raises UserError for a name that is none."""
    if name not in _BUILDERS:
        raise UserError(
            f"params.yaml: backbone is {name!r}; allowed: {', '.join(sorted(_BUILDERS))}"
        )
    return _BUILDERS[name](input_channels)


def _vgg16(input_channels: int) -> Backbone:
    # conv6 of VGG-GAP, in the place of pool5 and the fully connected layers
    neck = nn.Sequential(nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU(inplace=True))
    return _vgg("vgg16", _stages(_VGG16, input_channels, batch_norm=False), 1024, neck)


def _vgg_small(input_channels: int) -> Backbone:
    """VGG's five stages, thin, with batch norm: trained from scratch on two CPU cores."""
    conv = nn.Conv2d(96, 128, 3, padding=1, bias=False)
    neck = nn.Sequential(conv, nn.BatchNorm2d(128), nn.ReLU(inplace=True))
    return _vgg("vgg_small", _stages(_SMALL, input_channels, batch_norm=True), 128, neck)


def _stages(
    widths: tuple[tuple[int, ...], ...], channels: int, *, batch_norm: bool
) -> nn.Sequential:
    """VGG's convolutions, a pool between stages and none after the last; torchvision's numbering."""
    layers: list[nn.Module] = []
    for stage in widths:
        for width in stage:
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[:-1])


def _vgg(name: str, features: nn.Sequential, out_channels: int, neck: nn.Module) -> Backbone:
    trunk = nn.Module()
    trunk.features = features
    ends = [i + 1 for i, m in enumerate(features) if isinstance(m, nn.MaxPool2d)]
    cuts = zip([0, *ends], [*ends, len(features)], strict=True)
    backbone = Backbone(name, trunk, [features[a:b] for a, b in cuts], out_channels, neck)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return backbone


def _resnet50(input_channels: int) -> Backbone:
    """ResNet50 whose layer4 has stride 1: no dilation, so published weights load unchanged."""
    from torchvision.models import resnet50

    trunk = resnet50(weights=None)
    del trunk.fc
    trunk.layer4[0].conv2.stride = trunk.layer4[0].downsample[0].stride = (1, 1)
    _accept_channels(trunk, input_channels)
    stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool, trunk.layer1)
    return Backbone("resnet50", trunk, [stem, trunk.layer2, trunk.layer3, trunk.layer4], 2048)


def _mobilenet_v2(input_channels: int) -> Backbone:
    """MobileNetV2 without its last stride, cut where the expansions of blocks 7 and 14 pass ReLU6.

    The blocks' outputs are linear and signed: their channel mean is no attention map.
    """
    from torchvision.models import mobilenet_v2

    trunk = mobilenet_v2(weights=None)
    del trunk.classifier
    _accept_channels(trunk, input_channels)
    blocks = trunk.features
    expand7, *rest7 = blocks[7].conv  # neither block has a shortcut around it
    expand14, *rest14 = blocks[14].conv
    rest14[0][0].stride = (1, 1)
    segments: list[nn.Module] = [
        nn.Sequential(*blocks[:7], expand7),
        nn.Sequential(*rest7, *blocks[8:14], expand14),
        nn.Sequential(*rest14, *blocks[15:]),
    ]
    return Backbone("mobilenet_v2", trunk, segments, 1280)


_BUILDERS: dict[str, Callable[[int], Backbone]] = {
    "vgg16": _vgg16,
    "vgg_small": _vgg_small,
    "resnet50": _resnet50,
    "mobilenet_v2": _mobilenet_v2,
}


def _accept_channels(trunk: nn.Module, channels: int) -> None:
    """Replace the first convolution by one of `channels` inputs, unless it is one."""
    name, conv = next((n, m) for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d))
    if conv.in_channels != channels:
        new = nn.Conv2d(
            channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            bias=conv.bias is not None,
        )
        trunk.set_submodule(name, new)


def load_weights(backbone: Backbone, weights: str) -> None:
    """Fill the trunk; a neck keeps its random weights.

    weights: `none` (nothing happens), `imagenet` (torchvision's, downloaded once, checksum verified) or
    the path of a state dict in torchvision's layout: `.safetensors`, else a `torch.save` file that
    loads without running code. Classifier entries are ignored, half precision becomes float32.
    Raises UserError when the weights cannot be had or do not fit.
    """
    if weights == "none":
        return
    state = _download(backbone.name) if weights == "imagenet" else _read(Path(weights))
    expected = backbone.trunk.state_dict()
    given = {k: v for k, v in state.items() if not k.startswith(("classifier.", "fc."))}
    # Batch norm's step counters play no part, and files older than PyTorch 0.4.1 lack them.
    missing = [k for k in expected if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [k for k in given if k not in expected]
    reshaped = [k for k in given if k in expected and given[k].shape != expected[k].shape]
    misfits = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for what, keys in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", reshaped),
        )
        if keys
    ]
    if misfits:
        raise _refusal(
            weights, f"its entries do not fit {backbone.name}: {', '.join(misfits)}", backbone.name
        )
    backbone.trunk.load_state_dict(given, strict=False)


def _download(name: str) -> Mapping[str, Tensor]:
    if name not in PRETRAINED:
        raise _refusal("imagenet", f"there are none for {name}", name)
    from torchvision.models import get_model_weights

    try:
        published = get_model_weights(name)["IMAGENET1K_V1"]
        state: Mapping[str, Tensor] = published.get_state_dict(check_hash=True)
    except (OSError, RuntimeError) as error:
        raise _refusal("imagenet", f"the download failed ({_line(error)})", name) from error
    return state


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise _refusal(str(path), "there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(str(path), "it would run code when loaded, or is no PyTorch file") from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise _refusal(str(path), f"it cannot be read ({_line(error)})") from error
    if not isinstance(state, Mapping):
        raise _refusal(str(path), "it holds no dict, not tensors by name")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        names = ", ".join(map(str, state))[:80]
        raise _refusal(str(path), f"it holds a dict of {names}, not tensors by name")
    return state


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _refusal(weights: str, reason: str, name: str | None = None) -> UserError:
    published = "" if name is not None and name not in PRETRAINED else ", imagenet"
    return UserError(
        f"params.yaml: weights is {weights}; {reason}; "
        f"allowed: none{published} or the file of a state dict (.safetensors, .pth)"
    )
